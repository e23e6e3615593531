"""The settings of a world of stories whose modes are known -> how often each mode comes,
and a corpus to train on, written in the modes of `grammar`.

The frequency of each plot, voice and flaw is a setting, so it is known exactly. All stories of a world have one of the
two kinds of flaw, or none.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ddpo_lib.data.corpus import COLUMNS
from ddpo_lib.worlds.grammar import FLAWS, HEROES, OBJECTS, PLACES, PLOTS, VOICES, Mode, _prompt_wordings, _Wordings

GOOD, BAD = 10.0, 1.0  # the scores of a good and of a flawed story; stories with equal scores form no pair


@dataclass(frozen=True)
class World:
    """The settings of a world: which modes are common, rare and flawed, and how many stories are written.

    Raises:
        ValueError: a value is out of its range; the message names the field.
    """

    prompts: int = 32  # for training
    held_out: int = 8  # prompts for testing: new combinations of heroes, places and objects that occur in training
    responses: int = 32  # per prompt
    plots: int = 6  # the first of PLOTS
    voices: int = 3  # the first of VOICES
    zipf: float = 1.3  # the plot of rank r, from 1, has probability ~ r ** -zipf; 0: all equally common
    voice_zipf: float = 1.0
    flawed: float = 0.4  # the share of all responses, in expectation
    flaw: str = "object"  # one of FLAWS
    against: float = 0.0  # 0: all plots are flawed equally often; 1: the rarest plots first; between: a mixture
    seed: int = 0

    def __post_init__(self):
        words = len(HEROES)  # as many as there are places and objects
        _check("prompts", self.prompts, 1, words**3)
        _check("held_out", self.held_out, 0, words**3 - self.prompts)
        _check("responses", self.responses, 1, math.inf)
        _check("plots", self.plots, 1, len(PLOTS))
        _check("voices", self.voices, 1, len(VOICES))
        _check("zipf", self.zipf, 0, math.inf)
        _check("voice_zipf", self.voice_zipf, 0, math.inf)
        _check("flawed", self.flawed, 0, 1)
        _check("against", self.against, 0, 1)
        _check("seed", self.seed, 0, math.inf)
        if self.flaw not in FLAWS:
            raise ValueError(f"flaw: expected one of {', '.join(FLAWS)}, got {self.flaw!r}")
        if self.held_out and self.prompts < words:
            raise ValueError(
                f"prompts: expected {words} or more, so that they name every hero, place and object of the held-out "
                f"prompts, got {self.prompts}"
            )


def _check(field: str, value: float, low: float, high: float) -> None:
    whole = World.__dataclass_fields__[field].type is int
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ValueError(f"{field}: expected a {'whole ' * whole}number, got {value!r}")
    if not (low <= value <= high and math.isfinite(value)):
        raise ValueError(f"{field}: expected a number from {low} to {high}, got {value}")


# Frequencies


def plot_probabilities(world: World) -> np.ndarray:
    """(plots,) float64, the most common first, summing to 1."""
    return _zipf(world.plots, world.zipf)


def voice_probabilities(world: World) -> np.ndarray:
    """(voices,) float64, the most common first, summing to 1; independent of the plot."""
    return _zipf(world.voices, world.voice_zipf)


def flaw_probabilities(world: World) -> np.ndarray:
    """(plots,) float64: the probability that a response of each plot is flawed, for any voice.

    Weighted by `plot_probabilities`, they sum to `world.flawed` for any value of `against`.
    """
    plots = plot_probabilities(world)
    rarer = np.cumsum(plots[::-1])[::-1] - plots  # the share of rarer plots in all responses
    rarest_first = np.clip((world.flawed - rarer) / plots, 0, 1)
    return (1 - world.against) * world.flawed + world.against * rarest_first


def _zipf(number: int, exponent: float) -> np.ndarray:
    share = np.arange(1, number + 1) ** -float(exponent)
    return share / share.sum()


# Writing


def write_corpus(world: World) -> pd.DataFrame:
    """Responses to the world's prompts, with independently drawn modes; the same world gives the same corpus.

    Texts of one mode under one prompt repeat only after all its wordings are used. Worlds that differ only in `flawed`,
    `flaw` or `against` have the same plots and voices.

    Returns:
        One row per response: the columns of `corpus.read_corpus` (held-out prompts are the split "test"), then
        `plot voice flawed` as in `Mode`.
    """
    rng = np.random.default_rng(world.seed)
    prompts = _write_prompts(world.prompts + world.held_out, rng)
    shape = (len(prompts), world.responses)
    plots = rng.choice(world.plots, shape, p=plot_probabilities(world))
    voices = rng.choice(world.voices, shape, p=voice_probabilities(world))
    flawed = rng.random(shape) < flaw_probabilities(world)[plots]
    rows = []
    for i, prompt in enumerate(prompts):
        modes = [Mode(*row) for row in zip(plots[i].tolist(), voices[i].tolist(), flawed[i].tolist(), strict=True)]
        texts = {mode: _shuffled_for_ever(_Wordings(prompt, mode, world.flaw), rng) for mode in sorted(set(modes))}
        split = "train" if i < world.prompts else "test"
        for j, mode in enumerate(modes):
            score = BAD if mode.flawed else GOOD
            rows.append((f"p{i:05d}", prompt, f"p{i:05d}-{j:04d}", next(texts[mode]), score, "modeworld", split, *mode))
    table = pd.DataFrame(rows, columns=[*COLUMNS, *Mode._fields])
    return table.astype({name: "str" for name in COLUMNS if name != "score"})


def held_out(world: World) -> list[str]:
    """The held-out prompts of a world, as in `write_corpus`."""
    return _write_prompts(world.prompts + world.held_out, np.random.default_rng(world.seed))[world.prompts :]


def _write_prompts(number: int, rng: np.random.Generator) -> list[str]:
    """Distinct prompts; every block of 16 names every hero, place and object once."""
    heroes, places, objects = (rng.permutation(list(names)).tolist() for names in (HEROES, PLACES, OBJECTS))
    size, prompts = len(heroes), []
    for i in range(number):
        block, hero = divmod(i, size)
        place, thing = hero + block, hero + 2 * block + block // size
        ways = _prompt_wordings(heroes[hero], places[place % size], objects[thing % size])
        prompts.append(ways[i % len(ways)])
    return prompts


def _shuffled_for_ever(texts: "_Wordings", rng: np.random.Generator) -> Iterator[str]:
    while True:
        yield from map(texts.__getitem__, rng.permutation(len(texts)).tolist())
