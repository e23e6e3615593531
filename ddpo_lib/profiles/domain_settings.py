"""A profile's section `domains`, as YAML gives it -> the grid of small models on tasks whose answers can be checked,
each knob typed and checked.
"""

from typing import Annotated

from pydantic import Field, model_validator

from ddpo_lib.profiles.settings import Arm, Optimiser, Positive, Preference, Section

# spaces of deviation among answers: of the text, or the modes themselves as an upper bound
DOMAIN_SPACES = {"semantic": "lexical", "style": "stylometric", "mode": None}
SHOWN_ROWS = ("dpo", "ddpo-semantic", "ddpo-mode")  # the chapter shows them


class Arithmetic(Section):
    """Which tasks there are: a target to reach from some of the numbers 1, 2, ... (`arithmetic.py`)."""

    numbers: int = Field(ge=2, le=6)  # given in each task, all different
    largest: Positive  # of the numbers
    lowest: Positive  # target
    highest: Positive  # target
    used: int = Field(ge=2, le=4)  # numbers in every answer of the corpus
    operations: Annotated[str, Field(pattern=r"^[-+*/]+$")] = "+-"
    modes: Positive  # fewest right modes that a task has; other tasks are left out
    miss: Positive  # a wrong answer of the corpus misses the target by at most this

    @model_validator(mode="after")
    def _enough(self):
        if not self.used <= self.numbers <= self.largest:
            raise ValueError("numbers: expected at least `used` and at most `largest`, since all are different")
        if self.lowest > self.highest:
            raise ValueError("lowest: expected at most `highest`")
        return self


class DomainPretraining(Section):
    """What the common start learns: right answers to all tasks that no seed holds out."""

    responses: Positive  # per task
    zipf: float = Field(ge=0)  # as in `Domains`; smaller, so that the model learns rare modes too
    optimiser: Optimiser


class DomainRow(Section):
    """A trained condition; its spaces are those of DOMAIN_SPACES."""

    arm: Arm
    noise: float = Field(default=0.0, ge=0)  # standard deviation of noise on the scores: some wrong answers win

    @model_validator(mode="after")
    def _known(self):
        if unknown := self.arm.spaces() - DOMAIN_SPACES.keys():
            raise ValueError(f"arm: {unknown.pop()} is no space of a domain; there are {', '.join(DOMAIN_SPACES)}")
        if self.arm.start == "base" or self.arm.picks_by_probability() or self.arm.equal_steps:
            raise ValueError("arm: rows of domains start from sft, with their own steps, and use no probabilities")
        return self


class CheckedDomain(Section):
    """Small models on tasks with many right answers. One is trained from scratch; the rest start from it."""

    seeds: Positive  # each seed 0, 1, ... has its own tasks, answers and trainings
    tasks: Positive  # for SFT and the arms' pairs, per seed
    held_out: Positive  # tasks for testing, which no model has seen
    responses: int = Field(ge=2)  # answers per task
    wrong: float = Field(gt=0, lt=1)  # share of wrong answers, in expectation
    zipf: float = Field(ge=0)  # the mode of rank r, the simplest first, has probability ~ r ** -zipf
    layers: Positive
    width: Positive
    pretraining: DomainPretraining
    sft: Optimiser
    preference: Preference
    samples: int = Field(ge=8)  # per held-out task, from the model's own distribution; pass@8 needs 8
    rows: dict[str, DomainRow]

    @model_validator(mode="after")
    def _shown(self):
        if missing := set(SHOWN_ROWS) - self.rows.keys():
            raise ValueError(f"rows: {missing.pop()} is missing; add it, since the book shows it")
        return self


class Domains(CheckedDomain):
    """Small models on arithmetic. A task is a set of numbers with a target."""

    arithmetic: Arithmetic


class Programs(CheckedDomain):
    """Small models on programs (`programs.py`). Of a program's form and of each of its parts, the way of rank r has
    probability ~ r ** -zipf."""
