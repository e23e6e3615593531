"""The benchmark of large corpora: its corpus, its commands at a thousand responses, its check, and its plan."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import scale, scale_plan
from benchmarks.scale_corpus import LEAST, MOST, check_table, prompt_sizes, sample_texts, write_corpus
from ddpo_lib.base.files import read_mapping


@pytest.mark.parametrize("responses", [4, 7, 1000, 1001, 123_457])
def test_prompts_are_of_uneven_size_and_hold_all_responses(responses):
    sizes = prompt_sizes(responses, 0)
    assert sizes.sum() == responses
    assert sizes.min() >= LEAST and sizes[:-1].max(initial=0) <= MOST and sizes[-1] < MOST + LEAST
    assert responses < 1000 or 10 < np.median(sizes) < 16


def test_the_corpus_is_what_its_sizes_say_and_depends_on_the_seed(tmp_path):
    sizes = write_corpus(tmp_path / "a.jsonl", 20_000, 3)
    write_corpus(tmp_path / "b.jsonl", 20_000, 3)
    write_corpus(tmp_path / "c.jsonl", 20_000, 4)
    one, same, other = ((tmp_path / f"{name}.jsonl").read_bytes() for name in "abc")
    assert one == same != other
    prompts = list(map(json.loads, one.splitlines()))
    assert [len(prompt["responses"]) for prompt in prompts] == sizes.tolist()
    assert len({prompt["prompt"] for prompt in prompts}) == len(sizes)
    texts = [response["text"] for prompt in prompts for response in prompt["responses"]]
    assert {len(text.split()) for text in texts} == set(range(10, 21))
    assert len(set(texts)) == len(texts) == 20_000
    assert len(sample_texts(50, 3)) == 50


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A thousand responses in two parts, through the real commands."""
    folder = tmp_path_factory.mktemp("scale")
    (folder / "page.md").write_text(
        "above\n<!-- scale -->\nold\n<!-- /scale -->\n<!-- plan -->\n<!-- /plan -->\nbelow\n"
    )
    options = ["--part", "500", "--jobs", "2", "--out", folder, "--work", folder, "--page", folder / "page.md"]
    scale.main(["1000", *map(str, options)])
    return folder


def test_the_commands_are_measured_and_their_table_is_checked(measured):
    (found,) = read_mapping(measured / "scale.json")["runs"].values()
    assert (found["responses"], found["parts"], found["space"]) == (1000, 2, "delta")
    assert found["checked"]["rows"] == 1000
    assert found["checked"]["prompts"] == found["prompts"] == len(prompt_sizes(1000, 0))
    assert found["checked"]["largest_gap"] < 1e-9
    assert list(found["commands"]) == ["divide", "weights", "merge"]
    for cost in found["commands"].values():
        assert cost["core_seconds"] > 0
        assert 50 < cost["peak_mb"] < 5000
        assert 10_000 < cost["bytes"] < 1_000_000
    assert sorted(path.name for path in measured.iterdir()) == ["page.md", "scale.json"]


def test_the_page_shows_what_was_stored(measured):
    found, text = read_mapping(measured / "scale.json"), (measured / "page.md").read_text()
    assert text.startswith("above\n<!-- scale -->\nMeasured on ") and text.endswith("<!-- /plan -->\nbelow\n")
    assert scale_plan.report(found) in text and scale_plan.report_plan(found) in text
    assert "old" not in text
    assert "No run of 10,000,000 responses is stored" in text


def test_the_book_shows_what_is_stored():
    found, text = read_mapping(scale.RESULTS / "scale.json"), scale.PAGE.read_text(encoding="utf-8")
    assert found.get("plan", {}) == scale_plan.plan(found, scale_plan.PLANNED)
    assert scale_plan.report(found) in text and scale_plan.report_plan(found) in text


def test_a_command_s_memory_is_its_own_and_not_what_this_process_holds(tmp_path):
    held = np.ones(2**27)  # 1 GB
    cost = scale.run(["--help"], tmp_path)
    assert 10 < cost["peak_mb"] < held.nbytes / 2**20
    assert not list(tmp_path.iterdir())


def test_a_failing_command_says_what_it_said(tmp_path):
    with pytest.raises(RuntimeError, match=r"none.jsonl: no such file"):
        scale.run(["divide", str(tmp_path / "none.jsonl"), str(tmp_path / "parts")], tmp_path)


def write_table(path, ids: list[int], weights: list[float]):
    names = [f"p{number:05d}" for number in ids]
    columns = dict.fromkeys(("weight_semantic", "weight_style", "weight_both"), weights)
    pd.DataFrame({"prompt_id": names} | columns).to_parquet(path)
    return path


def test_a_table_is_checked_by_worked_numbers(tmp_path):
    sizes = np.array([2, 3])
    good = write_table(tmp_path / "good.parquet", [0, 0, 1, 1, 1], [0.5, 1.5, 0, 1, 2])
    assert check_table(good, sizes) == {"rows": 5, "prompts": 2, "largest_gap": 0.0}
    for ids, weights, words in (
        ([0, 0, 1, 1], [0.5, 1.5, 1, 2], "prompt 1: 2 of 3 responses"),
        ([0, 0, 1, 1, 1], [0.5, 1.5, 0, 1, 2.1], "prompt 1: 3 of 3 responses, with weights"),
        ([0, 0, 1, 1, 1], [0.5, float("nan"), 0, 1, 2], "prompt 0"),
        ([1, 0, 0, 1, 1], [0, 0.5, 1.5, 1, 2], "out of order"),
    ):
        with pytest.raises(ValueError, match=words):
            check_table(write_table(tmp_path / "bad.parquet", ids, weights), sizes)


def run_of(responses: int, parts: int, peaks: tuple[int, int, int]) -> dict:
    """A run whose commands take 36, 360 and 3.6 core-seconds per million responses."""
    costs = zip((36e-6, 360e-6, 3.6e-6), peaks, (100, 50, 40), strict=True)
    commands = [
        {"core_seconds": rate * responses, "peak_mb": peak, "bytes": size * responses} for rate, peak, size in costs
    ]
    named = dict(zip(scale_plan.STEPS, commands, strict=True))
    about = {"responses": responses, "parts": parts, "bytes": 200 * responses, "checked": {}}
    return about | {"commands": named}


def test_the_plan_follows_from_the_largest_run():
    """Worked for a thousand million responses of 200 bytes in 1000 parts, from runs of 10 and 100 parts."""
    runs = {"small": run_of(10**6, 10, (100, 500, 200)), "large": run_of(10**7, 100, (190, 510, 290))}
    runs["other"] = run_of(10**6, 1, (100, 1400, 200))
    planned = scale_plan.plan({"runs": runs, "encoders": {"slow": {"texts_per_core_second": 100}}}, 10**9)
    assert (planned["parts"], planned["measured"], planned["corpus"]) == (1000, "large", 200 * 10**9)
    steps = planned["steps"]
    assert [steps[step]["core_hours"] for step in scale_plan.STEPS] == [10, 100, 1]
    assert steps["weights"]["hours"] == {"64": 1.6, "1000": 0.1}  # 16 rounds of 0.1 hours; one round
    assert steps["divide"]["hours"] == {"64": 10, "1000": 10}  # one process
    assert steps["weights"]["peak_mb"] == 1400  # measured at 10^6 responses per part
    assert 1000 < steps["divide"]["peak_mb"] < 1100  # on a line of about 1 MB per part
    assert planned["disk"] == 390 * 10**9  # corpus, parts, shards and the table
    assert planned["encoders"] == {"slow": 2777.8}


def test_a_plan_without_a_whole_run_is_empty():
    assert scale_plan.plan({}, 10**9) == {}
    assert scale_plan.report({}).startswith("No run is stored yet")
    assert scale_plan.report_plan({"plan": {}}).startswith("There is no plan")
