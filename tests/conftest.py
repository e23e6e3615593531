"""What several test files share: scored corpora, the reference numbers, and where the real data lie, if they do."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from browser import browser, launch  # noqa: F401, fixtures for every test file
from hypothesis import settings

from ddpo_lib.base.store import cache_folder

settings.register_profile("any-machine", deadline=None)  # a slow machine is no fault
settings.load_profile("any-machine")

SHARED = Path(__file__).parents[2] / "shared"
LONG_FILES = [
    f"test_{name}.py"
    for name in """
    smoke trainer small_models main trl_options distributed benchmarks gpu_benchmark quality resuming help_examples
    human_eval server deviation_map online online_rows pipeline embed generate study packaging weight_shards modeworld
    examples bfloat16_products layout votes frozen_layers families checkpoints diversity judge paths
    laboratory power
    """.split()
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: of processes that share the files, none then works on when the others are done."""
    rank = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(autouse=True)
def hub_as_it_is(monkeypatch):
    """No test leaves HF_HUB_OFFLINE behind, which commands set."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE")


@pytest.fixture(scope="session")
def golden() -> dict:
    """Numbers made by running the released data scripts."""
    return json.loads((Path(__file__).parent / "golden" / "released_code.json").read_text())


def share_made_once(cache: Path) -> None:
    """Link into a test's own cache what is the same for all: the converted model and UMAP's machine code.

    Call it before the test sets XDG_CACHE_HOME or HOME.
    """
    for name in ("models", "umap"):
        (cache_folder() / name).mkdir(parents=True, exist_ok=True)
        (cache / "ddpo").mkdir(parents=True, exist_ok=True)
        (cache / "ddpo" / name).symlink_to(cache_folder() / name)


def corpus(*groups: list[float | None]) -> pd.DataFrame:
    """A prompt for each list of scores; None where a response has no score."""
    rows = [
        (f"p{i}", f"prompt {i}", f"p{i}-{j:02d}", f"text {i} {j}", math.nan if score is None else float(score))
        for i, scores in enumerate(groups)
        for j, score in enumerate(scores)
    ]
    return pd.DataFrame(rows, columns=["prompt_id", "prompt", "response_id", "text", "score"])
