"""Deviation-weighted preference training, DDPO and DORPO: a companion to arXiv:2503.17126.

`ROOMS` lists the sub-packages in the order in which data flows. A room imports only from itself and from the rooms
before it. Its docstring says what comes in and what goes out. The modules beside the rooms are doors: they re-export
the names that users import, as in `from ddpo_lib.trainer import DeviationTrainer`.

Importing `ddpo_lib` imports nothing else. `from ddpo_lib import weights` needs numpy and no torch.
"""

import sys
from importlib import import_module

from ddpo_lib.base.extras import Finder

ROOMS = (
    "base",
    "statistics",
    "profiles",
    "models",
    "data",
    "spaces",
    "deviation",
    "rewards",
    "pairs",
    "training",
    "protocol",
    "sampling",
    "measures",
    "evaluation",
    "worlds",
    "domains",
    "people",
    "report",
    "interactive",
    "pages",
    "runs",
    "cli",
)

__all__ = [
    "DeviationConfig",
    "DeviationReward",
    "DeviationTrainer",
    "make_pairs",
    "mean_distance",
    "read_corpus",
    "weights",
]

_MODULES = {
    "DeviationConfig": "trainer",
    "DeviationReward": "rewards",
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
