"""Every architecture of the page "Which models" against its own call, and the page against what was tried."""

import re

import pytest
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ddpo_lib.report.families import MARKED, PAGE, Family, Tried, read_families, table, try_family, write_page

FAMILIES = read_families()
CLOSE = 1e-4  # nats of a response, and shares of the adapter's largest gradient
TRIED: dict[str, Tried] = {}


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tried(family: Family) -> Tried:
    if family.kind not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {family.kind}")
    if family.name not in TRIED:
        TRIED[family.name] = try_family(family)
    return TRIED[family.name]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_gives_the_log_probabilities_of_its_own_call(family):
    one = tried(family)
    expected = {"whole", "adapter", "gradients"} | (set() if one.why_whole else {"kept"})
    assert one.gaps.keys() == (set() if one.way == "refused" else expected)
    assert all(gap < CLOSE for gap in one.gaps.values()), one.gaps
    assert bool(one.why) == (one.way != "packed")


def test_the_page_shows_what_was_tried():
    text = PAGE.read_text(encoding="utf-8")
    version = re.search(r"Tried with transformers (\S+):", text)[1]
    if version != transformers.__version__:
        pytest.skip(f"the page is of transformers {version}")
    found = MARKED.search(text)[2]
    assert found == table([tried(family) for family in FAMILIES]), "run `python -m ddpo_lib.report.families`"


def test_the_table_of_three_families_by_hand(tmp_path):
    llama = Tried(Family("Llama", "llama", {}), "packed", "", False, "", {})
    mamba = "it has layers of the type linear_attention"
    mamba = Tried(Family("Mamba", "mamba", {}), "padded", mamba, True, f"batches cannot be packed: {mamba}", {})
    other = Tried(Family("Other", "other", {}), "refused", "it says no", False, "", {})
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- families -->\nold\n<!-- /families -->\nbelow\n")
    for _ in range(2):
        write_page(page, [llama, mamba, other])
    assert page.read_text().splitlines() == [
        "above",
        "<!-- families -->",
        f"Tried with transformers {transformers.__version__}: 3 architectures, of which 1 are packed, 1 are padded, "
        "1 are refused.",
        "",
        "| architecture | model_type | batches are | lower layers | why |",
        "|---|---|---|---|---|",
        "| Llama | llama | packed | kept |  |",
        "| Mamba | mamba | padded | run each time | a recurrent state would pass from one sequence to the next; "
        "TRL's head does not fit, so all logits of a batch are held |",
        "| Other | other | refused |  | it says no |",
        "<!-- /families -->",
        "below",
    ]
