"""In: scored responses, and deviation for the arms that use it.
Out: pairs of a chosen and a rejected response, by any rule, each with its weight."""

from ddpo_lib.pairs.rules import make_divpo_pairs, make_pairs

__all__ = ["make_divpo_pairs", "make_pairs"]
