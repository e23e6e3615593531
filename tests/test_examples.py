"""The Python examples of README and of the pages run as they stand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tiny import WORDS, tiny_model, tiny_pairs, tiny_tokenizer

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "book").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.fixture
def given(tmp_path, monkeypatch) -> dict:
    """What the examples take as given: a model and its tokenizer, rows of pairs, and a corpus, `mine.jsonl`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    lines = [
        {
            "prompt": f"the {word} and ",
            "responses": [{"text": " ".join(rng.choice(WORDS, 6)), "score": 7 * i} for i in range(4)],
        }
        for word in WORDS[3:15]
    ]
    Path("mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"model": tiny_model(), "tokenizer": tiny_tokenizer(), "rows": tiny_pairs(6, weight=[0, 1, 2, 0.5, 1, 1.5])}


def test_examples_are_where_they_are_looked_for():
    assert {page.name for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))} == {"README.md", "use.md"}


@pytest.mark.parametrize("page", ["README.md", "book/use.md"])
def test_the_examples_of_a_page_run_one_after_the_other(page, given):
    before = {name: tensor.clone() for name, tensor in given["model"].state_dict().items()}
    for block in BLOCK.findall((PROJECT / page).read_text(encoding="utf-8")):
        exec(compile(block, page, "exec"), given)
    assert any(not tensor.equal(before[name]) for name, tensor in given["model"].state_dict().items())
    if page == "book/use.md":
        assert np.isfinite(given["pairs"]["weight"]).all()
        assert given["pairs"]["weight"].std() > 0
        given["chart"].selected = [0, 1]
        assert len(given["chart"].selection) == 2
