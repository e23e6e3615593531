"""A profile's section `worlds`, as YAML gives it -> the grid of small models in worlds with known modes:
its kinds of worlds, its rows and how the models learn, each knob typed and checked.
"""

from pydantic import Field, model_validator

from ddpo_lib.profiles.settings import Arm, Optimiser, Positive, Preference, Section

MAIN_WORLD = "main"  # every profile has it
# spaces of deviation in a world with known modes: of the text, or of the labels themselves as an upper bound
WORLD_SPACES = {
    **{"semantic": "lexical", "style": "stylometric", "minilm": "minilm", "delta": "delta"},
    **{"plot": None, "voice": None},  # the labels themselves
}


class WorldRow(Section):
    """A trained condition in a world with known modes; its spaces are those of WORLD_SPACES."""

    world: str = MAIN_WORLD
    arm: Arm
    traced: bool = False  # modes are measured through training too
    noise: float = Field(default=0.0, ge=0)  # standard deviation of noise on the scores, as with few votes

    @model_validator(mode="after")
    def _known(self):
        if unknown := self.arm.spaces() - WORLD_SPACES.keys():
            raise ValueError(f"arm: {unknown.pop()} is no space of a world; there are {', '.join(WORLD_SPACES)}")
        if self.arm.start == "base":
            raise ValueError("arm.start: a world's rows start from sft, the model that has read its stories")
        return self


class Pretraining(Section):
    """What a small model learns from before any world: stories with all modes alike (`small_models.language`)."""

    prompts: int = Field(ge=16, le=4096)  # 16 name every hero, place and object, 4096 every combination
    responses: Positive  # per prompt
    optimiser: Optimiser


class Worlds(Section):
    """Small models in worlds with known modes (`modeworld.py`). One is trained from scratch; the rest start from it."""

    seeds: Positive  # how many; each seed 0, 1, ... is that of a world and of its training
    kinds: dict[str, dict[str, int | float | str]]  # world -> fields of `World`; see `small_models.check_kinds`
    layers: Positive
    width: Positive
    pretraining: Pretraining
    sft: Optimiser
    preference: Preference
    samples: Positive  # per held-out prompt, from the model's own distribution
    preference_prompts: Positive  # prompts of the arms' pairs; SFT uses all prompts that are not held out
    trace: Positive = 4  # equal parts of a traced row's training; it is measured after each part
    rows: dict[str, WorldRow]

    @model_validator(mode="after")
    def _worlds(self):
        if MAIN_WORLD not in self.kinds:
            raise ValueError(f"kinds: one must be `{MAIN_WORLD}`, which the book shows")
        if missing := {"dpo", "ddpo-semantic", "ddpo-style", "ddpo-both"} - self.rows.keys():
            raise ValueError(f"rows: {missing.pop()} is missing; add it, since the book shows it")
        for name, row in self.rows.items():
            if row.world not in self.kinds:
                raise ValueError(f"rows.{name}.world: {row.world} is no world; there are {', '.join(self.kinds)}")
        return self
