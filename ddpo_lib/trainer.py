"""Public names of `ddpo_lib.training.trainer`."""

from ddpo_lib.training.trainer import DeviationConfig, DeviationTrainer

__all__ = ["DeviationConfig", "DeviationTrainer"]
