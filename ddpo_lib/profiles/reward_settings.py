"""A profile's optional section `rewards`, as YAML gives it -> the grid of small models that learn from numbers.

The models start from those of `worlds.kinds.main`, after SFT, and learn by TRL's GRPO or RLOO.
"""

from typing import Literal

from pydantic import Field, model_validator

from ddpo_lib.profiles.settings import Positive, PositiveFloat, Section
from ddpo_lib.profiles.world_settings import WORLD_SPACES

BASELINE = "plain"  # the row that others are compared with; every section has it


class RewardRow(Section):
    """A trained condition. Quality is 1 for a story that can be read, matches its prompt and has no flaw, else 0."""

    rule: Literal["plain", "product", "similarity", "gated", "normalised", "logdet"] = "plain"
    trainer: Literal["grpo", "rloo"] = "grpo"
    scaled: bool = True  # GRPO divides advantages by the group's spread
    generations: int = Field(default=8, ge=2)  # samples per prompt and step
    spaces: list[str] = Field(default=["semantic"], min_length=1)  # of deviation, from WORLD_SPACES
    noise: float = Field(default=0.0, ge=0)  # standard deviation of noise on the quality
    # quality is multiplied by a number from 1 to `factor` and raised by one from 0 to `shift`; both depend on the
    # prompt alone, so all samples of a group have the same
    factor: float = Field(default=1.0, ge=1)
    shift: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _has_spaces_of_texts(self):
        texts = [name for name, space in WORLD_SPACES.items() if space]
        if unknown := set(self.spaces) - set(texts):
            raise ValueError(f"spaces: {unknown.pop()} is no space of texts; there are {', '.join(texts)}")
        if self.trainer == "rloo" and not self.scaled:
            raise ValueError("scaled: RLOO never divides by the spread; leave it out")
        return self


class Rewards(Section):
    """Small models that learn from rewards of their own samples, in the main world."""

    seeds: Positive  # the first of the seeds of `worlds`, at most as many as it has
    steps: Positive  # gradient steps
    samples: Positive  # per step, over all prompts: samples / generations prompts
    learning_rate: PositiveFloat  # constant
    rows: dict[str, RewardRow]

    @model_validator(mode="after")
    def _has_whole_groups(self):
        if BASELINE not in self.rows:
            raise ValueError(f"rows: {BASELINE} is missing; add it, since the others are compared with it")
        for name, row in self.rows.items():
            if self.samples % row.generations:
                raise ValueError(f"rows.{name}.generations: {row.generations} does not divide {self.samples} samples")
        return self
