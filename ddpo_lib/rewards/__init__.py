"""In: the rewards of a prompt's samples, and the distances between them.
Out: rewards in which deviation counts, their advantages, and a reward function for trainers that learn from numbers."""

from ddpo_lib.rewards.deviation_reward import DeviationReward

__all__ = ["DeviationReward"]
