"""Public names of `ddpo_lib.sampling.generate`."""

from ddpo_lib.sampling.generate import generate

__all__ = ["generate"]
