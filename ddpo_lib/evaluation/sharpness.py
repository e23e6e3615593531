"""How small an effect can a run see, and what would more prompts, samples or seeds buy?

A difference of two arms varies between prompts, between seeds of training, and from one set of samples to the next. The
run's own samples tell how much of each there is; from that follows the interval that another number of prompts, samples
and seeds would give, and what it would cost.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ddpo_lib.base.stats import Components, components, half_width


@dataclass(frozen=True)
class Cost:
    """Seconds of work of one claim, as the run's manifests tell them.

    Attributes:
        training: of both arms and of what they start from, per seed.
        sampling: of both arms, per seed, prompt and sample.
    """

    training: float
    sampling: float

    def minutes(self, prompts: int, samples: int, seeds: int) -> float:
        return seeds * (self.training + prompts * samples * self.sampling) / 60


def variances(by_set: pd.DataFrame, arm: str, against: str, measure: str) -> pd.DataFrame:
    """What a paired difference of two arms varies with, by the number of samples that its sets have.

    Args:
        by_set: one row per arm, prompt, seed and number of samples, with one column per measure.
        arm, against: the two arms.
        measure: a column.

    Returns:
        One row per number of samples: `samples prompts seeds mean`, and the components of variance `prompt`, `seed` and
        `residual` of `stats.components`. The residual holds the noise of the samples.
    """
    rows = []
    for samples, part in by_set.groupby("samples", sort=True):
        wide = part.pivot(index=["prompt_id", "seed"], columns="arm", values=measure)
        table = (wide[arm] - wide[against]).dropna().unstack("seed").dropna()  # seeds, then prompts, that both have
        of_prompt, of_seed, residual = components(table.to_numpy())
        about = {
            "samples": samples,
            "prompts": table.shape[0],
            "seeds": table.shape[1],
            "mean": table.to_numpy().mean(),
        }
        rows.append({**about, "prompt": of_prompt, "seed": of_seed, "residual": residual})
    return pd.DataFrame(rows)


def at_samples(found: pd.DataFrame, samples: int) -> Components:
    """Components of variance for sets of so many samples.

    The noise of samples is in the residual, or with one seed in what prompts give. That part is a constant plus a term
    in 1 / samples: the line through the measured numbers of samples, by least squares with neither below zero. The
    other parts are those of the largest sets.
    """
    last = found.iloc[-1]
    noisy = "residual" if last["seeds"] > 1 else "prompt"
    slope, stays = last[noisy] * last["samples"], 0.0
    if len(found) > 1:
        slope, stays = np.polyfit(1 / found["samples"].to_numpy(), found[noisy].to_numpy(), 1)
        if stays < 0:
            slope, stays = last[noisy] * last["samples"], 0.0
        elif slope < 0:
            slope, stays = 0.0, last[noisy]
    parts = Components(*(float(last[part]) for part in Components._fields))
    return parts._replace(**{noisy: float(stays + slope / samples)})


def project(found: pd.DataFrame, prompts: int, samples: int, seeds: int, confidence: float) -> float:
    """The half-width of the interval that so many prompts, samples and seeds are expected to give."""
    return half_width(at_samples(found, samples), prompts, seeds, confidence)


def costs_of(seconds: dict[str, float], arm: str, against: str, prompts: int, samples: int, seeds: int) -> Cost:
    """What two arms and the model that they start from took, of the seconds by artifact that a run wrote down."""
    trained = [s for name, s in seconds.items() if _is_of(name, ("sft", f"arm-{arm}", f"arm-{against}"))]
    drawn = [s for name, s in seconds.items() if _is_of(name, (f"samples-{arm}", f"samples-{against}"))]
    return Cost(sum(trained) / seeds, sum(drawn) / (seeds * prompts * samples))


def _is_of(artifact: str, names: tuple[str, ...]) -> bool:
    return artifact.partition("-seed")[0] in names
