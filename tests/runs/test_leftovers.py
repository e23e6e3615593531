"""What `ddpo clean` lists and removes, in a real run folder and a real cache."""

import numpy as np
import pytest
from typer.testing import CliRunner

from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.base.store import Store
from ddpo_lib.cli.main import app
from ddpo_lib.runs import leftovers
from ddpo_lib.runs.pipeline import open_run


def write(folder, run):
    (folder / "content.txt").write_text("made")


def opened(folder, *names: str, seed: int = 0) -> Run:
    return Run(folder, {name: Step(name, write, params={"seed": seed}) for name in names})


def listed(run: Run) -> dict[str, str]:
    return {str(found.path.relative_to(run.folder)): found.why for found in leftovers.of_run(run)}


def test_fresh_artifacts_and_files_of_a_user_are_none(tmp_path):
    run = opened(tmp_path / "run", "pairs", "vectors")
    for name in run.steps:
        run.path(name)
    (run.folder / "annotations" / "study").mkdir(parents=True)
    (run.folder / "notes.txt").write_text("mine")
    assert listed(run) == {}


def test_stale_artifacts_those_without_a_step_and_unfinished_ones_are(tmp_path):
    old = opened(tmp_path / "run", "pairs", "arm-dpo", "gone")
    for name in old.steps:
        old.path(name)
    now = Run(old.folder, {"pairs": old.steps["pairs"], **opened(old.folder, "arm-dpo", seed=1).steps})
    (old.folder / ".partial" / f"arm-dpo-{old.key('arm-dpo')[:12]}").mkdir()
    (old.folder / ".partial" / f"arm-dpo-{now.key('arm-dpo')[:12]}").mkdir()  # a run goes on with it
    assert listed(now) == {
        "arm-dpo": "stale",
        "gone": "the profile has no such artifact",
        f".partial/arm-dpo-{old.key('arm-dpo')[:12]}": "unfinished work that no run continues",
    }
    leftovers.remove(leftovers.of_run(now))
    assert listed(now) == {}
    assert now.is_fresh("pairs")
    assert not (old.folder / "gone").exists()
    assert (old.folder / ".partial" / f"arm-dpo-{now.key('arm-dpo')[:12]}").exists()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arrays = tmp_path / "cache" / "ddpo" / "arrays"
    for i in range(3):
        Store("vectors-1").put([(str(i), np.full(4, i))])
    (arrays / "vectors-0.sqlite").write_bytes(bytes(2_000_000))
    (arrays / "vectors-1" / "torn.partial").write_bytes(bytes(1000))
    return arrays


def test_the_command_lists_first_and_removes_with_yes(tmp_path, cache):
    run = open_run("smoke", folder=tmp_path / "runs")
    (run.folder / "no-such-step").mkdir(parents=True)
    (run.folder / "no-such-step" / "manifest.json").write_text("{}")
    command = ["clean", "--profile", "smoke", "--runs", str(tmp_path / "runs")]
    said = CliRunner().invoke(app, command).output
    assert f"{cache / 'vectors-0.sqlite'}: 2.0 MB, an earlier version's" in said
    assert "2.0 MB can be removed with --yes" in said
    assert (run.folder / "no-such-step").exists()
    CliRunner().invoke(app, [*command, "--yes"], catch_exceptions=False)
    assert sorted(path.name for path in cache.iterdir()) == ["vectors-1"]
    assert len(list((cache / "vectors-1").iterdir())) == 1
    assert {key: value[0] for key, value in Store("vectors-1").get(["0", "1", "2"]).items()} == {"0": 0, "1": 1, "2": 2}
    assert not (run.folder / "no-such-step").exists()
    assert "nothing to remove" in CliRunner().invoke(app, command).output
