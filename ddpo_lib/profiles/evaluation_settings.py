"""The sections of a profile on what trained models are compared with, and how: baselines, the reward, intervals."""

from typing import Literal

from pydantic import Field, model_validator

from ddpo_lib.profiles.settings import Positive, PositiveFloat, Sampling, Section


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
    sends: list[Literal["temperature", "top_p", "top_k", "min_p", "repetition_penalty"]] = Field(
        default=["temperature", "top_p"]
    )
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
    temperatures: list[PositiveFloat] = Field(default=[])  # sft and all arms that are `swept` are sampled at these too
    sweep_prompts: Positive | None = None  # most held-out prompts for it, those with people's responses first
    sft_prompts: Positive | None = None  # most held-out prompts that sft is sampled for; None: all

    @model_validator(mode="after")
    def _distinct(self):
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError("temperatures: one is listed twice; list it once")
        return self
