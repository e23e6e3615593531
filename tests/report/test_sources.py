"""Numbers, anchors, data and sources of figures and tables; the run that is kept with the project is the example."""

import ast
import base64
import io
import json
import re

import jupytext
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from test_hostile import Tags, shown

from ddpo_lib.base.run_folder import Run
from ddpo_lib.evaluation.compare_arms import HEADLINE
from ddpo_lib.report import figures, sources
from ddpo_lib.runs.pipeline import CHAPTERS, KEPT_RUN, PROJECT

KEPT = PROJECT / "results" / KEPT_RUN
FRAME = pd.DataFrame({"prompts": [3]})


@pytest.fixture(autouse=True)
def run(monkeypatch) -> Run:
    """The kept run, with a chapter that reads its evaluation."""
    monkeypatch.setattr(sources, "_chapter", None)
    run = Run(KEPT, {})
    figures.chapter(run, "02a-sharpness", of=["evaluation"], on="36 prompts")
    return run


def a_figure(**options) -> str:
    return shown(figures.show, plt.figure(), alt="A finding.", caption="Look.", **options)["text/html"]


def data_of(page: str) -> pd.DataFrame:
    (link,) = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', page)
    return pd.read_csv(io.BytesIO(base64.b64decode(link)))


def a_notebook(*cells: tuple[str, str]):
    """A notebook with a cell for each (kind, content); the content of `html` is the output of a code cell."""
    notebook = nbformat.v4.new_notebook()
    for kind, content in cells:
        if kind == "html":
            output = nbformat.v4.new_output("display_data", {"text/html": content})
            notebook.cells.append(nbformat.v4.new_code_cell("", outputs=[output]))
        else:
            notebook.cells.append(nbformat.v4.new_markdown_cell(content))
    return notebook


# numbers and anchors


def test_figures_and_tables_are_numbered_in_order_and_apart():
    pages = [
        a_figure(name="one", data=FRAME),
        shown(figures.table, FRAME, name="one", caption="")["text/html"],
        a_figure(name="two", data=FRAME),
        shown(
            figures.show_part, '<figure class="x"><i></i><figcaption>Map.</figcaption></figure>', name="a", data=FRAME
        ),
        a_figure(name="one", data=FRAME),  # a cell that is run again
    ]
    pages[3] = pages[3]["text/html"]
    opened = [re.match(r'<figure id="([^"]+)" data-number="([^"]+)"', page).groups() for page in pages]
    assert opened == [
        ("figure-one", "Figure 2a.1"),
        ("table-one", "Table 2a.1"),
        ("figure-two", "Figure 2a.2"),
        ("figure-a", "Figure 2a.3"),
        ("figure-one", "Figure 2a.1"),
    ]
    assert all(f"<figcaption><b>{number}.</b> " in page for page, (_, number) in zip(pages, opened, strict=True))
    assert pages[3].startswith('<figure id="figure-a" data-number="Figure 2a.3" class="x"><i></i>')
    assert pages[3].endswith("</details></figure>")


@pytest.mark.parametrize(
    ("stem", "number"), [("02-training", "2"), ("02a-sharpness", "2a"), ("00a-welcome", "0a"), ("10-x", "10")]
)
def test_the_number_of_a_chapter_is_that_of_its_file(stem, number):
    assert sources.chapter_number(stem) == number


def test_a_table_whose_place_was_reserved_is_numbered_there():
    place = figures.later("summary")
    shown(figures.table, FRAME, name="other", caption="")
    assert figures.ref("table-summary") == "Table 2a.1"
    assert figures.ref("table-other") == "Table 2a.2"
    figures.table(FRAME, name="summary", caption="", place=place)
    assert figures.ref("table-summary") == "Table 2a.1"


def test_a_reference_to_a_figure_that_was_not_shown_is_an_error():
    with pytest.raises(ValueError, match="figure-nothing: no figure or table before this sentence"):
        figures.ref("figure-nothing")


def test_references_in_prose_get_their_numbers_and_wrong_ones_are_errors():
    page = a_figure(name="one", data=FRAME)
    notebook = a_notebook(("text", "See [the figure](#figure-one), [above](#other)."), ("html", page))
    sources.resolve(notebook)
    assert notebook.cells[0].source == 'See <a href="#figure-one">Figure 2a.1</a>, [above](#other).'
    with pytest.raises(ValueError, match=r"\[x\]\(#table-one\): the chapter has no figure or table"):
        sources.resolve(a_notebook(("text", "[x](#table-one)"), ("html", page)))
    with pytest.raises(ValueError, match=r"figure-one.*two have this anchor"):
        sources.resolve(a_notebook(("html", page), ("html", page)))


@pytest.mark.parametrize("name", ["", "Two words", 'a"b', "a--b", "ä"])
def test_a_name_that_makes_no_anchor_is_an_error(name):
    with pytest.raises(ValueError, match="small letters, digits and hyphens only"):
        a_figure(name=name, data=FRAME)


# sources


def test_the_fold_says_what_made_the_figure_and_where():
    made = json.loads((KEPT / "evaluation" / "manifest.json").read_text())
    told = Tags(a_figure(name="one", data=FRAME)).text
    assert f"Data from evaluation (at commit {made['commit']} on {made['made']}). Seed: 0." in told
    assert re.search(r"Made by notebooks/02a-sharpness\.md at commit \w+", told)
    assert "Over 36 prompts." in told and "(1 row)" in told and "Link to this figure" in told
    assert "prompts" not in Tags(a_figure(name="two", data=FRAME, of=[], on="")).text.replace("results", "")


def test_artifacts_of_several_commits_are_told_apart(tmp_path):
    folder = tmp_path / "results" / "grid"
    folder.mkdir(parents=True)
    about = {"commit": None, "made": "2026-01-02", "params": {"seed": 7}}
    (folder / "manifest.json").write_text(json.dumps(about))
    commits = {"evaluation": "4334bdf", "arm-dpo": "4334bdf", "domains": "792abdd"}
    copied = Run(tmp_path / "run", {})
    for name, commit in commits.items():
        (copied.folder / name).mkdir(parents=True)
        about = json.loads((KEPT / name / "manifest.json").read_text()) | {"commit": commit}
        (copied.folder / name / "manifest.json").write_text(json.dumps(about))
    told = sources.made_from(copied, [*commits, folder])
    assert "evaluation, arm-dpo (at commit 4334bdf on " in told
    assert "; domains (at commit 792abdd on " in told
    assert told.endswith("; results/grid (at commit unknown on 2026-01-02). Seeds: 0, 7.")
    many = [f"arm-{n}" for n in range(11)]
    assert sources._some(many).endswith("arm-7 and 3 more")


def test_what_is_missing_is_named(run, monkeypatch):
    with pytest.raises(ValueError, match="figure one: it has no data; give the frame that is drawn"):
        a_figure(name="one", data=None)
    with pytest.raises(ValueError, match=f"arm-none: {re.escape(str(KEPT))} has no such artifact"):
        a_figure(name="one", data=FRAME, of=["arm-none"])
    with pytest.raises(ValueError, match="nothing: nothing is stored there"):
        a_figure(name="one", data=FRAME, of=[PROJECT / "results" / "nothing"])
    with pytest.raises(TypeError, match="data"):
        a_figure(name="one")
    monkeypatch.setattr(sources, "_chapter", None)
    with pytest.raises(ValueError, match=r"no chapter is registered; call `figures.chapter"):
        a_figure(name="one", data=FRAME)


# data


def test_data_have_all_digits_of_the_artifact_and_the_table_shows_few(run):
    results = json.loads((KEPT / "evaluation" / "results.json").read_text())
    change = results["differences"]["ddpo-both"]
    frame = pd.DataFrame([{"measure": m, "difference": figures.estimated(change[m], sign=True)} for m in HEADLINE])
    page = shown(figures.table, frame, name="one", caption="")["text/html"]
    data = data_of(page).set_index("measure")
    for m in HEADLINE:
        assert data.loc[m].tolist() == [change[m]["mean"], change[m]["low"], change[m]["high"]]
        assert figures.interval(change[m], sign=True) in page
        assert str(change[m]["mean"]) not in page
    assert data.columns.tolist() == ["difference", "difference, lower end", "difference, upper end"]


def test_cells_become_columns_with_their_units():
    third = figures.number(-1 / 3, ".0%")
    missing = figures.estimated({"mean": None, "low": None, "high": None})
    frame = pd.DataFrame(
        {
            "": ["a", "b"],
            "share": [third, "—"],
            "rho_low": [0.1 + 0.2, None],
            "x\ny": [missing, figures.probability(0.5)],
        }
    )
    assert [str(cell) for cell in frame["share"]] == ["−33%", "—"] and f"{missing}" == "—"
    assert sources.to_csv(frame).splitlines() == [
        'row,share (fraction),"rho, lower end",x y,"x y, lower end","x y, upper end"',
        "a,-0.3333333333333333,0.30000000000000004,,,",
        "b,—,,0.5,,",
    ]


def test_data_become_files_of_the_book():
    page = a_figure(name="one", data=pd.DataFrame({"value": [1 / 3]}))
    notebook = a_notebook(("html", page), ("text", "[the figure](#figure-one)"))
    files = sources.take_out_data(notebook, "02a-sharpness")
    assert files == {"data/02a-sharpness/figure-one.csv": b"value\n0.3333333333333333\n"}
    output = notebook.cells[0].outputs[0]["data"]["text/html"]
    assert 'href="_static/data/02a-sharpness/figure-one.csv" download="figure-one.csv"' in output
    assert "text/csv" not in output and len(output) < len(page)
    assert sources.take_out_data(notebook, "02a-sharpness") == {}


# chapters


def calls(stem: str) -> list[ast.Call]:
    """The calls of functions of `figures` in a chapter."""
    cells = jupytext.read(PROJECT / "notebooks" / f"{stem}.md").cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return [c for c in found if isinstance(c.func, ast.Attribute) and ast.unparse(c.func.value) == "figures"]


@pytest.mark.parametrize("stem", CHAPTERS)
def test_each_figure_of_a_chapter_has_a_name_of_its_own_and_data(stem):
    by_kind = {"show": "figure", "show_part": "figure", "table": "table"}
    anchors, patterns = [], []
    (registered,) = [call for call in calls(stem) if call.func.attr == "chapter"]
    assert registered.args[1].value == stem
    for call in calls(stem):
        kind = by_kind.get(call.func.attr)
        given = {word.arg: word.value for word in call.keywords}
        if kind is None:
            continue
        assert "name" in given and (kind == "table" or "data" in given), ast.unparse(call)[:99]
        if isinstance(given["name"], ast.Constant):
            anchors.append(f"{kind}-{given['name'].value}")
        else:  # a name with a part that the run decides
            patterns.append(ast.unparse(given["name"]))
    assert len(set(anchors)) == len(anchors)
    assert anchors or patterns
    for cell in jupytext.read(PROJECT / "notebooks" / f"{stem}.md").cells:
        if cell.cell_type == "markdown":
            assert set(sources.REFERENCE.findall(cell.source)) <= set(anchors)


@pytest.mark.parametrize("stem", [stem for stem in CHAPTERS if not stem.startswith("00")])
def test_the_title_of_a_chapter_has_the_number_that_its_figures_have(stem):
    title = re.search(r"(?m)^# (\S+) ", (PROJECT / "notebooks" / f"{stem}.md").read_text(encoding="utf-8"))
    assert title[1] == sources.chapter_number(stem)


def test_chapters_come_in_the_order_of_their_numbers():
    listed = re.findall(r"- file: (\S+)", (PROJECT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    numbers = [re.match(r"(\d+)([a-z]?)", sources.chapter_number(stem)).groups() for stem in listed if stem in CHAPTERS]
    assert numbers == sorted(numbers, key=lambda number: (int(number[0]), number[1]))
