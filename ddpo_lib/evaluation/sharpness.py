"""How small an effect can a run detect, and how much would more prompts, samples or seeds help?

A difference of two arms varies between prompts, between training seeds, and between sets of samples. The run's samples
give an estimate of each variance. From these follows the interval that other numbers of prompts, samples and seeds
would give, and its cost.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ddpo_lib.evaluation.precision import Components, components, half_width


@dataclass(frozen=True)
class Cost:
    """Seconds of work for one claim, from the run's manifests.

    Attributes:
        training: of both arms and of the model that they start from, per seed.
        sampling: of both arms, per seed, prompt and sample.
    """

    training: float
    sampling: float

    def minutes(self, prompts: int, samples: int, seeds: int) -> float:
        return seeds * (self.training + prompts * samples * self.sampling) / 60


def variances(by_set: pd.DataFrame, arm: str, against: str, measure: str) -> pd.DataFrame:
    """Components of variance of a paired difference of two arms, by the number of samples per set.

    Args:
        by_set: one row per arm, prompt, seed and number of samples, with one column per measure.
        arm, against: the two arms.
        measure: a column.

    Returns:
        One row per number of samples: `samples prompts seeds mean`, and the components of variance `prompt`, `seed` and
        `residual` of `precision.components`. The residual contains the noise of the samples.
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
    """Components of variance for sets of `samples` samples.

    The noise of samples is part of the residual, or of the prompt component with one seed. That component is modelled
    as a + b / samples, with a and b at least 0, fitted to the measured numbers of samples by least squares. The other
    components are those of the largest sets.
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
    """The expected half-width of the interval with these numbers of prompts, samples and seeds."""
    return half_width(at_samples(found, samples), prompts, seeds, confidence)


def costs_of(seconds: dict[str, float], arm: str, against: str, prompts: int, samples: int, seeds: int) -> Cost:
    """The cost of two arms and of the model that they start from, from a run's seconds by artifact."""
    trained = [s for name, s in seconds.items() if _is_of(name, ("sft", f"arm-{arm}", f"arm-{against}"))]
    drawn = [s for name, s in seconds.items() if _is_of(name, (f"samples-{arm}", f"samples-{against}"))]
    return Cost(sum(trained) / seeds, sum(drawn) / (seeds * prompts * samples))


def _is_of(artifact: str, names: tuple[str, ...]) -> bool:
    return artifact.partition("-seed")[0] in names
