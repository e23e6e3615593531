"""The rewards of one prompt's samples and the distances between them -> rewards in which deviation counts.

A *group* is all samples of one prompt in a step. A rule takes the group's rewards, (G,) float64, and the cosine
distances between its samples, (G, G). It returns the new rewards, (G,) float64. Needs only numpy.

`shape` is the door to the rules. It handles what is the same for all of them: samples without a reward, and a group of
one. A rule itself sees two samples or more, each with a finite reward.
"""

from collections.abc import Callable

import numpy as np

from ddpo_lib.deviation.weighting import TIE

SPREAD = 1e-4  # TRL adds it to each standard deviation that it divides by


def shape(rule: str, rewards: np.ndarray, distances: np.ndarray, **options: float) -> np.ndarray:
    """The rewards of a group by one of RULES.

    Equal samples get equal rewards, and a permutation of the group permutes the result. A sample whose reward is NaN
    keeps it; for the others the group consists of the samples that have a reward. A sample that is then alone keeps its
    reward, since it has no deviation.

    Args:
        rule: a name in RULES.
        rewards: (G,) floats, NaN for a sample about which the reward function says nothing.
        distances: (G, G) floats, symmetric, as from `cosine_distances`, or the mean of several such matrices.
        options: of the rule, see its function.

    Returns:
        (G,) float64.

    Raises:
        ValueError: an unknown rule, wrong shapes, an infinite reward, or a distance that is not finite.
    """
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
    rewards, distances = np.asarray(rewards, dtype=np.float64), np.asarray(distances, dtype=np.float64)
    if rewards.ndim != 1 or distances.shape != (len(rewards), len(rewards)):
        raise ValueError(f"distances: expected shape {(len(rewards),) * 2}, got {distances.shape}")
    if np.isinf(rewards).any():
        raise ValueError(
            f"rewards: sample {np.isinf(rewards).argmax()} is infinite; expected a number, or NaN for none"
        )
    scored = np.flatnonzero(~np.isnan(rewards))
    result = rewards.copy()
    if len(scored) > 1:
        between = distances[np.ix_(scored, scored)]
        if not np.isfinite(between).all():
            raise ValueError("distances: expected finite numbers")
        result[scored] = RULES[rule](rewards[scored], between, **options)
    return result


def cosine_distances(vectors: np.ndarray) -> np.ndarray:
    """1 minus the cosine of each pair of samples.

    Args:
        vectors: (G, d) floats, rows of any length but zero.

    Returns:
        (G, G) float64 in [0, 2]; the diagonal is 0.

    Raises:
        ValueError: not (G, d) numbers, or a row that is zero or contains NaN or infinity (names the first such row).
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2:
        raise ValueError(f"vectors: expected shape (G, d), got {vectors.shape}")
    length = np.linalg.norm(vectors, axis=1)
    bad = ~(np.isfinite(length) & (length > 0))
    if bad.any():
        raise ValueError(f"vectors: row {bad.argmax()} is zero, or holds NaN or infinity; it has no direction")
    unit = vectors / length[:, None]
    distances = np.clip(1.0 - unit @ unit.T, 0.0, 2.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def deviation(distances: np.ndarray) -> np.ndarray:
    """(G,) float64, the mean distance of each sample to the others: `mean_distance` for one group; NaN for one sample.

    Args:
        distances: (G, G) floats with a diagonal of 0.
    """
    others = len(distances) - 1
    return distances.sum(axis=1) / others if others else np.full(1, np.nan)


# The rules


def plain(rewards: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The rewards as they are."""
    return rewards.copy()


def product(rewards: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """(reward - the least reward of the group) * deviation.

    Without the subtraction a negative reward would pay for being like the others. DARLING multiplies by a share of
    classes instead of a distance (https://github.com/facebookresearch/darling). The worst sample of a group gets 0,
    however it deviates.
    """
    return (rewards - rewards.min()) * deviation(distances)


def similarity(rewards: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """reward / (1 + the sum of the cosines to the others), as DRA-GRPO describes it (arXiv:2505.09655v3).

    The sum is over the samples of one prompt, without the sample itself. Cosines below zero count as zero, so that the
    divisor is 1 or more. A negative reward is divided too, and so it pays for being like the others.
    """
    cosines = np.maximum(1.0 - distances, 0.0)
    return rewards / (1.0 + cosines.sum(axis=1) - np.diagonal(cosines))


def gated(rewards: np.ndarray, distances: np.ndarray, gate: float = 0.0, share: float = 0.6) -> np.ndarray:
    """(1 - share) * reward + share * reward * c for samples above the gate, and the plain reward for others.

    c is the deviation, scaled to [0, 1] within the group; 0.5 if all are equal. The rule and its share are those of
    DPWriter (arXiv:2601.09609), which takes c from word n-grams and a gate of 10 on its own scale.

    A sample just above the gate can get as little as (1 - share) * gate. That is less than one just below it gets, if
    the gate is positive.

    Args:
        rewards, distances: as in `shape`.
        gate: deviation counts only for rewards above it.
        share: of the reward that depends on deviation, in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share: expected a number in [0, 1], got {share}")
    mixed = (1.0 - share) * rewards + share * rewards * _scaled(deviation(distances))
    return np.where(rewards > gate, mixed, rewards)


def normalised(rewards: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The reward and the deviation, each standardised in the group, then added.

    It is TRL's `normalize_then_sum` of two reward functions, before TRL standardises the sum again over the batch.
    """
    return _standardised(rewards) + _standardised(deviation(distances))


def logdet(rewards: np.ndarray, distances: np.ndarray, weight: float = 1.0, ridge: float = 1.0) -> np.ndarray:
    """reward + weight * (log det(S + ridge I) - the same without the sample); S contains the cosines of the group.

    The term says how much volume a sample adds to the group. With a ridge of 1 it lies between 0, for one of many equal
    samples, and log 2, for one that is orthogonal to all others. DQO (arXiv:2509.04784v3) rewards the determinant of
    the whole group; that is equal for all its samples, and cancels in their advantages.

    Args:
        rewards, distances: as in `shape`.
        weight: of the term.
        ridge: added to the diagonal; > 0.
    """
    if not ridge > 0:
        raise ValueError(f"ridge: expected a number > 0, got {ridge}")
    inverse = np.linalg.inv(1.0 - distances + ridge * np.eye(len(distances)))
    return rewards - weight * np.log(np.diagonal(inverse))  # det(S without i) / det(S) = inverse(S)[i, i]


RULES: dict[str, Callable[..., np.ndarray]] = {
    rule.__name__: rule for rule in (plain, product, similarity, gated, normalised, logdet)
}


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values scaled to [0, 1]; 0.5 if all are equal, as `weights` has it."""
    low, high = values.min(), values.max()
    return np.full(len(values), 0.5) if high - low <= TIE else (values - low) / (high - low)


def _standardised(values: np.ndarray) -> np.ndarray:
    """Values minus their mean, over their standard deviation; zeros if all are equal."""
    if np.ptp(values) <= TIE:
        return np.zeros(len(values))
    return (values - values.mean()) / (values.std(ddof=1) + SPREAD)
