"""The sections of a profile and their knobs, each typed and checked; those of small models are in `world_settings`."""

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
        if self.best_first and (self.responses is None or self.divpo):
            raise ValueError("best_first: chooses among pairs by the gap rule; set `responses`, and leave out `divpo`")
        if not self.weights and (self.floor, self.power, self.scale, self.rescale) != (0.0, 1.0, "minmax", False):
            raise ValueError("weights: none are named; name some, or leave out scale, rescale, floor and power")
        if self.equal_steps and self.epochs:
            raise ValueError("epochs: equal_steps sets them; leave out one of the two")
        return self

    def spaces(self) -> set[str]:
        """The spaces whose vectors decide its pairs or weights."""
        return {*self.weights, *(self.divpo.spaces if self.divpo and self.divpo.criterion == "distance" else [])}

    def picks_by_probability(self) -> bool:
        return self.divpo is not None and self.divpo.criterion == "probability"


class Online(Section):
    """An arm that learns from its own samples, in rounds: sample, score, pick, train (`online.py`)."""

    arm: Arm
    rounds: Positive = 2
    prompts: Positive  # training prompts per round
    samples: int = Field(ge=2)  # per prompt
    max_new_tokens: Positive  # of a sample; a sample that is cut here has no end to learn from and is left out

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


class Baseline(Section):
    """A model that is sampled and not trained.

    `how` says how it is asked. "plain" asks each prompt by itself. "iter" tells the model that each sample must differ
    from the ones before. "verbalized" asks for several answers with their probabilities at once (Verbalized Sampling).
    """

    how: Literal["plain", "iter", "verbalized"] = "plain"
    engine: Literal["transformers", "vllm", "server"] = "transformers"
    model: str | None = None  # None: the profile's model, without an adapter
    revision: str | None = None
    instruction: str = "Write a short story for this prompt.\n\n{prompt}"
    url: str | None = None  # of an OpenAI-compatible server
    key: str | None = None  # the environment variable that holds the server's key
    timeout: PositiveFloat = 600.0  # seconds that one request to a server may take
    retries: int = Field(default=8, ge=0)  # repetitions of a request that a server may answer later
    pause: float = Field(default=0.5, ge=0)  # seconds before the first repetition; each further pause is twice as long
    # settings that are sent to the server, besides the number and length of samples; those that it refuses are left out
    sends: list[Literal["temperature", "top_p", "top_k", "repetition_penalty"]] = ["temperature", "top_p"]
    prompts: Positive | None = None  # most held-out prompts that it is sampled for; None: all
    # None: that of `sampling`. A model that reasons before it writes needs more if the reasoning counts as output
    max_new_tokens: Positive | None = None

    @model_validator(mode="after")
    def _reachable(self):
        if self.engine == "server" and not (self.url and self.model):
            raise ValueError("a server needs `url` and `model`")
        if "{prompt}" not in self.instruction:
            raise ValueError("instruction: contains no {prompt}; write it where the prompt belongs")
        return self

    def limited(self, sampling: Sampling) -> Sampling:
        """The profile's sampling without the engine of arms, and with this baseline's own limit if it has one."""
        limit = self.max_new_tokens or sampling.max_new_tokens
        return sampling.model_copy(update={"max_new_tokens": limit, "engine": "transformers"})


class Quality(Section):
    """What scores quality: the light stand-in, or the paper's reward model. All other knobs are for the reward model.

    The defaults are the paper's. The paper gives a batch of 2 per device on 6 GPUs for all its trainings, so the reward
    model uses it too. The paper does not give `warmup_steps`, `patience` and `dev`.
    """

    kind: Literal["stand-in", "reward-model"]
    base: str = "google/gemma-2-2b"  # an embedded model, a folder, or a hub model
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the base; trained parameters are float32
    lora_r: Positive = 16
    lora_alpha: Positive = 32
    learning_rate: PositiveFloat = 3e-5
    epochs: PositiveFloat = 3.0
    batch_size: Positive = 12  # responses per step, on one device
    warmup_steps: int = Field(default=0, ge=0)
    patience: Positive = 4  # evaluations (four per epoch) without a smaller loss, after which training stops
    max_tokens: int = Field(default=2048, ge=16)  # prompt, response and tags; a longer response is cut and counted
    dev: float = Field(default=0.1, gt=0, lt=1)  # share of the training prompts that decide when to stop


class Evaluation(Section):
    bootstrap: Positive  # draws over prompts
    confidence: float = Field(gt=0, lt=1)
    against: str = "dpo"  # the arm that baselines, people's responses and fronts are compared with (arms: `twins`)
    gold_draws: Positive = 20  # random sets of people's responses per prompt, each as large as a model's
    temperatures: list[PositiveFloat] = []  # sft and all arms that are `swept` are sampled at these too
    sweep_prompts: Positive | None = None  # most held-out prompts for it, those with people's responses first
    sft_prompts: Positive | None = None  # most held-out prompts that sft is sampled for; None: all

    @model_validator(mode="after")
    def _distinct(self):
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError("temperatures: one is listed twice; list it once")
        return self
