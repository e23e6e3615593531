"""The study on a GPU makes everything that its results need, in order; what is kept of it is shown as it was found."""

import json
import tarfile

import pytest

from benchmarks import study
from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.profiles.profile import load_profile, swept
from ddpo_lib.report.book import ADDED, BENCHMARKS, benchmark_files
from ddpo_lib.report.results import read_studies, study_table
from ddpo_lib.runs.pipeline import open_run


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
    """A run whose artifacts are written here: an arm that gains in style, and what comes with it. Its texts come from
    a GPU, the rest from this machine."""
    axes = {"quality": value(0.5), "semantic": value(0.6), "style": value(0.7), "vendi": value(2.0)}
    changes = {name: value(0.2, p=0.002) for name in axes}
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
            {
                "arms": {"dpo": axes, "ddpo-both": axes},
                "differences": {"ddpo-both": changes},
                "seeds": {"dpo": 5, "ddpo-both": 5},
                "against": {"ddpo-both": "dpo"},
                "claims": [],
            },
        ),
        "fronts": ("fronts.json", {"spaces": fronts}),
        "samples-dpo": ("samples.json", {}),
        "sweep-dpo": ("samples.json", {}),
        "maps": ("maps.json", {}),  # which no goal stands on
    }
    inputs = {"evaluation": ("corpus", "quality", "samples-dpo"), "fronts": ("corpus", "sweep-dpo")}
    params = {"against": "dpo", "confidence": 0.95}

    def step(name):
        def write(place, run):
            write_json(place / content[name][0], content[name][1])

        return Step(name, write, inputs.get(name, ()), params)

    run = Run(folder / "gpu-study-mine", {name: step(name) for name in content})
    for name in content:
        manifest = run.path(name) / "manifest.json"
        about = json.loads(manifest.read_text()) | {"seconds": 10}
        if name.startswith(study.TEXTS):
            about |= {"made": "2026-01-02", "commit": "abc", "hardware": about["hardware"] | {"gpu": "NVIDIA H200"}}
        write_json(manifest, about)
    return run


def test_what_is_kept_of_a_run_is_its_headline_and_where_it_comes_from(tmp_path):
    run = a_run(tmp_path)
    kept = study.gather(run)
    assert set(kept["arms"]["dpo"]) == {"quality", "semantic", "style"}
    assert kept["differences"]["ddpo-both"]["style"]["p"] == 0.002
    assert (kept["corpus"], kept["against"], kept["confidence"]) == ("mine.jsonl", "dpo", 0.95)
    assert (kept["seeds"], kept["twins"]) == ({"dpo": 5, "ddpo-both": 5}, {"ddpo-both": "dpo"})
    assert kept["key"] == run.manifest("evaluation")["key"]
    assert "curves" not in kept["fronts"]["style"]


def test_a_study_was_made_where_its_texts_were_written_and_took_what_its_artifacts_took(tmp_path):
    run = a_run(tmp_path)
    kept = study.gather(run)
    wrote = run.manifest("samples-dpo")
    assert wrote["hardware"]["gpu"] == "NVIDIA H200"
    assert wrote["hardware"] != run.manifest("evaluation")["hardware"]
    assert [kept[key] for key in ("made", "commit", "versions", "hardware")] == [
        wrote[key] for key in ("made", "commit", "versions", "hardware")
    ]
    assert kept["seconds"] == 60  # six artifacts that the goals stand on, the goals among them


def texts_from_another_machine(folder):
    """A run of the profile `smoke` whose texts, people's here, are there and whose keys are those of another Python;
    with what its archive says of it."""
    run = open_run("smoke", None, folder)
    work = {"run": run.folder.name, "work": study.fingerprint("smoke", run)}
    run._keys = {name: f"another-{name}" for name in run.steps}
    corpus = run.table("corpus", "corpus.parquet")
    people = corpus[corpus["split"] == "test"]
    texts = [name for name in study.ancestors(run) if name.startswith(study.TEXTS)]
    for i, name in enumerate([*texts, "arm-dpo"]):
        (run.folder / name).mkdir()
        about = run.manifest("corpus") | {"name": name, "key": run.key(name), "seconds": 100}
        about["hardware"] = about["hardware"] | {"gpu": "NVIDIA H200"}
        write_json(run.folder / name / "manifest.json", about)
        if name in texts:
            told = people.groupby("prompt_id").sample(2, random_state=i)[["prompt_id", "prompt", "text"]]
            told["sample"] = told.groupby("prompt_id").cumcount()
            told = told.assign(tokens=50, finished=True, probability=float("nan"))
            told = told.assign(temperature=1.5) if name.startswith("sweep") else told
            told.to_parquet(run.folder / name / "samples.parquet")
    return run, work, texts


def test_a_machine_without_a_gpu_finishes_from_the_texts_of_one(tmp_path):
    run, work, texts = texts_from_another_machine(tmp_path / "lent")
    archive = tmp_path / "samples.tar.gz"
    study.pack(archive, run, work)
    options = {"profile": "smoke", "corpus": None, "runs": tmp_path / "here", "processes": 1, "archive": archive}

    here = study.study(**options, out=tmp_path / "out", until="samples")
    assert not (here / "corpus" / "corpus.parquet").exists()  # all texts are there: there was nothing to make
    with tarfile.open(archive) as tar:
        first = tar.getnames()
    study.pack(archive, open_run("smoke", None, tmp_path / "here"), work)
    with tarfile.open(archive) as tar:
        assert tar.getnames() == first  # so it goes on from machine to machine

    file = study.study(**options, out=tmp_path / "out", until="evaluation")
    kept = json.loads(file.read_text())
    assert {"gold", "sft", "dpo", "ddpo-both", "dorpo-both", "instruct"} <= set(kept["arms"])
    assert kept["hardware"]["gpu"] == "NVIDIA H200"
    assert kept["seconds"] >= 100 * (len(texts) + 1)  # those of a training too, whose model stayed behind
    assert not list(here.glob("*/trained"))

    made = {name: (here / name / "manifest.json").stat().st_mtime_ns for name in (*texts, *study.GOALS)}
    assert json.loads(study.study(**options, out=tmp_path / "again", until="evaluation").read_text()) == kept
    assert {name: (here / name / "manifest.json").stat().st_mtime_ns for name in made} == made


def test_texts_of_another_study_are_refused_and_nothing_is_lost(tmp_path):
    run = a_run(tmp_path)
    archive = tmp_path / "samples.tar.gz"
    study.pack(archive, run, {"run": "gpu-study", "work": "of old code"})
    other = Run(tmp_path / "other", run.steps)
    with pytest.raises(InputError, match=r"samples\.tar\.gz: its texts are of another run than other"):
        study.unpack(archive, other, {"run": "gpu-study", "work": "of new code"})
    assert list(other.folder.iterdir()) == []
    assert archive.exists()


def test_texts_that_are_there_need_no_training(tmp_path):
    """Of three jobs in a row the middle one is there: the first is not made again."""
    steps = {"sft": (), "samples-dpo": ("sft",), "evaluation": ("samples-dpo",)}
    run = Run(tmp_path, {name: Step(name, lambda place, run: None, inputs, job=True) for name, inputs in steps.items()})
    assert study.waves(run, ["evaluation"]) == [["sft"], ["samples-dpo"], ["evaluation"]]
    (tmp_path / "samples-dpo").mkdir()
    write_json(tmp_path / "samples-dpo" / "manifest.json", {"key": run.key("samples-dpo")})
    assert study.waves(run, ["evaluation"]) == [["evaluation"]]


def test_a_kept_study_is_shown_arm_by_arm(tmp_path):
    kept = study.gather(a_run(tmp_path))
    table = study_table(kept).set_index("arm")
    assert table.loc["DPO", "quality"] == "0.50 [0.40, 0.60]"
    assert table.loc["DPO", "style, minus that"] == table.loc["DPO", "minus"] == ""
    assert table.loc["DDPO-both", "minus"] == "DPO"
    assert table.loc["DDPO-both", "style, minus that"] == "+0.200 [+0.100, +0.300], p 0.002"
    assert table.loc["DDPO-both", "quality minus DPO at equal semantic diversity"] == "+0.300 [+0.200, +0.400]"
    assert table.loc["DDPO-both", "quality minus DPO at equal style diversity"] == "out of reach"


def test_studies_are_read_from_their_folder_and_nothing_else_is(tmp_path):
    assert read_studies(tmp_path / "gpu") == []
    for name in ("study-gpu-study.json", "study-gpu-study-mine.json", "speed.json"):
        (tmp_path / name).write_text(json.dumps({"run": name}))
    assert [kept["run"] for kept in read_studies(tmp_path)] == ["study-gpu-study-mine.json", "study-gpu-study.json"]


def test_the_page_of_benchmarks_ends_with_what_other_modules_measured_where_they_did(tmp_path):
    assert benchmark_files(tmp_path) == [tmp_path / BENCHMARKS]
    for file in ADDED[::2]:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("## Measured")
    assert benchmark_files(tmp_path) == [tmp_path / BENCHMARKS, tmp_path / ADDED[0], tmp_path / ADDED[2]]
