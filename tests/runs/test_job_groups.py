"""Which steps share a process: each job has one, none waits for itself, and what two would make is made before both."""

import pytest
from typer.testing import CliRunner

from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.cli.main import app
from ddpo_lib.runs.job_groups import make_groups
from ddpo_lib.runs.pipeline import open_run

CASES = [(profile, cores) for profile in ("embedded", "full", "smoke", "small") for cores in (1, 2, 8)]


def before(groups: dict, name: str) -> set[str]:
    """The groups that one waits for, and those that these wait for."""
    needed = set(groups[name].needs)
    return needed.union(*(before(groups, other) for other in needed))


def made_by(run: Run, steps) -> set[str]:
    """All that the steps stand on, with themselves."""
    return set(steps).union(*(made_by(run, run.steps[step].inputs) for step in steps))


@pytest.mark.parametrize(("profile", "cores"), CASES)
def test_each_job_and_chapter_is_in_one_group(profile, cores, tmp_path):
    run = open_run(profile, folder=tmp_path)
    groups = make_groups(run, cores, apart=False)
    grouped = [step for group in groups.values() for step in group.steps]
    assert len(grouped) == len(set(grouped))
    assert {name for name, step in run.steps.items() if step.job or name.startswith("chapter-")} <= set(grouped)
    assert all(name == group.steps[0] for name, group in groups.items())


@pytest.mark.parametrize(("profile", "cores"), CASES)
def test_no_group_waits_for_itself_and_none_makes_what_another_makes_at_once(profile, cores, tmp_path):
    run = open_run(profile, folder=tmp_path)
    groups = make_groups(run, cores, apart=False)
    earlier = {name: before(groups, name) for name in groups}  # a circle would never end
    makes = {name: made_by(run, group.steps) for name, group in groups.items()}
    for artifact in set().union(*makes.values()):
        makers = {name for name in groups if artifact in makes[name]}
        assert len([name for name in makers if not earlier[name] & makers]) == 1, artifact


@pytest.mark.parametrize(("profile", "cores"), CASES)
def test_a_group_starts_before_those_that_wait_for_it_and_no_two_are_alike(profile, cores, tmp_path):
    groups = make_groups(open_run(profile, folder=tmp_path), cores, apart=False)
    for name, group in groups.items():
        assert all(groups[needed].priority > group.priority for needed in group.needs), name
        assert 1 <= group.threads <= cores
    assert len({group.priority for group in groups.values()}) == len(groups)
    assert groups["book"].threads == cores  # nothing runs beside it


def test_with_few_cores_an_arms_seeds_share_a_process_and_with_many_each_has_its_own(tmp_path):
    run = open_run("embedded", folder=tmp_path)
    few, many = make_groups(run, 2, apart=False), make_groups(run, 8, apart=False)
    assert few["samples-dpo"].steps == ("samples-dpo", "sweep-dpo", "samples-dpo-seed1", "samples-dpo-seed2")
    assert few["sft-seed1"].steps == ("sft-seed1", "samples-sft-seed1")
    assert few["samples-dpo"].needs == ("corpus", "sft", "sft-seed1", "sft-seed2", "vectors")
    assert many["samples-dpo"].steps == ("samples-dpo", "sweep-dpo")
    assert many["samples-dpo-seed1"].needs == ("corpus", "sft-seed1", "vectors")
    assert many["sft-seed1"].steps == ("sft-seed1",)
    assert len(few) < len(many)


def test_the_longest_chain_starts_first(tmp_path):
    groups = make_groups(open_run("embedded", folder=tmp_path), 2, apart=False)
    first = sorted(groups, key=lambda name: -groups[name].priority)
    assert first.index("sft-seed2") < first.index("samples-dpo") < first.index("worlds-part0")
    assert first[-1] == "book"


@pytest.mark.parametrize("profile", ["embedded", "paper"])
def test_apart_each_job_is_a_group_of_its_own_and_waits_as_the_run_says(profile, tmp_path):
    run = open_run(profile, folder=tmp_path)
    groups = make_groups(run, 8, apart=True)
    assert {name: group.steps for name, group in groups.items()} == {
        name: (name,) for name, step in run.steps.items() if step.job
    }
    assert all(list(group.needs) == run.needed_jobs(name) for name, group in groups.items())


def test_groups_of_a_small_run_by_hand(tmp_path):
    def step(name, *inputs, job=True):
        return Step(name, lambda place, run: None, inputs, job=job)

    steps = [
        step("corpus", job=False),
        step("pairs", "corpus"),
        step("vectors", "corpus", job=False),
        step("sft", "pairs"),
        step("arm-dpo", "sft", "vectors", job=False),
        step("samples-sft", "sft"),
        step("samples-dpo", "arm-dpo"),
        step("evaluation", "samples-sft", "samples-dpo"),
    ]
    groups = make_groups(Run(tmp_path, {s.name: s for s in steps}), 1, apart=False)
    assert {name: (group.steps, group.needs, group.priority) for name, group in groups.items()} == {
        "corpus": (("corpus", "pairs"), (), 5),
        "vectors": (("vectors",), ("corpus",), 3),
        "sft": (("sft", "samples-sft"), ("corpus",), 4),
        "samples-dpo": (("samples-dpo",), ("sft", "vectors"), 2),
        "evaluation": (("evaluation",), ("samples-dpo", "sft"), 1),
    }


def test_one_command_makes_several_steps_and_none_where_one_is_unknown(tmp_path):
    words = ["--profile", "smoke", "--runs", str(tmp_path)]
    done = CliRunner().invoke(app, ["make", "corpus", "no-such", *words])
    assert "no-such: no such artifact" in str(done.exception)
    assert not (tmp_path / "smoke" / "corpus").exists()
    done = CliRunner().invoke(app, ["make", "pairs", "quality", *words])
    assert done.exit_code == 0
    assert done.stdout.split() == [str(tmp_path / "smoke" / name) for name in ("pairs", "quality")]
    run = open_run("smoke", folder=tmp_path)
    assert run.is_fresh("pairs")
    assert run.is_fresh("quality")
