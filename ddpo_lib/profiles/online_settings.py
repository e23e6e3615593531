"""A profile's section `online_world`, as YAML gives it -> the rows of small models that learn from their own stories
in the main world with known modes, each knob typed and checked. Their worlds and trainings are those of `worlds`.
"""

from typing import Literal

from pydantic import Field, model_validator

from ddpo_lib.profiles.settings import Arm, Positive, Section
from ddpo_lib.profiles.world_settings import WORLD_SPACES


class OnlineRow(Section):
    """An arm trained in rounds, or on all stories at once for comparison (`online_rows.make_row`)."""

    arm: Arm
    # whose stories a round's pairs are: the model's as it is at the round, the SFT model's, or the corpus's
    source: Literal["current", "start", "corpus"] = "current"
    reference: Literal["refreshed", "fixed"] = "refreshed"  # the model before the round, or the SFT model
    together: bool = False  # the stories of all rounds first, then one training; without it, a training per round

    @model_validator(mode="after")
    def _known(self):
        counted = [name for name, model in WORLD_SPACES.items() if model is not None]  # not the labels
        if unknown := self.arm.spaces() - set(counted):
            raise ValueError(f"arm: {unknown.pop()} is no space of texts; there are {', '.join(counted)}")
        if self.arm.start == "base":
            raise ValueError("arm.start: rows start from sft, the model that has read the world's stories")
        if self.together and self.source == "current":
            raise ValueError("together: the model changes from round to round; set `source` to start or corpus")
        return self


class OnlineWorld(Section):
    """Rounds of sample, score, weigh and train in the main world of `worlds`."""

    seeds: Positive  # how many; not more than those of `worlds`
    rounds: Positive
    prompts: Positive  # training prompts per round
    samples: int = Field(ge=2)  # stories per prompt
    noise: float = Field(ge=0)  # standard deviation of the noise on the scores that pick the pairs
    rows: dict[str, OnlineRow]
