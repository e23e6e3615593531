"""The rewards of groups -> the advantages that GRPO and RLOO make of them, as TRL 1.16 computes them. Needs only numpy.

In all functions the last axis is a group: the samples of one prompt. A reward of NaN, which is TRL's None, counts
nowhere, and its advantage is 0.
"""

import warnings

import numpy as np

from ddpo_lib.rewards.rules import SPREAD

FLAT = 1e-8  # TRL calls a standard deviation zero up to this


def grpo(rewards: np.ndarray, *, scaled: bool = True) -> np.ndarray:
    """reward - mean of the group, over (standard deviation of the group + SPREAD) if `scaled`.

    These are the advantages of TRL's `GRPOTrainer` with `scale_rewards="group"`, or "none" if they are not scaled. With
    the division, a factor that all samples of a group share cancels but for SPREAD.

    Args:
        rewards: (..., G) floats.
        scaled: whether to divide by the spread (DeepSeekMath, arXiv:2402.03300) or not (arXiv:2503.20783).

    Returns:
        (..., G) float64.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a group without any reward
        advantages = rewards - np.nanmean(rewards, axis=-1, keepdims=True)
    if scaled:
        advantages = advantages / (spread(rewards)[..., None] + SPREAD)
    return np.nan_to_num(advantages, nan=0.0)


def rloo(rewards: np.ndarray) -> np.ndarray:
    """reward - mean reward of the others in the group (arXiv:2402.14740), as TRL's `RLOOTrainer` with its defaults.

    Args:
        rewards: (..., G) floats.

    Returns:
        (..., G) float64; 0 for the only sample with a reward.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    others = (~np.isnan(rewards)).sum(axis=-1, keepdims=True) - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        advantages = rewards - (np.nansum(rewards, axis=-1, keepdims=True) - rewards) / others
    return np.where(others > 0, np.nan_to_num(advantages, nan=0.0), 0.0)


def spread(rewards: np.ndarray) -> np.ndarray:
    """(...) float64, the standard deviation of each group with n - 1; NaN for fewer than two rewards.

    Args:
        rewards: (..., G) floats.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a group with fewer than two rewards
        return np.nanstd(np.asarray(rewards, dtype=np.float64), axis=-1, ddof=1)


def count_flat(rewards: np.ndarray) -> int:
    """How many groups have no advantage, because their rewards are all equal or fewer than two have any.

    Args:
        rewards: (..., G) floats.
    """
    return int((~(spread(rewards) > FLAT)).sum())
