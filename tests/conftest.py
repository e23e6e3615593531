"""What several test files share: where the real data and the reference numbers lie, if they do."""

import json
from pathlib import Path

import pytest
from browser import browser, launch  # noqa: F401, fixtures for every test file

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def golden() -> dict:
    """Numbers made by running the released data scripts."""
    path = SHARED / "golden" / "released_code.json"
    if not path.exists():
        pytest.skip("shared/golden is not beside the project")
    return json.loads(path.read_text())
