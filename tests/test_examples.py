"""The Python examples of README, of the pages and of docstrings run as they stand, without settings for a CPU."""

import ast
import importlib
import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import share_made_once
from datasets import Dataset
from tiny import WORDS, tiny_model, tiny_pairs, tiny_tokenizer

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "book").glob("*.md"))]
LIBRARY = PROJECT / "ddpo_lib"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


@pytest.fixture
def given(tmp_path, monkeypatch) -> dict:
    """What the examples take as given: a model and its tokenizer, rows of pairs, and a corpus, `mine.jsonl`."""
    monkeypatch.chdir(tmp_path)
    share_made_once(tmp_path / "cache")
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


def python_in_docstring(text: str) -> list[str]:
    """The indented blocks of a docstring that are statements of Python, and not a table or a list of arguments."""
    blocks = re.findall(r"\n\n((?: {4}.*\n)+)", text + "\n")
    examples = []
    for block in blocks:
        try:
            statements = ast.parse(textwrap.dedent(block)).body
        except SyntaxError:
            continue
        if all(isinstance(statement, (ast.Assign, ast.Import, ast.ImportFrom)) for statement in statements):
            examples.append(textwrap.dedent(block))
    return examples


def docstring_examples() -> dict[str, list[str]]:
    """By module, the examples of its docstrings."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]
        examples = [each for node in nodes for each in python_in_docstring(ast.get_docstring(node) or "")]
        if examples:
            found[".".join(path.relative_to(PROJECT).with_suffix("").parts)] = examples
    return found


def test_the_examples_of_docstrings_run(given):
    examples = docstring_examples()
    modules = {"ddpo_lib.training.trainer", "ddpo_lib.rewards.deviation_reward"}
    assert examples.keys() == modules, "say below what the examples of another module are given"
    given |= vars(importlib.import_module("ddpo_lib.training.trainer")) | {"pairs": given["rows"]}
    given |= {"prompts": Dataset.from_dict({"prompt": [f"the {word} and" for word in WORDS[3:9]]})}
    for example in examples["ddpo_lib.training.trainer"]:
        exec(compile(example, "trainer.py", "exec"), given)
    assert given["trainer"].train().training_loss > 0
    for example in examples["ddpo_lib.rewards.deviation_reward"]:
        exec(compile(example, "deviation_reward.py", "exec"), given)
    assert given["trainer"].state.global_step == 1


def test_the_trainer_runs_on_a_laptop_without_any_settings(given):
    from ddpo_lib import DeviationTrainer

    options = {"train_dataset": given["rows"], "processing_class": given["tokenizer"]}
    trainer = DeviationTrainer(given["model"], **options)
    assert trainer.args.bf16 == torch.cuda.is_available()
    assert trainer.train().training_loss > 0
