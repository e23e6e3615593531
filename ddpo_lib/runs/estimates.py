"""A profile and the sizes of its models and corpus -> what each step costs, and the disk. Uses no network.

Steps, memory and disk follow from the sizes in the models' configurations, by the formulas of `costs.py` and of this
file. Hours follow from the speed that was measured on the user's GPU; without a measurement there are none. Start-up,
padding, the evaluation, the small models of the worlds and the book are left out.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from ddpo_lib.data.corpus import Limits, read_corpus
from ddpo_lib.data.formats import is_hub_name
from ddpo_lib.models import models
from ddpo_lib.pairs.arms import with_equal_steps
from ddpo_lib.pairs.rules import make_pairs
from ddpo_lib.profiles.profile import Profile, prompts_of, swept
from ddpo_lib.profiles.settings import Arm, DivPO, Sampling
from ddpo_lib.runs.artifacts import prompts_to_sample
from ddpo_lib.runs.costs import (
    CONTEXT,
    Cost,
    Shape,
    Speed,
    optimiser_steps,
    sampling_bytes,
    training_flops,
    training_memory,
)

TOKENS = 650  # assumed mean of a response with its prompt in the paper's data, where the median is about 500
TOKENS_A_WORD = 1.35  # for other data


@dataclass(frozen=True)
class Counts:
    """Upper limits of the counts of a corpus; None if a count is unknown before the corpus is read."""

    responses: int | None  # in the training split
    pairs: int | None
    held_out: int | None  # responses
    prompts: int | None  # in the training split
    asked: int | None  # held-out prompts that are sampled
    tokens: float  # mean of a response with its prompt


def count(profile: Profile, source: str) -> Counts:
    """The counts of a corpus under a profile's limits: read from a file, or known for the paper's data set."""
    data = profile.data
    if not is_hub_name(source):
        limits = Limits(data.max_prompts, data.max_responses, held_out=data.max_held_out)
        table = read_corpus(source, held_out=data.held_out, seed=data.split_seed, limits=limits, reddit=data.reddit)
        train, test = (table[table["split"] == split] for split in ("train", "test"))
        words = (table["prompt"].str.split().str.len() + table["text"].str.split().str.len()).mean()
        pairs = len(make_pairs(train, data.gap, data.pair_seed))
        prompts, asked = train["prompt_id"].nunique(), len(prompts_to_sample(profile, source, limits))
        # an upper limit: without a tokenizer it is unknown which responses are longer than `max_tokens`
        return Counts(len(train), pairs, len(test), prompts, asked, words * TOKENS_A_WORD)
    known = hub()["data"].get(source.partition("@")[0], {})
    held_out = data.max_prompts and round(data.held_out * data.max_prompts)
    prompts = data.max_prompts and data.max_prompts - held_out
    asked = _least(data.max_held_out, held_out)
    responses = _least(known.get("train"), prompts and data.max_responses and prompts * data.max_responses)
    others = _least(known.get("test"), asked and data.max_responses and asked * data.max_responses)
    pairs = None if responses is None else responses // 2  # a response is in at most one pair
    return Counts(responses, pairs, others, prompts, asked, min(TOKENS, data.max_tokens))


def most_pairs(arm: Arm, counts: Counts) -> int | None:
    """The most pairs that an arm trains on; None if unknown."""
    a_prompt = [n for n in (arm.responses and arm.responses // 2, arm.divpo and arm.divpo.max_pairs) if n]
    by_prompt = counts.prompts and a_prompt and counts.prompts * min(a_prompt)
    if arm.pairs == "divpo":
        return _least(counts.pairs, by_prompt or None, counts.prompts and counts.prompts * DivPO().max_pairs)
    return _least(counts.pairs, by_prompt or None, arm.pairs)


def estimate_costs(p: Profile, counts: Counts, speed: Speed | None) -> list[Cost]:
    """The costs of the steps that run a model, for one seed of the profile; each further seed costs the same."""
    costs = [_embedding(p, counts, speed)]
    if p.quality.kind == "reward-model":
        costs.append(_reward(p, counts, speed))
    shape = shape_of(p.model.name)
    if not p.arms or shape is None:
        return costs
    m, whole = p.model, p.model.lora_r is None
    trained = shape.parameters() if whole else shape.lora_parameters(m.lora_r, m.lora_targets, m.last_layers)
    passes = 4 if whole else 3

    def training(step, examples, texts, optimiser, epochs, reference):
        memory = training_memory(shape, m.dtype, trained, whole, texts * optimiser.batch_size, p.data.max_tokens)
        if examples is None:
            return Cost(step, None, memory, None)
        tokens = examples * texts * counts.tokens
        work = training_flops(shape, tokens * epochs, counts.tokens, passes)
        work += training_flops(shape, tokens, counts.tokens, 1) if reference else 0
        hours = _hours(work / optimiser.devices, speed)
        return Cost(step, optimiser_steps(examples, optimiser, epochs), memory, hours)

    costs.append(training("sft", counts.responses, 1, p.sft, p.sft.epochs, reference=False))
    for name, arm in p.arms.items():
        optimiser, pairs = p.preference.dpo if arm.loss == "dpo" else p.preference.orpo, most_pairs(arm, counts)
        if pairs and counts.pairs:
            arm = with_equal_steps(arm, pairs, counts.pairs, optimiser)
        epochs = arm.epochs or optimiser.epochs
        costs.append(training(f"arm-{name}", pairs, 2, optimiser, epochs, reference=arm.loss == "dpo"))
    for name in ("sft", *p.arms):
        costs.append(
            _sampling(p.sampling, shape, f"samples-{name}", 1, _least(counts.asked, prompts_of(p, name)), counts, speed)
        )
    for name in swept(p):
        times, prompts = len(p.evaluation.temperatures), _least(counts.asked, prompts_of(p, "sweep"))
        costs.append(_sampling(p.sampling, shape, f"sweep-{name}", times, prompts, counts, speed))
    for name, baseline in p.baselines.items():
        other = shape_of(baseline.model or p.model.name) if baseline.engine == "transformers" else None
        s = baseline.limited(p.sampling)
        step, prompts = f"samples-{name}", _least(counts.asked, prompts_of(p, name))
        costs.append(_sampling(s, other, step, 1, prompts, counts, speed) if other else Cost(step))
    return costs


def _hours(flops: float, speed: Speed | None) -> float | None:
    return flops / speed.flops / 3600 if speed else None


def _embedding(p: Profile, counts: Counts, speed: Speed | None) -> Cost:
    encoders = [hub()["encoders"].get(choice.model) for choice in p.spaces.choices().values()]
    encoders = [encoder for encoder in encoders if encoder]
    memory = max((4 * (e["body"] + e["table"]) for e in encoders), default=0) + CONTEXT
    if counts.responses is None:
        return Cost("vectors", memory=memory)
    tokens = (counts.responses + (counts.held_out or 0)) * counts.tokens
    flops = sum(2 * encoder["body"] * tokens for encoder in encoders)
    return Cost("vectors", memory=memory, hours=_hours(flops, speed))


def _reward(p: Profile, counts: Counts, speed: Speed | None) -> Cost:
    """The reward model's training over all of its epochs; early stopping may make it shorter."""
    q, shape = p.quality, shape_of(p.quality.base)
    if shape is None:
        return Cost("quality")
    trained = shape.lora_parameters(q.lora_r, None, None)
    memory = training_memory(shape, q.dtype, trained, False, q.batch_size, q.max_tokens)
    if counts.responses is None:
        return Cost("quality", memory=memory)
    examples = round(counts.responses * (1 - q.dev))
    steps = math.ceil(q.epochs * math.ceil(examples / q.batch_size))
    tokens = examples * counts.tokens * q.epochs
    return Cost("quality", steps, memory, _hours(training_flops(shape, tokens, counts.tokens, 3), speed))


def _sampling(
    s: Sampling, shape: Shape, step: str, times: int, prompts: int | None, counts: Counts, speed: Speed | None
) -> Cost:
    if s.engine == "vllm":  # it takes most of a GPU, whatever the model; its speed was not measured
        return Cost(step)
    prompt = counts.tokens / 10
    memory = 2 * shape.parameters() + s.batch_tokens * shape.cache_bytes() + CONTEXT
    if counts.asked is None or speed is None:
        return Cost(step, memory=memory)
    read = times * sampling_bytes(shape, prompts * s.samples, prompt, s.max_new_tokens, s.batch_tokens)
    return Cost(step, memory=memory, hours=read / speed.bandwidth / 3600)


def estimate_disk(p: Profile, counts: Counts) -> dict[str, float]:
    """Bytes of the downloads, of the vectors (in the cache and in an artifact), and of the trained models."""
    shapes = {name: shape_of(name) for name in models_here(p) if name not in models.WHEELS}
    encoders = {c.model: hub()["encoders"].get(c.model) for c in p.spaces.choices().values()}
    downloads = sum(2.0 * shape.parameters() for shape in shapes.values() if shape)
    downloads += sum(4 * (e["body"] + e["table"]) for name, e in encoders.items() if e and name not in models.WHEELS)
    widths = sum(encoder["width"] for encoder in encoders.values() if encoder)
    vectors = 2.0 * 4 * widths * ((counts.responses or 0) + (counts.held_out or 0))
    shape, m = shape_of(p.model.name), p.model
    trained = 0.0
    if p.arms and shape:
        whole = m.lora_r is None
        one = shape.parameters() if whole else shape.lora_parameters(m.lora_r, m.lora_targets, m.last_layers)
        trained = (1 + len(p.arms)) * p.seeds * 4 * one + 3 * 4 * one  # plus the checkpoint of one training
    return {"downloads": downloads, "vectors": vectors, "trained": trained}


def models_here(p: Profile) -> list[str]:
    """The language models of a profile that run on this machine, each once."""
    used = [p.model.name] if p.arms else []
    used += [p.quality.base] if p.quality.kind == "reward-model" else []
    used += [b.model for b in p.baselines.values() if b.model and b.engine != "server"]
    return list(dict.fromkeys(used))


def shape_of(name: str) -> Shape | None:
    """The sizes of a model that hub.yaml lists or whose configuration is on this machine; else None."""
    from transformers import AutoConfig

    if name in hub()["models"]:
        return Shape(**hub()["models"][name])
    try:
        c = AutoConfig.from_pretrained(name, local_files_only=True).get_text_config()
        head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        sizes = c.num_hidden_layers, c.hidden_size, c.intermediate_size, c.num_attention_heads, c.num_key_value_heads
        return Shape(*sizes, head, c.vocab_size, c.tie_word_embeddings)
    except (OSError, ValueError, AttributeError):
        return None


@cache
def hub() -> dict:
    """What `hub.yaml` says about models and data sets of the hub."""
    return yaml.safe_load(Path(__file__).with_name("hub.yaml").read_text(encoding="utf-8"))


def _least(*numbers: int | None) -> int | None:
    return min((n for n in numbers if n is not None), default=None)
