"""A finished run that is kept without weights and laid out again for readers."""

import json
import shutil
import time

import numpy as np
import pytest

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Run, Step, surroundings
from ddpo_lib.report import kept_run
from ddpo_lib.report.book import build
from ddpo_lib.runs.pipeline import KEPT_RUN, PROJECT, open_run


def train(folder, run):
    (folder / "trained").mkdir()
    (folder / "trained" / "model.safetensors").write_bytes(b"0" * 2**20)
    (folder / "log.json").write_text(json.dumps([{"loss": 0.5}]))


def evaluate(folder, run):
    np.save(folder / "vectors.npy", np.eye(99))
    loss = run.json("arm-dpo", "log.json")[-1]["loss"]
    (folder / "results.json").write_text(json.dumps({"loss": loss}))


def chapter(folder, run):
    (folder / "page.txt").write_text(f"loss {run.json('evaluation', 'results.json')['loss']}")


def a_run(folder, rate=0.1) -> Run:
    steps = [
        Step("arm-dpo", train, params={"rate": rate}),
        Step("evaluation", evaluate, ("arm-dpo",)),
        Step("chapter-one", chapter, ("evaluation",)),
        Step("ranking", evaluate, ("arm-dpo",)),  # which no chapter reads
    ]
    return Run(folder, {step.name: step for step in steps})


@pytest.fixture
def kept(tmp_path):
    run = a_run(tmp_path / "runs" / "embedded")
    run.path("evaluation")
    kept_run.keep(run, tmp_path / "results")
    return tmp_path / "results"


def test_weights_are_left_out_and_chapters_are_made_from_what_is_kept(kept, tmp_path):
    assert sorted(str(file.relative_to(kept)) for file in kept.rglob("*") if file.is_file()) == [
        "arm-dpo/log.json",
        "arm-dpo/manifest.json",
        "evaluation/manifest.json",
        "evaluation/results.json",
        "evaluation/vectors.npy.gz",
    ]
    run = a_run(tmp_path / "elsewhere")
    kept_run.lay_out(kept, run)
    assert (run.path("chapter-one") / "page.txt").read_text() == "loss 0.5"
    np.testing.assert_array_equal(np.load(run.path("evaluation") / "vectors.npy"), np.eye(99))
    assert sorted(file.name for file in (run.folder / "evaluation").iterdir()) == [
        "manifest.json",
        "results.json",
        "vectors.npy",
    ]
    assert not (run.folder / "arm-dpo" / "trained").exists()  # nothing was trained again


def test_every_page_says_whose_run_it_shows(kept, tmp_path):
    run = a_run(tmp_path / "elsewhere")
    kept_run.lay_out(kept, run)
    made = json.loads((kept / "evaluation" / "manifest.json").read_text())
    told = kept_run.announcement(run)
    assert f"run of {made['made']} (commit {made['commit']}" in told
    assert "make book" in told
    assert kept_run.announcement(a_run(tmp_path / "own")) is None


def test_every_page_ends_with_its_day_its_commit_its_run_and_how_to_cite_it(kept, tmp_path):
    run, own = a_run(tmp_path / "elsewhere"), a_run(tmp_path / "own")
    kept_run.lay_out(kept, run)
    own.path("evaluation")
    made = json.loads((kept / "evaluation" / "manifest.json").read_text())
    citation = tmp_path / "CITATION.cff"
    citation.write_text((PROJECT / "CITATION.cff").read_text().replace("version: 0.1.0", "version: <i>9.9</i>"))
    for shown, whose in ((run, "the maintainers&#x27; run"), (own, "your run")):
        told = kept_run.footer(shown, citation)
        assert f"Built on {time.strftime('%Y-%m-%d')} from commit {surroundings()['commit']}." in told
        assert f"are those of {whose} of {made['made']} (commit {made['commit']}, " in told
        assert made["hardware"]["processor"] in told
        assert "version &lt;i&gt;9.9&lt;/i&gt;" in told and "Chung et al. (2025)" in told and "arXiv:2503.17126" in told


@pytest.mark.parametrize("told", ["These pages show another&#x27;s run.", None])
def test_pages_show_an_announcement_if_there_is_one(told, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("_static", "references.bib"):
        place = tmp_path / "book" / name
        place.parent.mkdir(exist_ok=True)
        (shutil.copytree if (PROJECT / "book" / name).is_dir() else shutil.copy)(PROJECT / "book" / name, place)
    (tmp_path / "book" / "_toc.yml").write_text("format: jb-book\nroot: first\n")
    (tmp_path / "book" / "first.md").write_text("# First\n")
    shutil.copy(PROJECT / "_config.yml", tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "RESULTS.md").write_text("# Benchmarks\n")
    build(tmp_path, [], tmp_path / "out", {}, told, "<p>Built by somebody.</p>")
    page = (tmp_path / "out" / "_build" / "html" / "first.html").read_text()
    assert ("another&#x27;s run" in page or "another's run" in page) == (told is not None)
    assert page.count("<p>Built by somebody.</p>") == 1


def test_a_run_of_the_readers_own_is_never_replaced_or_named_the_maintainers(kept, tmp_path):
    run = a_run(tmp_path / "own")
    run.path("arm-dpo")
    with pytest.raises(InputError, match="own: holds a run of your own; give another folder with --runs"):
        kept_run.lay_out(kept, run)
    assert kept_run.is_own(run)
    assert not run.is_fresh("evaluation")


def test_a_run_of_other_settings_is_refused(kept, tmp_path):
    run = a_run(tmp_path / "elsewhere", rate=0.2)
    with pytest.raises(InputError, match=r"results: is not what this code.*\(other: arm-dpo and 1 more\).*make book"):
        kept_run.lay_out(kept, run)
    with pytest.raises(InputError, match="nothing: is not there"):
        kept_run.lay_out(tmp_path / "nothing", run)


def a_difference(mean, low=None, high=None) -> dict:
    return {"mean": mean, "low": low, "high": high}


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (0.02, "equal"),
        (0.02 + 1e-12, "equal"),
        (0.021, "inside the interval"),
        (0.05, "inside the interval"),
        (0.0501, "outside the interval"),
        (-0.02, "outside the interval"),
        (None, "without a number in one run"),
    ],
)
def test_a_readers_number_beside_the_kept_one(mean, expected):
    assert kept_run.beside(a_difference(mean), a_difference(0.02, -0.01, 0.05)) == expected


def test_an_unfinished_run_and_a_large_one_are_not_kept(kept, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="arm-dpo and 1 more missing or stale"):
        kept_run.keep(a_run(tmp_path / "empty"), tmp_path / "more")
    run = a_run(tmp_path / "runs" / "embedded")
    monkeypatch.setattr(kept_run, "MEGABYTES", 0)
    with pytest.raises(InputError, match="MB, and a kept run has at most 0"):
        kept_run.keep(run, tmp_path / "more")


def test_the_run_kept_with_the_project_is_of_this_code_and_these_settings(tmp_path):
    kept_run.lay_out(PROJECT / "results" / KEPT_RUN, open_run(KEPT_RUN, folder=tmp_path))
