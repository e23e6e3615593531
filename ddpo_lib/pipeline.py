"""Public names of `ddpo_lib.runs.pipeline`."""

from ddpo_lib.runs.pipeline import open_run

__all__ = ["open_run"]
