"""The sections of a profile on data, models, training and sampling; each knob is typed and checked.

Those on what is compared and how are in `evaluation_settings`, those of small models in `world_settings`.
"""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ddpo_lib.base.errors import InputError

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Section):
    source: str | None = None  # a hub data set, used if no corpus is given; None: the corpus of the package
    max_prompts: Positive | None  # chosen by a hash of their text, as for the limits below; None keeps all
    max_held_out: Positive | None = None  # held-out prompts that are kept; None keeps all
    max_responses: Positive | None  # per prompt
    max_tokens: Positive  # templated prompt and response together; longer responses are dropped
    held_out: float = Field(gt=0, lt=1)  # share of prompts kept for evaluation, on average: a prompt's text decides
    split_seed: int  # another seed gives another split: see `corpus.side`
    gap: float = Field(ge=0)  # score gap of the first round of pairs, in upvotes
    pair_seed: int  # of the first training; the k-th after it draws with pair_seed + k
    # more held-out prompts, which need no responses: a JSONL file, or "package" for those that come with the package's
    # corpus, which are used only with that corpus
    prompts: str | None = None
    reddit: bool = False  # treat every text as Reddit's, and take notes after a story off: see `reddit`


class SpaceChoice(Section):
    model: str  # "minilm", "stylometric", "delta", "lexical", or a sentence-transformers model of the hub
    revision: str | None = None
    trust_remote_code: bool = False  # runs code from the hub: only with a pinned revision
    prompt: str | None = None  # put before each text: a prompt's name in the model, or text; None: the model's default
    truncate_dim: Positive | None = None  # first dimensions that are kept; None: the model's own
    windows: bool = False  # a text longer than the model reads is embedded in windows, not cut

    @model_validator(mode="after")
    def _pinned(self):
        if self.trust_remote_code and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise ValueError("trust_remote_code needs a revision pinned to a commit, 40 digits")
        return self


class Spaces(Section):
    semantic: SpaceChoice
    style: SpaceChoice
    others: dict[str, SpaceChoice] = {}  # compared with the two above in chapter 1; an arm may use one for weights

    @model_validator(mode="after")
    def _named_once(self):
        if taken := {"semantic", "style"} & set(self.others):
            raise ValueError(f"others: {taken.pop()} is the name of a space above; choose another name")
        return self

    def choices(self) -> dict[str, SpaceChoice]:
        return {"semantic": self.semantic, "style": self.style, **self.others}


class Model(Section):
    name: str  # an embedded model, a folder, or a hub model
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"]
    template: str  # {prompt} is replaced; the response follows
    lora_r: Positive | None  # None: no adapter; all parameters are trained
    lora_alpha: Positive | None = None  # of an adapter
    lora_targets: list[str] | None = None  # None: PEFT's default for the architecture
    last_layers: Positive | None = None  # LoRA on this many last layers only; None: on all layers
    # on a CPU, products with frozen float32 weights are in bfloat16, in training and sampling: see `frozen_linears`
    bfloat16_products: bool = False

    @model_validator(mode="after")
    def _lora_or_none(self):
        if self.lora_r is not None and self.lora_alpha is None:
            raise ValueError("lora_alpha: missing; an adapter needs it")
        unused = [n for n in ("lora_alpha", "lora_targets", "last_layers") if getattr(self, n) is not None]
        if self.lora_r is None and unused:
            raise ValueError(f"{unused[0]}: lora_r: null makes no adapter that it could apply to; leave it out")
        if self.bfloat16_products and (self.lora_r is None or self.dtype != "float32"):
            why = "lora_r: null trains all weights" if self.lora_r is None else "dtype: bfloat16 rounds all products"
            raise ValueError(f"bfloat16_products: {why}; leave it out")
        return self


def check_for_vllm(model: Model, adapter: bool) -> None:
    """Check that vLLM computes a model as this profile does.

    Args:
        model: the model that is sampled.
        adapter: whether with an adapter.

    Raises:
        InputError: it has products or an adapter of a number format that vLLM does not have.
    """
    if model.bfloat16_products:
        raise InputError("bfloat16_products: vLLM has its own products; use dtype: bfloat16, or leave the option out")
    if adapter and model.dtype == "float32":
        raise InputError(
            "dtype: vLLM multiplies adapters in 16-bit formats only; use dtype: bfloat16, or the engine transformers"
        )


class Optimiser(Section):
    learning_rate: PositiveFloat
    epochs: PositiveFloat
    batch_size: Positive  # pairs (SFT: responses) per batch and device
    accumulation: Positive = 1
    devices: Positive = 1  # GPUs of a training, a process each; a step has devices x batch_size x accumulation pairs
    warmup_steps: int = Field(ge=0)
    schedule: Literal["linear", "cosine", "constant"]
    max_grad_norm: PositiveFloat
    checkpoint_steps: int = Field(default=20, ge=0)  # steps between checkpoints; 0: none


class DivPO(Section):
    """DivPO's rule for pairs (`pairs.make_divpo_pairs`); the defaults are those of the released comparison."""

    # the most diverse response is the farthest from the others in `spaces`, the one with the rarest words, or the one
    # with the least probable tokens under the model that training starts from (`surprisal.mean_surprisal`)
    criterion: Literal["distance", "words", "probability"] = "distance"
    spaces: list[str] = Field(default=["semantic", "style"], min_length=1)  # for the criterion distance
    rho: float = Field(default=0.25, gt=0, le=0.5)
    threshold: Literal["count", "range"] = "count"  # rho is a share of the responses, or of the range of their scores
    max_pairs: Positive = 2  # per prompt

    @model_validator(mode="after")
    def _spaces_that_are_read(self):
        if self.criterion != "distance" and self.spaces != type(self).model_fields["spaces"].default:
            raise ValueError(f"spaces: the criterion {self.criterion} uses none; leave them out")
        return self


class ReDiPO(Section):
    """A pair rule after the description of ReDiPO (`redipo.make_redipo_pairs`); the defaults are ours."""

    spaces: list[str] = Field(default=["semantic", "style"], min_length=1)  # in which diversity is measured
    band: float = Field(default=0.25, ge=0, le=1)  # alike: at most this share of the prompt's range below its best
    max_pairs: Positive = 2  # per prompt


class Arm(Section):
    """A trained condition. `weights` names the spaces whose deviation weights the pairs; empty: plain DPO or ORPO."""

    loss: Literal["dpo", "orpo"]
    start: Literal["sft", "base"]
    weights: list[str] = []
    scale: Literal["minmax", "ratio"] = "minmax"
    floor: float = Field(default=0.0, ge=0, le=1)
    power: float = Field(default=1.0, ge=0)  # exponent of the weights, which are then scaled to sum to n again
    rescale: bool = False  # weights are scaled so that the pairs weigh 1 on average
    responses: Annotated[int, Field(ge=2)] | None = None  # at most per prompt; None keeps all
    best_first: bool = False  # keeps the pairs with the highest-scored winners, not random responses
    divpo: DivPO | None = None  # None: pairs by the gap rule
    # of the neighbours of this method; manifests name only what is set. `weight_of` "difference": a pair weighs how
    # much more its winner deviates than its loser (CrPO). `policy_beta`: the beta of the policy's own log-probabilities
    # (Soft Preference Learning); None: `beta`
    redipo: ReDiPO | None = Field(default=None, exclude_if=lambda rule: rule is None)
    weight_of: Literal["winner", "difference"] = Field(default="winner", exclude_if=lambda of: of == "winner")
    policy_beta: PositiveFloat | None = Field(default=None, exclude_if=lambda beta: beta is None)
    pairs: Positive | Literal["divpo"] | None = None  # at most in total, at random; "divpo": as many as its rule makes
    equal_steps: bool = False  # more epochs: as many gradient steps as all pairs of the gap rule give
    beta: PositiveFloat | None = None  # None: that of `preference`
    epochs: PositiveFloat | None = None  # None: those of `preference`
    swept: bool = True  # sampled at the other temperatures too; changes nothing in training
    seeds: Positive | None = None  # most trainings; None: as many as the profile has
    prompts: Positive | None = None  # most held-out prompts that it is sampled for; None: all
    against: str | None = None  # the arm that it is compared with; None: as `profile.twins` says

    @model_validator(mode="after")
    def _consistent(self):
        if self.best_first and (self.responses is None or self.divpo or self.redipo):
            raise ValueError(
                "best_first: chooses among pairs by the gap rule; set `responses`, and leave out `divpo` and `redipo`"
            )
        if self.divpo and self.redipo:
            raise ValueError("redipo: the pairs are already DivPO's; leave out one of the two rules")
        scaled = (self.floor, self.power, self.scale) != (0.0, 1.0, "minmax")
        if self.weight_of == "difference" and (scaled or not self.weights):
            raise ValueError("weight_of: a difference of deviations needs `weights`, and has no scale, floor or power")
        if self.policy_beta and self.loss != "dpo":
            raise ValueError("policy_beta: belongs to DPO, which has a reference; leave it out")
        if not self.weights and (self.floor, self.power, self.scale, self.rescale) != (0.0, 1.0, "minmax", False):
            raise ValueError("weights: none are named; name some, or leave out scale, rescale, floor and power")
        if self.equal_steps and self.epochs:
            raise ValueError("epochs: equal_steps sets them; leave out one of the two")
        return self

    def spaces(self) -> set[str]:
        """The spaces whose vectors decide its pairs or weights."""
        rule = self.redipo or (self.divpo if self.divpo and self.divpo.criterion == "distance" else None)
        return {*self.weights, *(rule.spaces if rule else [])}

    def picks_by_probability(self) -> bool:
        return self.divpo is not None and self.divpo.criterion == "probability"


class Online(Section):
    """An arm that learns from its own samples, in rounds: sample, score, pick, train (`online.py`)."""

    arm: Arm
    rounds: Positive = 2
    prompts: Positive  # training prompts per round
    samples: int = Field(ge=2)  # per prompt
    max_new_tokens: Positive  # of a sample; a sample that is cut here has no end to learn from and is left out
    # of a round's training: the model that was sampled, or SFT in every round. Manifests name only the second
    reference: Literal["refreshed", "fixed"] = Field(default="refreshed", exclude_if=lambda kind: kind == "refreshed")

    @model_validator(mode="after")
    def _starts_from_sft(self):
        if self.arm.start != "sft" or self.arm.equal_steps:
            raise ValueError(
                "arm: an online arm starts from sft, with steps of its own; set `start: sft`, leave out equal_steps"
            )
        return self


class Preference(Section):
    beta: PositiveFloat
    lam: PositiveFloat  # weight of ORPO's odds-ratio term
    dpo: Optimiser
    orpo: Optimiser


class Sampling(Section):
    """How samples are drawn; the defaults are the paper's."""

    samples: int = Field(default=4, ge=2)  # per prompt and arm
    temperature: PositiveFloat = 1.0
    top_k: int = Field(default=50, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    repetition_penalty: PositiveFloat = 1.1
    max_new_tokens: Positive = 2048
    batch_tokens: Positive = 16_384  # prompt and new tokens of all sequences sampled at once; vLLM chooses for itself
    # of arms; a baseline has its own, and small models of worlds are sampled by transformers. Manifests and journals
    # name only the other one than the default
    engine: Literal["transformers", "vllm"] = Field(
        default="transformers", exclude_if=lambda engine: engine == "transformers"
    )
