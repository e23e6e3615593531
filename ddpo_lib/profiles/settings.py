"""The sections of a profile and their knobs, each typed and checked."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]

MAIN_WORLD = "main"  # every profile has it
# what deviation is measured by in a world with known modes: the text, or as an upper bound the labels themselves
WORLD_SPACES = {
    **{"semantic": "lexical", "style": "stylometric", "minilm": "minilm", "delta": "delta"},
    **{"plot": None, "voice": None},  # the labels themselves
}


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Section):
    source: str | None = None  # a hub data set, read where no corpus is given; None: the corpus of the package
    max_prompts: Positive | None  # chosen by a hash of their text, as the others below; None keeps all
    max_held_out: Positive | None = None  # held-out prompts; the others are left out; None keeps all
    max_responses: Positive | None  # per prompt
    max_tokens: Positive  # templated prompt and response together; longer responses are dropped
    held_out: float = Field(gt=0, lt=1)  # share of prompts kept for evaluation, on average: a prompt's text decides
    split_seed: int  # another one splits otherwise: see `corpus.side`
    gap: float = Field(ge=0)  # score gap of the first round of pairs, in upvotes
    pair_seed: int  # of the first training; the k-th after it draws with pair_seed + k
    # held-out prompts beside those of the corpus, which need no responses: "package", for those that come with the
    # package's corpus and are used with it alone; or a JSONL file
    prompts: str | None = None


class SpaceChoice(Section):
    model: str  # "minilm", "stylometric", or a sentence-transformers model of the hub
    revision: str | None = None
    trust_remote_code: bool = False  # runs code from the hub: only with a pinned revision

    @model_validator(mode="after")
    def _pinned(self):
        if self.trust_remote_code and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise ValueError("trust_remote_code needs a revision pinned to a commit, 40 digits")
        return self


class Spaces(Section):
    semantic: SpaceChoice
    style: SpaceChoice
    others: dict[str, SpaceChoice] = {}  # compared with the two in chapter 1; an arm may weigh by one

    @model_validator(mode="after")
    def _named_once(self):
        if taken := {"semantic", "style"} & set(self.others):
            raise ValueError(f"others: {taken.pop()} is the name of a space that trains")
        return self

    def choices(self) -> dict[str, SpaceChoice]:
        return {"semantic": self.semantic, "style": self.style, **self.others}


class Model(Section):
    name: str  # an embedded model, a folder, or a hub model
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"]
    template: str  # {prompt} is replaced; the response follows
    lora_r: Positive | None  # None: no adapter, every parameter trains
    lora_alpha: Positive | None = None  # of an adapter
    lora_targets: list[str] | None = None  # None: the library's default for the architecture
    last_layers: Positive | None = None  # LoRA on the last so many layers alone; None: all

    @model_validator(mode="after")
    def _lora_or_none(self):
        if self.lora_r is not None and self.lora_alpha is None:
            raise ValueError("lora_alpha: an adapter needs one")
        unused = [n for n in ("lora_alpha", "lora_targets", "last_layers") if getattr(self, n) is not None]
        if self.lora_r is None and unused:
            raise ValueError(f"{unused[0]}: belongs to an adapter, and lora_r: null makes none")
        return self


class Optimiser(Section):
    learning_rate: PositiveFloat
    epochs: PositiveFloat
    batch_size: Positive  # pairs (SFT: responses) a step and device
    accumulation: Positive = 1
    warmup_steps: int = Field(ge=0)
    schedule: Literal["linear", "cosine", "constant"]
    max_grad_norm: PositiveFloat
    checkpoint_steps: int = Field(default=20, ge=0)  # what a kill can lose; 0: all of the training


class DivPO(Section):
    """DivPO's rule for pairs (`pairs.make_divpo_pairs`); the defaults are those of the released comparison."""

    # most diverse is: far from the set in `spaces`; of rare words; least probable under the model that training starts
    # from, a token (`surprisal.mean_surprisal`)
    criterion: Literal["distance", "words", "probability"] = "distance"
    spaces: list[str] = Field(default=["semantic", "style"], min_length=1)  # of the criterion distance
    rho: float = Field(default=0.25, gt=0, le=0.5)
    threshold: Literal["count", "range"] = "count"  # rho is a share of the responses, or of the range of their scores
    max_pairs: Positive = 2  # a prompt

    @model_validator(mode="after")
    def _spaces_that_are_read(self):
        if self.criterion != "distance" and self.spaces != type(self).model_fields["spaces"].default:
            raise ValueError(f"spaces: the criterion {self.criterion} reads none")
        return self


class Arm(Section):
    """A trained condition. `weights` names the spaces whose deviation weights the pairs; none: plain DPO or ORPO."""

    loss: Literal["dpo", "orpo"]
    start: Literal["sft", "base"]
    weights: list[str] = []
    scale: Literal["minmax", "ratio"] = "minmax"
    floor: float = Field(default=0.0, ge=0, le=1)
    power: float = Field(default=1.0, ge=0)  # that weights are raised to; they then sum to n again
    rescale: bool = False  # weights are scaled so that the pairs weigh 1 on average
    responses: Annotated[int, Field(ge=2)] | None = None  # a prompt, at most; None keeps all
    best_first: bool = False  # the pairs of the highest-scored winners, not random responses, are kept
    divpo: DivPO | None = None  # None: pairs by the gap rule
    pairs: Positive | Literal["divpo"] | None = None  # in all, at most, at random; "divpo": as many as its rule makes
    equal_steps: bool = False  # as many gradient steps as on all pairs of the gap rule, by more epochs
    beta: PositiveFloat | None = None  # None: as `preference` has it
    epochs: PositiveFloat | None = None  # likewise
    swept: bool = True  # sampled at the other temperatures too; changes nothing in training
    seeds: Positive | None = None  # trainings, at most; None: as many as the profile has
    prompts: Positive | None = None  # held-out prompts that it is sampled for, at most; None: all
    against: str | None = None  # the arm it is compared with; None: the same arm without weights, or sft (`twins`)

    @model_validator(mode="after")
    def _consistent(self):
        if self.best_first and (self.responses is None or self.divpo):
            raise ValueError("best_first: says which `responses` are kept, for pairs by the gap rule")
        if not self.weights and (self.floor, self.power, self.scale, self.rescale) != (0.0, 1.0, "minmax", False):
            raise ValueError(
                "weights: none are named, so there is nothing to scale, rescale, floor or raise to a power"
            )
        if self.equal_steps and self.epochs:
            raise ValueError("epochs: equal_steps sets them")
        return self

    def spaces(self) -> set[str]:
        """Those whose vectors decide its pairs or weights."""
        return {*self.weights, *(self.divpo.spaces if self.divpo and self.divpo.criterion == "distance" else [])}

    def picks_by_probability(self) -> bool:
        return self.divpo is not None and self.divpo.criterion == "probability"


class Online(Section):
    """An arm that learns from its own samples, in rounds: sample, score, pick, train (`online.py`)."""

    arm: Arm
    rounds: Positive = 2
    prompts: Positive  # a round, of the training split
    samples: int = Field(ge=2)  # a prompt
    max_new_tokens: Positive  # of a sample; one that this cuts has no end to learn from, and is left out

    @model_validator(mode="after")
    def _starts_from_sft(self):
        if self.arm.start != "sft" or self.arm.equal_steps:
            raise ValueError("arm: starts from sft, and has no pairs of the corpus to be equal in steps to")
        return self


class Preference(Section):
    beta: PositiveFloat
    lam: PositiveFloat  # weight of ORPO's odds-ratio term
    dpo: Optimiser
    orpo: Optimiser


class Sampling(Section):
    """How samples are drawn; the defaults are the paper's."""

    samples: int = Field(default=4, ge=2)  # a prompt and arm
    temperature: PositiveFloat = 1.0
    top_k: int = Field(default=50, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    repetition_penalty: PositiveFloat = 1.1
    max_new_tokens: Positive = 2048
    batch_tokens: Positive = 16_384  # prompt and new tokens of all sequences sampled at once


class Baseline(Section):
    """A model that is sampled and not trained. `how`: each prompt by itself; each sample told to differ from the
    ones before; or several answers with their probabilities asked for at once (Verbalized Sampling)."""

    how: Literal["plain", "iter", "verbalized"] = "plain"
    engine: Literal["transformers", "vllm", "server"] = "transformers"
    model: str | None = None  # None: the profile's model, without an adapter
    revision: str | None = None
    instruction: str = "Write a short story for this prompt.\n\n{prompt}"
    url: str | None = None  # of an OpenAI-compatible server
    key: str | None = None  # the environment variable that holds the server's key
    # what the server takes, besides the number and length of samples
    sends: list[Literal["temperature", "top_p", "top_k", "repetition_penalty"]] = ["temperature", "top_p"]
    prompts: Positive | None = None  # held-out prompts that it is sampled for, at most; None: all
    # None: as `sampling` has it. A model that reasons unseen before it writes needs more, where that counts as output
    max_new_tokens: Positive | None = None

    @model_validator(mode="after")
    def _reachable(self):
        if self.engine == "server" and not (self.url and self.model):
            raise ValueError("a server needs `url` and `model`")
        if "{prompt}" not in self.instruction:
            raise ValueError("instruction: holds no {prompt}")
        return self

    def limited(self, sampling: Sampling) -> Sampling:
        """The profile's sampling, with the limit of this baseline where it has its own."""
        return sampling.model_copy(update={"max_new_tokens": self.max_new_tokens or sampling.max_new_tokens})


class Quality(Section):
    """What scores quality: the light stand-in, or the paper's reward model, to which all other knobs belong.

    Defaults are the paper's. Its batch, 2 a device on 6 GPUs, is told for all of its trainings, and so taken for the
    reward model's too; `warmup_steps`, `patience` and `dev` it does not tell.
    """

    kind: Literal["stand-in", "reward-model"]
    base: str = "google/gemma-2-2b"  # an embedded model, a folder, or a hub model
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the base; what trains is float32
    lora_r: Positive = 16
    lora_alpha: Positive = 32
    learning_rate: PositiveFloat = 3e-5
    epochs: PositiveFloat = 3.0
    batch_size: Positive = 12  # responses a step, on one device
    warmup_steps: int = Field(default=0, ge=0)
    patience: Positive = 4  # evaluations, four an epoch, without a smaller loss before training stops
    max_tokens: int = Field(default=2048, ge=16)  # prompt, response and tags; beyond, a response is cut, and counted
    dev: float = Field(default=0.1, gt=0, lt=1)  # share of the training prompts that decide when to stop


class Evaluation(Section):
    bootstrap: Positive  # draws over prompts
    confidence: float = Field(gt=0, lt=1)
    against: str = "dpo"  # the arm that baselines, people's responses and fronts are compared with (arms: `twins`)
    gold_draws: Positive = 20  # random sets of people's responses per prompt, each as large as a model's
    temperatures: list[PositiveFloat] = []  # sft and all arms that are `swept` are sampled at these too
    sweep_prompts: Positive | None = None  # held-out prompts of that, at most, those with people's responses first
    sft_prompts: Positive | None = None  # held-out prompts that sft is sampled for, at most; None: all

    @model_validator(mode="after")
    def _distinct(self):
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError("temperatures: one stands twice")
        return self


class WorldRow(Section):
    """A trained condition in a world with known modes; its spaces are those of WORLD_SPACES."""

    world: str = MAIN_WORLD
    arm: Arm
    traced: bool = False  # modes are measured through training too
    noise: float = Field(default=0.0, ge=0)  # standard deviation of what is added to the scores, where votes are few

    @model_validator(mode="after")
    def _known(self):
        if unknown := self.arm.spaces() - WORLD_SPACES.keys():
            raise ValueError(f"arm: {unknown.pop()} is no space of a world; there are {', '.join(WORLD_SPACES)}")
        if self.arm.start == "base":
            raise ValueError("arm.start: a world's rows start from sft, the model that has read its stories")
        return self


class Pretraining(Section):
    """What a small model reads before it comes into any world: stories of all modes alike (`small_models.language`)."""

    prompts: int = Field(ge=16, le=4096)  # 16 name every hero, place and object, 4096 every combination
    responses: Positive  # a prompt
    optimiser: Optimiser


class Worlds(Section):
    """Small models in worlds whose modes are known (`modeworld.py`): one trained from scratch, all others from it."""

    seeds: Positive  # of world and training at once: 0, 1, ...
    kinds: dict[str, dict[str, int | float | str]]  # a name a world -> fields of `World`; `small_models.check_kinds`
    layers: Positive
    width: Positive
    pretraining: Pretraining
    sft: Optimiser
    preference: Preference
    samples: Positive  # a held-out prompt, from the model's own distribution
    preference_prompts: Positive  # that arms have pairs of; SFT reads all that are not held out
    trace: Positive = 4  # equal parts of a traced row's training, after each of which it is measured
    rows: dict[str, WorldRow]

    @model_validator(mode="after")
    def _worlds(self):
        if MAIN_WORLD not in self.kinds:
            raise ValueError(f"kinds: one must be `{MAIN_WORLD}`, which the book shows")
        if missing := {"dpo", "ddpo-semantic", "ddpo-style", "ddpo-both"} - self.rows.keys():
            raise ValueError(f"rows: the book shows {missing.pop()} too, which is missing")
        for name, row in self.rows.items():
            if row.world not in self.kinds:
                raise ValueError(f"rows.{name}.world: {row.world} is none of {', '.join(self.kinds)}")
        return self


class Profile(Section):
    name: str
    what: str  # one line for --help and the book
    seed: int
    seeds: Positive = 1  # trainings of every arm: from `seed`, `seed` + 1, ...
    data: Data
    spaces: Spaces
    model: Model
    sft: Optimiser
    preference: Preference
    arms: dict[str, Arm]  # none: nothing is trained, and there is chapter 1 alone
    online: dict[str, Online] = {}  # arms that learn from their own samples
    baselines: dict[str, Baseline] = {}  # compared with the arms
    sampling: Sampling
    quality: Quality
    evaluation: Evaluation
    worlds: Worlds

    @model_validator(mode="after")
    def _comparable(self):
        arms = ("sft", *self.arms)
        if self.arms and self.evaluation.against not in arms:
            raise ValueError(f"evaluation.against: {self.evaluation.against} is no arm; there are {', '.join(arms)}")
        if self.evaluation.against in self.arms and not self.arms[self.evaluation.against].swept:
            raise ValueError(f"arms.{self.evaluation.against}.swept: the fronts of the others are compared with its")
        online = {f"online.{name}": rounds.arm for name, rounds in self.online.items()}
        for name, arm in {**{f"arms.{name}": arm for name, arm in self.arms.items()}, **online}.items():
            if unknown := arm.spaces() - self.spaces.choices().keys():
                raise ValueError(f"{name}: {unknown.pop()} is none of the spaces {', '.join(self.spaces.choices())}")
        if taken := {"gold", *arms} & set(self.online):
            raise ValueError(f"online: {taken.pop()} is the name of an arm")
        if taken := {"gold", *arms, *self.online} & set(self.baselines):
            raise ValueError(f"baselines: {taken.pop()} is the name of an arm")
        for name, arm in self.arms.items():
            if arm.against is not None and (arm.against == name or arm.against not in arms):
                raise ValueError(f"arms.{name}.against: {arm.against} is no other arm; there are {', '.join(arms)}")
        if self.sampling.temperature in self.evaluation.temperatures:
            raise ValueError(f"evaluation.temperatures: {self.sampling.temperature} is the one that all are sampled at")
        return self
