"""The study on a GPU makes everything that its results need, in order; what is kept of it is shown as it was found."""

import json

from benchmarks import study
from ddpo_lib.book import BENCHMARKS, SPEED, benchmark_files
from ddpo_lib.kept import read_studies, study_table
from ddpo_lib.pipeline import open_run
from ddpo_lib.profiles import load_profile, swept
from ddpo_lib.runs import Run, Step, write_json


def test_every_job_comes_after_those_that_it_stands_on(tmp_path):
    run = open_run("gpu-study", None, tmp_path)
    waves = study.waves(run)
    made: set[str] = set()
    for wave in waves:
        for job in wave:
            assert set(run.needed_jobs(job)) <= made, job
        made |= set(wave)
    assert set(waves[-1]) <= set(study.GOALS) <= made
    profile = load_profile("gpu-study")
    arms = ["sft", *profile.arms]
    assert {f"samples-{arm}" + (f"-seed{seed}" if seed else "") for arm in arms for seed in range(5)} <= made
    assert {f"sweep-{arm}" for arm in swept(profile)} <= made
    assert {f"samples-{name}" for name in profile.baselines} <= made
    assert not any(job.startswith(("worlds", "chapter", "book", "maps")) for job in made)


def test_the_study_has_every_arm_of_the_paper_five_times_in_half_precision():
    profile = load_profile("gpu-study")
    paper = {method + space for method in ("ddpo", "dorpo") for space in ("-semantic", "-style", "-both")}
    assert {"dpo", "orpo", "divpo", *paper} <= set(profile.arms)
    assert (profile.seeds, profile.model.dtype) == (5, "bfloat16")
    assert profile.evaluation.temperatures
    assert profile.quality == load_profile("embedded").quality


def value(mean, **more):
    around = {"low": mean - 0.1, "high": mean + 0.1} if mean is not None else {"low": None, "high": None}
    return {"mean": mean, **around, "prompts": 16, **more}


def a_run(folder):
    """A run whose artifacts are written here: an arm that gains in style, and what comes with it."""
    axes = {"quality": value(0.5), "semantic": value(0.6), "style": value(0.7), "vendi": value(2.0)}
    changes = {name: value(0.2, p=0.001, p_corrected=0.002) for name in axes}
    matched = {"semantic": {"ddpo-both": value(0.3)}, "style": {"ddpo-both": value(None)}}
    fronts = {
        space: {"hypervolume": {}, "differences": {}, "matched": matched[space], "curves": {}}
        for space in ("semantic", "style")
    }
    content = {
        "corpus": ("report.json", {"source": "mine.jsonl"}),
        "quality": ("report.json", {"name": "stand-in", "better_than_chance": False, "within_prompt": None}),
        "evaluation": (
            "results.json",
            {"arms": {"dpo": axes, "ddpo-both": axes}, "differences": {"ddpo-both": changes}, "seeds": 5},
        ),
        "fronts": ("fronts.json", {"spaces": fronts}),
    }
    params = {"evaluation": {"against": "dpo", "confidence": 0.95}}

    def step(name):
        def write(place, run):
            write_json(place / content[name][0], content[name][1])

        return Step(name, write, params=params)

    return Run(folder / "gpu-study-mine", {name: step(name) for name in content})


def test_what_is_kept_of_a_run_is_its_headline_and_where_it_comes_from(tmp_path):
    run = a_run(tmp_path)
    kept = study.gather(run)
    assert set(kept["arms"]["dpo"]) == {"quality", "semantic", "style"}
    assert kept["differences"]["ddpo-both"]["style"]["p_corrected"] == 0.002
    assert (kept["corpus"], kept["seeds"], kept["against"], kept["confidence"]) == ("mine.jsonl", 5, "dpo", 0.95)
    manifest = run.manifest("evaluation")
    assert {key: kept[key] for key in ("key", "versions", "hardware")} == {
        key: manifest[key] for key in ("key", "versions", "hardware")
    }
    assert "curves" not in kept["fronts"]["style"]


def test_a_kept_study_is_shown_arm_by_arm(tmp_path):
    kept = study.gather(a_run(tmp_path))
    table = study_table(kept).set_index("arm")
    assert table.loc["DPO", "quality"] == "0.50 [0.40, 0.60]"
    assert table.loc["DPO", "style minus DPO"] == ""
    assert table.loc["DDPO-both", "style minus DPO"] == "+0.200 [+0.100, +0.300], p 0.002"
    assert table.loc["DDPO-both", "quality minus DPO at equal semantic diversity"] == "+0.300 [+0.200, +0.400]"
    assert table.loc["DDPO-both", "quality minus DPO at equal style diversity"] == "out of reach"


def test_studies_are_read_from_their_folder_and_nothing_else_is(tmp_path):
    assert read_studies(tmp_path / "gpu") == []
    for name in ("study-gpu-study.json", "study-gpu-study-mine.json", "speed.json"):
        (tmp_path / name).write_text(json.dumps({"run": name}))
    assert [kept["run"] for kept in read_studies(tmp_path)] == ["study-gpu-study-mine.json", "study-gpu-study.json"]


def test_the_page_of_benchmarks_ends_with_those_of_a_gpu_where_there_are_any(tmp_path):
    assert benchmark_files(tmp_path) == [tmp_path / BENCHMARKS]
    (tmp_path / SPEED).parent.mkdir(parents=True)
    (tmp_path / SPEED).write_text("## On a GPU")
    assert benchmark_files(tmp_path) == [tmp_path / BENCHMARKS, tmp_path / SPEED]
