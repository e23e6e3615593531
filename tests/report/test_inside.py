"""The examples of the page "Inside" run as they stand there, and what the page says about them holds."""

import ast
import importlib.util
import inspect
from pathlib import Path

import jupytext
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ddpo_lib.cli.main import app
from ddpo_lib.measures import table, word_measures
from ddpo_lib.profiles.profile import load_profile, twins
from ddpo_lib.profiles.settings import Sampling
from ddpo_lib.report import figures
from ddpo_lib.runs.pipeline import open_run
from ddpo_lib.sampling.generate import generate
from ddpo_lib.spaces import embed

PROJECT = Path(__file__).parents[2]
PAGE = jupytext.read(PROJECT / "notebooks" / "07-inside.md")
EXAMPLES = [c.source for c in PAGE.cells if c.cell_type == "code" and "remove-input" not in c.metadata.get("tags", [])]


def run_cell(source: str, names: dict):
    """Run a cell as a notebook does; the value of its last expression."""
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names that the examples define, `shown` by example, and the folder that they ran in."""
    folder = tmp_path_factory.mktemp("page")
    names = {"run": open_run("smoke", folder=folder / "runs")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        figures.chapter(names["run"], "07-inside")
        names["shown"] = [run_cell(source, names) for source in EXAMPLES]
        yield names


def test_each_example_has_at_most_ten_lines_besides_imports():
    assert len(EXAMPLES) == 6
    for source in EXAMPLES:
        lines = [line for line in source.splitlines() if line and not line.startswith(("import ", "from "))]
        assert len(lines) <= 10, source


def test_the_arm_is_trained_sampled_and_compared_with_the_one_without_weights(page):
    assert page["shown"][0] == ["arm-ddpo-root", "samples-ddpo-root", "sweep-ddpo-root"]
    assert twins(load_profile("mine.yaml"))["ddpo-root"] == "dpo"
    assert set(load_profile("mine.yaml").arms) == {"dpo", "ddpo-root"}
    planned = CliRunner().invoke(app, ["plan", "--profile", "mine.yaml"])
    assert planned.exit_code == 0, planned.output
    for cost in ("memory", "disk", "hours"):
        assert cost in planned.output


def test_the_space_of_a_model_is_embedded_and_weighs_the_arm(page):
    assert page["shown"][1].model == "sentence-transformers/all-mpnet-base-v2"
    steps = open_run("spaces.yaml").steps
    assert set(steps["vectors"].params["spaces"]) == {"semantic", "style", "mpnet"}
    assert "vectors" in steps["arm-ddpo-mpnet"].inputs


def test_the_counted_space_works_by_its_name(page, tmp_path, monkeypatch):
    vectors = page["marks_vectors"](page["stories"])
    assert vectors[0] == pytest.approx(np.array([3, 1, 1, 1, 1]) / 13**0.5)
    distance = 1 - vectors @ vectors.T
    assert page["shown"][2] == pytest.approx(distance.sum(axis=1) / 2, abs=5e-4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "counted.py"
    example = next(source for source in EXAMPLES if "def marks_vectors" in source)
    file.write_text(example, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("counted_marks", file)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    monkeypatch.setitem(embed.COUNTED, "marks", module.marks_vectors)
    assert np.array_equal(embed.embed(page["stories"], "marks"), vectors)


def test_the_measure_has_a_column_once_its_row_and_its_line_are_in_the_table(page, monkeypatch):
    assert page["shown"][3] == pytest.approx([2 / 3, 1 / 2])
    prose = "\n".join(c.source for c in PAGE.cells if c.cell_type == "markdown")
    line = prose.partition('`found["openings"]')[2].partition("`")[0]
    source = inspect.getsource(table)
    last_row, last_line = "    ]\n    return {row.name", "    columns = [name for name in measures_of("
    assert source.count(last_row) == source.count(last_line) == 1
    source = source.replace(last_row, f"        ROW,\n{last_row}").replace(
        last_line, f'    found["openings"]{line}\n{last_line}'
    )
    monkeypatch.setattr(word_measures, "distinct_openings", page["distinct_openings"], raising=False)
    edited = {"__name__": table.__name__, "ROW": page["row"]}
    exec(compile(source, "table.py", "exec"), edited)
    assert list(edited["MEASURES"]) == [*table.MEASURES, "openings"]
    texts, groups = ["The sea rose.", "the end", "A door", "Once", "Once more"], np.array([0, 0, 0, 1, 1])
    vectors = {"semantic": np.eye(5)}
    found = edited["measure"](texts, groups, vectors, vocabulary=9)
    assert found["openings"].tolist() == pytest.approx([2 / 3, 1 / 2])
    pd.testing.assert_frame_equal(found.drop(columns="openings"), table.measure(texts, groups, vectors, vocabulary=9))


def test_the_engine_answers_and_asks_nothing_again(page):
    assert page["shown"][4] == ["A lighthouse keeper"] * 2
    asked = [[{"role": "user", "content": text}] for text in ("one", "two", "three")]
    found = dict(page["Echo"]().sample(asked, 1, Sampling(), "0", skip={1}))
    assert {i: completions[0].text for i, completions in found.items()} == {0: "one", 2: "three"}
    again = generate(page["Echo"](), page["prompts"], Sampling(samples=3), seed=0, how="iter")
    assert again["sample"].tolist() == [0, 1, 2]


def test_the_chapter_counts_the_corpus_of_the_run(page):
    corpus = page["run"].table("corpus", "corpus.parquet")
    assert page["counted"]["responses"].sum() == len(corpus)
    assert page["counted"].loc["test", "prompts"] == corpus[corpus["split"] == "test"]["prompt_id"].nunique()


def test_an_edit_of_any_module_makes_the_page_stale():
    step = open_run("smoke").steps["chapter-07-inside"]
    assert set((PROJECT / "ddpo_lib").rglob("*.py")) <= set(step.files)
    assert step.inputs == ("corpus",)
