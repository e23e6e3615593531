"""Architectures of transformers, as small random models -> how each runs here, for the page "Which models".

    python -m ddpo_lib.report.families     # tries each family, and writes the table of the page

Each model has a tied head if its family has one, and a vocabulary that was resized. It is scored whole, with an adapter
on its last layers, and with its lower layers kept. Every score is compared with the model's own call on one sequence at
a time, which is given token ids and nothing else: no positions, no mask.
"""

import copy
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from ddpo_lib.models.adapters import add_adapter, linear_names, number_of_layers
from ddpo_lib.models.packing import why_padded
from ddpo_lib.profiles.settings import Model
from ddpo_lib.training.frozen_layers import Trunk
from ddpo_lib.training.logps import own_logits, packed_rows, score_responses, way_for, with_fused_head

PAGE = Path(__file__).parents[2] / "book" / "models.md"
LIST = Path(__file__).with_name("families.yaml")
KEPT = 1  # lower layers
ADDED = 3  # tokens, by which the vocabulary is resized
PARTLY_ADAPTED = ("falcon_h1", "mamba", "mamba2")  # their kernels read the weight of `out_proj`, so PEFT refuses it


@dataclass(frozen=True)
class Family:
    """An architecture: its name for readers, its `model_type` in transformers, and its settings."""

    name: str
    kind: str
    settings: dict

    def build(self):
        """A random model whose weights are large enough that what a token attends to shows in what follows it."""
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(self.kind, **self.settings)).eval()
        model.resize_token_embeddings(self.settings["vocab_size"] + ADDED, mean_resizing=False)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        return model

    def targets(self, model) -> list[str]:
        """The names of all linear layers that PEFT can adapt."""
        names = linear_names(model)
        return [name for name in names if name != "out_proj"] if self.kind in PARTLY_ADAPTED else names


def read_families() -> list[Family]:
    """The families of `families.yaml`."""
    listed = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    return [Family(one["name"], one["kind"], listed["sizes"] | one.get("settings", {})) for one in listed["families"]]


MARKED = re.compile(r"(<!-- families -->)\n(.*?)\n?(<!-- /families -->)", re.S)
REASONS = {  # part of what the library says -> what the page says
    "layers of the type linear_attention": "a recurrent state would pass from one sequence to the next",
    "layers of the type hybrid": "a recurrent state would pass from one sequence to the next",
    "layers of the type conv": "convolutions would reach into the sequence before",
    "layers of the type chunked_attention": "attention in chunks counts from the start of the row",
    "takes no `position_ids`": "positions, or biases by distance, cannot be given",
    "is not told where": "its layers do not pass the layout on to the attention",
    'is "eager"': "transformers gives it no `sdpa` attention",
    "attention cannot be replaced": "its attention is its own",
    "differ from the model's own": "the first-use check found other log-probabilities: positions depend on padding",
    "depends on the tokens after it": "a token's probability depends on later tokens: not a causal language model",
}


@dataclass(frozen=True)
class Tried:
    """How a family runs.

    Attributes:
        way: "packed", "padded" or "refused".
        why: why it is not packed, or "".
        all_logits: whether the logits of a whole batch are held, since TRL's head does not fit.
        why_whole: why lower layers cannot be kept, or "".
        gaps: the largest difference from the model's own call in nats per response, by what was scored: "whole",
            "adapter", "kept" (an adapter over kept lower layers), and "gradients" of the adapter, in their own unit.
    """

    family: Family
    way: str
    why: str
    all_logits: bool
    why_whole: str
    gaps: dict[str, float]


ROWS = [  # prompt, response; the first two share a prompt
    ([3, 4, 5, 6, 7], [8, 9, 10, 11]),
    ([3, 4, 5, 6, 7], [12, 9]),
    ([13, 14], [15]),
    ([16], [3, 5, 7, 9, 11, 13]),
    ([2, 9, 17, 21, 4, 6, 8], [3, 5, 7, 9, 11, 13, 20, 21, 34]),
]


def try_family(family: Family) -> Tried:
    """Build a family's model and score responses in each way."""
    try:
        model = family.build()
    except ValueError:
        return Tried(family, "refused", f"transformers has no causal language model of {family.name}", False, "", {})
    other = with_fused_head(copy.deepcopy(model))
    with_fused_head(model)
    try:
        way = way_for(model, "cpu")
    except ValueError as error:
        return Tried(family, "refused", str(error).partition(": ")[2], False, "", {})
    name, reason = ("packed", "") if way is packed_rows else ("padded", why_padded(model))
    gaps = {"whole": _gap(model, _alone(model))}
    policy = _with_adapter(model, family.targets(model))
    alone = _alone(policy)
    gaps["adapter"] = _gap(policy, alone)
    gaps["gradients"] = _distance(_gradients(policy, _scored(policy)), _gradients(policy, alone))
    try:
        trunk = Trunk(other, KEPT)
    except ValueError as error:
        return Tried(family, name, reason, way is own_logits, str(error).partition(": ")[2], gaps)
    gaps["kept"] = _gap(_with_adapter(other, family.targets(other)), alone, trunk)
    return Tried(family, name, reason, way is own_logits, "", gaps)


def _with_adapter(model, targets: list[str]):
    """With an adapter on the last layers, which changes what the model says."""
    settings = {"lora_r": 4, "lora_alpha": 8, "lora_targets": targets, "last_layers": number_of_layers(model) - KEPT}
    policy = add_adapter(model, Model(name="model", dtype="float32", template="{prompt}", **settings))
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


def _scored(model, trunk=None) -> torch.Tensor:
    length = max(len(prompt) + len(response) for prompt, response in ROWS)
    ids, mask, own = (torch.zeros(len(ROWS), length, dtype=torch.long) for _ in range(3))
    for i, (prompt, response) in enumerate(ROWS):
        stop = len(prompt) + len(response)
        ids[i, :stop], mask[i, :stop] = torch.tensor(prompt + response), 1
        own[i, len(prompt) : stop] = 1
    return score_responses(model, {"input_ids": ids, "attention_mask": mask}, own, trunk).logps


def _alone(model) -> torch.Tensor:
    sums = []
    for prompt, response in ROWS:
        ids = torch.tensor([prompt + response])
        logps = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
        sums.append(logps.gather(-1, ids[0, 1:, None])[len(prompt) - 1 :].sum())
    return torch.stack(sums)


def _gap(model, expected: torch.Tensor, trunk=None) -> float:
    with torch.no_grad():
        return (_scored(model, trunk) - expected).abs().max().item()


def _gradients(policy, logps: torch.Tensor) -> list[torch.Tensor]:
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return torch.autograd.grad(logps.mean(), parameters, allow_unused=True)


def _distance(found: list, expected: list) -> float:
    """The largest difference, as a share of the largest entry."""
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None or b is not None]
    largest = max(b.abs().max().item() for _, b in pairs)
    return max((a - b).abs().max().item() for a, b in pairs) / largest


def write_page(page: Path, tried: list[Tried]) -> None:
    """Write the table into the page, between `<!-- families -->` and `<!-- /families -->`."""
    text = page.read_text(encoding="utf-8")
    page.write_text(MARKED.sub(lambda marks: f"{marks[1]}\n{table(tried)}\n{marks[3]}", text), encoding="utf-8")


def table(tried: list[Tried]) -> str:
    """A row per family, in Markdown."""
    head = f"Tried with transformers {transformers.__version__}: {len(tried)} architectures, of which "
    head += ", ".join(f"{sum(one.way == way for one in tried)} are {way}" for way in ("packed", "padded", "refused"))
    rows = [
        "| architecture | model_type | batches are | lower layers | why |",
        "|---|---|---|---|---|",
        *(f"| {one.family.name} | {one.family.kind} | {one.way} | {_lower(one)} | {_why(one)} |" for one in tried),
    ]
    return "\n".join([f"{head}.", "", *rows])


def _lower(one: Tried) -> str:
    return "" if one.way == "refused" else "run each time" if one.why_whole else "kept"


def _why(one: Tried) -> str:
    """In a reader's words; a reason that is not known here stands as the library says it."""
    reason = next((words for part, words in REASONS.items() if part in one.why), one.why)
    head = "TRL's head does not fit, so all logits of a batch are held" if one.all_logits else ""
    only_kept = "its layers pass on more than hidden states" if one.why_whole and one.way == "packed" else ""
    return "; ".join(filter(None, (reason, head, only_kept)))


if __name__ == "__main__":
    write_page(PAGE, [try_family(family) for family in read_families()])
