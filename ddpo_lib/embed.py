"""Public names of `ddpo_lib.spaces.embed`."""

from ddpo_lib.spaces.embed import embed

__all__ = ["embed"]
