"""What the project tells of results is what its code, data and settings make: README, results/, the pages' sentences.

A failure names the command that makes the thing anew.
"""

import ast
import json
import re
import subprocess
from pathlib import Path

import jupytext
import pytest
from typer.testing import CliRunner

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.cli.main import app
from ddpo_lib.evaluation.compare_arms import HEADLINE
from ddpo_lib.report import figures, readme, timings
from ddpo_lib.report import results as kept
from ddpo_lib.runs import pipeline
from ddpo_lib.runs.pipeline import KEPT, KEPT_RUN, PROJECT, is_current, open_run, recipe

README = (PROJECT / "README.md").read_text(encoding="utf-8")
REMAKE = "run `make book`, then `ddpo readme`"


def difference(mean: float, low: float | None, high: float | None) -> dict:
    return {"mean": mean, "low": low, "high": high}


def claim(measure: str, verdict: str, found: dict) -> dict:
    named = {"id": measure, "claim": measure, "arm": "ddpo-both", "against": "dpo", "measure": measure}
    return named | {"expect": "higher", "difference": found, "verdict": verdict, "margin": 0.0, "p_corrected": 0.01}


@pytest.fixture
def facts() -> dict:
    """Of a run that never was: nothing is known."""
    found = {m: difference(0.02, -0.01, 0.05) for m in HEADLINE}
    claims = {m: {"difference": found[m], "verdict": "not enough data"} for m in HEADLINE}
    sizes = {"prompts": 24, "samples": 4, "seeds": 1, "confidence": 0.95, "model": "tiny", "quality": "stand-in reward"}
    return sizes | {
        "claims": claims,
        "against": {"dpo": "sft", "ddpo-both": "dpo"},
        "differences": {"dpo": found, "ddpo-both": found},
    }


# README


@pytest.fixture(scope="module")
def made() -> dict:
    file = PROJECT / readme.MANIFEST
    assert file.exists(), f"{readme.MANIFEST} is missing: {REMAKE}"
    return json.loads(file.read_text(encoding="utf-8"))


def test_readme_tells_of_a_run_that_this_code_these_data_and_these_settings_make(made):
    run = open_run(readme.PROFILE)
    keys = {name: run.key(name) for name in readme.SOURCES}
    assert made["keys"] == keys, (
        f"README was made by commit {made['commit']} with other code, data or settings: {REMAKE}"
    )


def test_readme_holds_what_was_written_into_it(made):
    assert readme.read_blocks(README) == made["blocks"], f"README's blocks were edited: {REMAKE}"
    assert readme.file_hash(PROJECT / readme.FIGURE) == made["figure"], f"{readme.FIGURE} is another: {REMAKE}"


def test_readme_is_what_the_run_the_grid_and_the_measurements_now_say(made):
    assert readme.blocks(made["facts"], PROJECT) == made["blocks"], "what README is made of has changed: `ddpo readme`"


def test_readme_fits_a_screen_or_three():
    assert len(README.splitlines()) <= 120
    written = re.sub(r"^(\||!\[).*", "", README, flags=re.M)  # tables and figures cannot be broken
    assert max(map(len, written.splitlines())) <= 102


def test_a_readme_is_filled_and_read_back():
    text = "before\n<!-- one -->\nold\n<!-- /one -->\nbetween\n<!-- two -->\n<!-- /two -->\n"
    filled = readme.fill(text, {"one": "a\n\nb", "two": r"c \1"})
    assert filled == "before\n<!-- one -->\na\n\nb\n<!-- /one -->\nbetween\n<!-- two -->\nc \\1\n<!-- /two -->\n"
    assert readme.read_blocks(filled) == {"one": "a\n\nb", "two": r"c \1"}
    assert readme.fill(filled, readme.read_blocks(filled)) == filled


@pytest.mark.parametrize("blocks", [{"one": ""}, {"one": "", "two": "", "three": ""}])
def test_a_block_that_is_missing_is_an_error(blocks):
    with pytest.raises(InputError, match="expected the blocks"):
        readme.fill("<!-- one -->\n<!-- /one -->\n<!-- two -->\n<!-- /two -->\n", blocks)


def test_a_result_without_a_verdict_says_so(facts):
    told = " ".join(readme.result(facts).split())
    assert "(tiny, 24 held-out prompts, 4 samples per prompt, one training seed per method)" in told
    assert "DDPO-both minus DPO is +0.020 [−0.010, +0.050] in semantic diversity" in told
    assert "Every interval includes zero, so the run neither supports nor refutes the paper's claims." in told


def test_a_result_with_verdicts_gives_them(facts):
    facts["claims"]["semantic"] = {"difference": difference(0.02, 0.01, 0.03), "verdict": "reproduced"}
    told = " ".join(readme.result(facts | {"seeds": 3}).split())
    assert "3 training seeds per method" in told
    assert "reproduced for semantic diversity; not enough data for style diversity and quality." in told
    assert "includes zero" not in told


def test_the_picture_says_what_each_arm_is_compared_with(facts):
    told = readme.picture(facts)
    assert "DPO minus SFT, DDPO-both minus DPO, with 95% intervals over up to 24 held-out prompts" in told


def test_an_interval_clear_of_zero_without_a_verdict_is_not_said_to_include_it(facts):
    facts["claims"]["style"] = {"difference": difference(0.02, 0.01, 0.03), "verdict": "not enough data"}
    assert "includes zero" not in readme.result(facts)


def test_the_figure_has_no_date_and_is_the_same_twice(facts, tmp_path):
    for name in ("one.svg", "other.svg"):
        readme.draw(facts, tmp_path / name)
    assert readme.file_hash(tmp_path / "one.svg") == readme.file_hash(tmp_path / "other.svg")
    assert "<dc:date>" not in (tmp_path / "one.svg").read_text()


def test_speed_takes_rows_as_they_stand_and_misses_none():
    text = (PROJECT / readme.BENCHMARKS).read_text(encoding="utf-8")
    told = readme.speed(text)
    for what, against, _ in readme.SHOWN:
        assert f"| {against}" in told, what
    cells = [row.split(" | ")[2].rstrip(" |") for row in told.splitlines()[2 : 2 + len(readme.SHOWN)]]
    assert all(f"| {cell} |" in text for cell in cells)
    with pytest.raises(InputError, match="no row 'a DDPO step'"):
        readme.speed(text.replace("a DDPO step", "a step"))


def test_the_small_world_is_told_with_its_claims_and_seeds():
    grid = readme.read_grid(PROJECT / "results" / "worlds")
    told = " ".join(readme.world(grid, readme.load_profile("embedded")).split())
    means = grid.table.groupby("row")["rare_good"].mean()
    assert f"({grid.table['seed'].nunique()} seeds per method)" in told
    assert f"The change is {100 * (means['ddpo-semantic'] - means['dpo']):+.1f} [" in told
    assert f"from {means['dpo']:.1%} with plain DPO" in told
    told_of = re.search(r"support (\d+), leave (\d+) open and contradict (\d+)", told)
    reproduced, open_, failed = map(int, told_of.groups())
    assert f"Of {reproduced + open_ + failed} claims tested there" in told


class FinishedRun:
    """Stands in for a run whose evaluation and reward's report are there."""

    folder = Path("runs/embedded")

    def __init__(self, results: dict, fresh: bool = True):
        self.files = {"evaluation": results, "quality": {"name": "stand-in reward", "better_than_chance": True}}
        self.fresh = fresh

    def is_fresh(self, name):
        return self.fresh

    def json(self, name, file):
        return self.files[name]

    def key(self, name):
        return f"key of {name}"

    def manifest(self, name):
        return {"made": "2026-01-01", "commit": "abc", "code": {}, "hardware": {}, "versions": {}}


@pytest.fixture
def results() -> dict:
    """As the evaluation writes them, with a claim on another arm too."""
    found = {m: difference(0.02, -0.01, 0.05) | {"prompts": 16} for m in HEADLINE}
    claims = [claim(m, "not enough data", found[m]) for m in HEADLINE]
    claims.append(claim("quality", "reproduced", found["quality"]) | {"arm": "dorpo-both", "against": "orpo"})
    against = {"gold": "dpo", "dpo": "sft", "ddpo-both": "dpo", "divpo": "dpo"}
    return {
        "seeds": {"ddpo-both": 2},
        "claims": claims,
        "against": against,
        "differences": dict.fromkeys(against, found),
    }


def test_facts_are_those_of_the_main_claims_and_of_the_trained_arms(results):
    told = readme.read_facts(FinishedRun(results))
    assert (told["prompts"], told["seeds"], told["samples"]) == (16, 2, 8)
    assert list(told["differences"]) == ["dpo", "ddpo-both", "divpo"]
    assert told["claims"]["quality"]["verdict"] == "not enough data"


def test_readme_is_written_from_a_finished_run_and_holds_then(results, tmp_path):
    for file in ("README.md", readme.TIMINGS, readme.BENCHMARKS, *(PROJECT / "results" / "worlds").iterdir()):
        there = tmp_path / (PROJECT / file).relative_to(PROJECT)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes((PROJECT / file).read_bytes())
    (tmp_path / readme.FIGURE).parent.mkdir(parents=True)
    manifest = json.loads(readme.write(FinishedRun(results), tmp_path).read_text(encoding="utf-8"))
    assert manifest["keys"] == {"evaluation": "key of evaluation", "quality": "key of quality"}
    assert readme.read_blocks((tmp_path / "README.md").read_text(encoding="utf-8")) == manifest["blocks"]
    assert readme.blocks(manifest["facts"], tmp_path) == manifest["blocks"]
    assert manifest["figure"] == readme.file_hash(tmp_path / readme.FIGURE)


def test_readme_is_not_written_from_a_run_that_other_code_made(results, tmp_path):
    with pytest.raises(InputError, match="run `make book` first"):
        readme.write(FinishedRun(results, fresh=False), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_clone_is_timed(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    lines = [
        "setup:\n\t@head -c 2000000 /dev/zero > installed\n",
        "book: setup\n\t@true\n",
        "test:\n\t@echo 12 passed in 1s\n",
    ]
    (project / "Makefile").write_text("\n".join(lines))
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(project), *command], check=True)
    found = timings.time_clone(project, tmp_path / "clone")
    assert found["tests"]["number"] == 12
    assert set(found["setup"]) == {"seconds", "disk_gb"}
    told = readme.cost(found)
    assert "`make test`, 12 tests" in told
    assert f"at commit {found['commit']}" in told
    with pytest.raises(InputError, match="exists"):
        timings.time_clone(project, tmp_path / "clone")


def test_a_clone_whose_tests_fail_is_not_timed(tmp_path):
    (tmp_path / "Makefile").write_text("setup:\n\t@echo no; exit 3\n")
    with pytest.raises(InputError, match=r"make setup.*status 2"):
        timings._clocked(["make", "setup"], tmp_path)


def test_times_are_written_as_a_clock_shows_them():
    assert [readme._clock(s) for s in (3.6, 59.6, 2000)] == ["4 s", "1 min 0 s", "33 min 20 s"]


# results/


@pytest.mark.parametrize("name", KEPT)
def test_kept_results_are_those_of_this_code_and_these_settings(name):
    corpus = KEPT[name][2]
    command = f"`ddpo keep {name}" + (
        f" --data FOLDER`, with {corpus} in it" if corpus else "`, after `make book-full`"
    )
    assert is_current(name), f"results/{name}: made with other code or settings than this checkout's; {command}"
    assert kept.file_hashes(PROJECT / "results" / name) == kept.read_manifest(PROJECT / "results" / name)["files"], (
        command
    )


def test_every_kept_folder_is_known_and_has_a_manifest():
    folders = {f.name for f in (PROJECT / "results").iterdir() if f.is_dir()}
    measured = {"gpu", "scale", "faults"}  # what modules of benchmarks/ write
    assert folders - measured == {*KEPT, KEPT_RUN}
    for name, (_, artifact, _) in KEPT.items():
        assert json.loads((PROJECT / "results" / name / "manifest.json").read_text())["name"] == artifact


def test_a_recipe_depends_on_settings_and_not_on_the_corpus(tmp_path):
    (tmp_path / "one.jsonl").write_text("")
    corpus = open_run("deviation", str(tmp_path / "one.jsonl"))
    assert corpus.key("findings") != open_run("deviation").key("findings")
    assert len({recipe(profile, "findings") for profile in ("deviation", "embedded", "smoke")}) == 3
    assert recipe("full", "worlds") == open_run("full").key("worlds")  # which reads no corpus


@pytest.fixture
def folder(tmp_path) -> Path:
    """A made artifact, as a run leaves it."""
    made = {"made": "2026-01-02", "commit": "abc1234", "seconds": 61.4, "code": {"code": "f00d"}}
    artifact = tmp_path / "run" / "ranking"
    artifact.mkdir(parents=True)
    write_json(artifact / "manifest.json", made | {"hardware": {"gpu": None, "processor": "a processor"}})
    (artifact / "ranking.json").write_text("{}")
    return artifact


def test_an_artifact_is_kept_whole_with_its_recipe(folder, tmp_path):
    there = tmp_path / "results" / "measures"
    there.mkdir(parents=True)
    (there / "old.json").write_text("{}")
    kept.keep(folder, "the recipe", there)
    assert sorted(f.name for f in there.iterdir()) == ["manifest.json", "ranking.json"]
    assert json.loads((there / "manifest.json").read_text())["recipe"] == "the recipe"
    assert "recipe" not in kept.read_manifest(folder)
    assert kept.file_hashes(there) == kept.read_manifest(there)["files"]
    (there / "ranking.json").write_text("[]")
    assert kept.file_hashes(there) != kept.read_manifest(there)["files"]


def test_a_page_tells_where_kept_results_are_from_and_warns_where_the_code_is_another(folder):
    told = kept.origin(folder, True)
    assert told == "`results/ranking` was made on 2026-01-02 by commit abc1234 (code f00d) on a processor."
    warned = kept.origin(folder, False)
    assert warned.startswith("**Warning: the code or the settings have changed since")
    assert told in warned
    assert "`ddpo keep ranking`" in warned


def test_what_is_kept_is_current_until_the_settings_change(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    few = pipeline.PACKAGE_CORPUS.read_text(encoding="utf-8").splitlines()[:6]
    (tmp_path / "data" / "hanna.jsonl").write_text("\n".join(few), encoding="utf-8")
    monkeypatch.setattr(pipeline, "PROJECT", tmp_path)
    words = ["keep", "deviation-hanna", "--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    there = tmp_path / "results" / "deviation-hanna"
    assert done.output.strip().endswith(str(there))
    assert is_current("deviation-hanna")
    assert json.loads((there / "findings.json").read_text())["prompts"] == 6
    assert set(kept.read_manifest(there)["files"]) == {"findings.json"}
    monkeypatch.setitem(pipeline.KEPT, "deviation-hanna", ("smoke", "findings", "hanna.jsonl"))
    assert not is_current("deviation-hanna")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["keep", "worlds-2"], "worlds-2: not kept; there are deviation-captions"),
        (["keep", "measures-hanna"], "made from hanna.jsonl; give the folder that holds it with --data"),
        (["readme", "--runs", "nowhere"], "evaluation and quality not made by this checkout; run `make book` first"),
        (["timings", "tests"], "tests: exists; give a folder that is not there yet"),
    ],
)
def test_a_maintainer_is_told_what_is_missing(words, told, monkeypatch):
    monkeypatch.chdir(PROJECT)
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, InputError)
    assert told in str(done.exception)


@pytest.mark.parametrize("stem", ["01-deviation-analysis", "02b-measures", "04-divpo"])
def test_a_chapter_that_shows_kept_results_says_where_they_are_from(stem):
    text = (PROJECT / "notebooks" / f"{stem}.md").read_text(encoding="utf-8")
    assert 'PROJECT / "results"' in text
    assert re.search(r"figures\.say\(origin\(.*is_current\(", text)


# The pages' sentences

TYPED = re.compile(
    r"\b(one|two|three|six|ten|\d+) (training )?seeds?\b|a few hundred|(?-i:MiniLM)|four ways"
    r"|\b(16|24) (held-out|prompts)",
    re.I,
)
LABELS = {"MiniLM", "tf-idf"}  # a row of the grid or a space that is called so, and no sentence about the run
TRUE_ANYWHERE = {  # sentences on what does not change with the run
    "16 prompts; seen in training by the models: 0 (samples); seen by the reward: 0",  # an example of an output
    "Here two seeds represent two",  # chapter 6 draws pairs twice
    "Semantic is tf-idf over words, style the stylometric space; MiniLM is another semantic model",  # rows of the grid
}


def sentences(notebook: Path) -> list[str]:
    """Markdown cells, and the strings of code cells; of an f-string what is not computed."""
    found = []
    for cell in jupytext.read(notebook).cells:
        if cell.cell_type == "markdown":
            found.append(cell.source)
        elif cell.cell_type == "code":
            nodes = ast.walk(ast.parse(re.sub(r"^[%!].*", "", cell.source, flags=re.M)))
            strings = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            found += [string for string in strings if string not in LABELS]
    return found


def typed_facts(text: str) -> list[str]:
    text = " ".join(text.split())
    for sentence in TRUE_ANYWHERE:
        text = text.replace(sentence, "")
    return [found[0] for found in TYPED.finditer(text)]


@pytest.mark.parametrize("notebook", sorted((PROJECT / "notebooks").glob("*.md")), ids=lambda file: file.stem)
def test_no_chapter_types_what_its_run_decides(notebook):
    facts = [fact for text in sentences(notebook) for fact in typed_facts(text)]
    assert not facts, f"{notebook.name}: computed from the run or its profile instead, as `figures.count` does: {facts}"


@pytest.mark.parametrize("page", sorted((PROJECT / "book").glob("*.md")), ids=lambda file: file.stem)
def test_no_page_types_what_a_run_decides(page):
    assert not typed_facts(page.read_text(encoding="utf-8"))


def test_readme_types_nothing_outside_its_blocks_that_a_run_decides():
    blocks = readme.read_blocks(README)
    assert not typed_facts(readme.fill(README, dict.fromkeys(blocks, "")))


@pytest.mark.parametrize("text", ["over 16 held-out prompts", "mean of 6 seeds", "One seed.", "A few hundred pairs"])
def test_a_typed_fact_is_found(text):
    assert typed_facts(text)


def test_counts_are_written_as_prose_writes_them():
    assert [figures.count(n, "seed") for n in (1, 2, 1200)] == ["one seed", "2 seeds", "1,200 seeds"]
    assert figures.space_name("minilm") == "MiniLM"
    assert figures.space_name("jina") == "jina"
