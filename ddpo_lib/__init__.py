"""Deviation-weighted preference training, DDPO and DORPO: a companion to arXiv:2503.17126.

The modules, in the order that data flows: corpus, pairs, embed, deviation, losses, models, trainer, draws, decoding,
engines, generate, quality, diversity, stats, analysis. The names in `__all__` are imported when they are first used,
so that each costs no more than it needs: `from ddpo_lib import weights` imports numpy and no torch.
"""

import sys
from importlib import import_module

from ddpo_lib.extras import Finder

__all__ = ["DeviationConfig", "DeviationTrainer", "make_pairs", "mean_distance", "read_corpus", "weights"]

_MODULES = {
    "DeviationConfig": "trainer",
    "DeviationTrainer": "trainer",
    "make_pairs": "pairs",
    "mean_distance": "deviation",
    "read_corpus": "corpus",
    "weights": "deviation",
}

sys.meta_path.append(Finder)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
