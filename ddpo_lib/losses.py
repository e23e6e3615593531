"""Public names of `ddpo_lib.training.losses`."""

from ddpo_lib.training.losses import ddpo_loss, dorpo_loss, log_odds

__all__ = ["ddpo_loss", "dorpo_loss", "log_odds"]
