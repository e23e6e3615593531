"""Public names of `ddpo_lib.data.corpus`."""

from ddpo_lib.data.corpus import read_corpus

__all__ = ["read_corpus"]
