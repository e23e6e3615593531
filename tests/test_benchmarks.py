"""The benchmarks compare like with like; how fast anything is, is not tested."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks import (
    annotation,
    bfloat16_errors,
    decode_shares,
    measures,
    sampling,
    statistics,
    training,
    weights,
)
from benchmarks.measure import Row, Sample, bfloat16_works, median_and_spread, table, take_turns, timed


@pytest.mark.parametrize("shuffled", [False, True])
def test_all_contenders_give_the_same_mean_distances(shuffled):
    sizes = weights.uneven_sizes(500, 20)
    groups = weights.group_ids(sizes, shuffled)
    exact = weights.exact_distances(weights.random_vectors(len(groups), 24), groups)
    weights.check_distances("ours", weights.contender(weights.ours, sizes, 24, shuffled).result, exact, weights.EXACT)
    assert 0.1 < exact.min() < exact.max() < 0.9
    for method in (weights.in_turn, weights.in_turn_by_delete, weights.at_once):
        found = weights.contender(method, sizes, 24, shuffled).result
        weights.check_distances(method.__name__, found, exact, weights.LOOPS)
        with pytest.raises(ValueError, match="at once: mean distances differ"):
            weights.check_distances("at once", found + 4e-6, exact, weights.LOOPS)


def test_prompts_are_of_very_uneven_size_and_hold_all_responses():
    sizes = weights.uneven_sizes(421_330, 20_000)
    assert sizes.sum() == 421_330
    assert len(sizes) == 20_000
    assert sizes.min() == 2
    assert np.median(sizes) < 12
    assert sizes.max() > 1_000


def test_the_table_has_a_row_for_every_number_asked():
    asked = [row.asked for row in weights.rows(total=300, prompts=12, dims=8, flat_total=4096, repeats=1)]
    once = ["20x faster", "", "3x faster", "under 1.2x", "under 5 s", "under 3x", "time per response within 2x"]
    assert asked == once * 2


def grow(megabytes: int):
    return timed(lambda: len(np.ones(megabytes * 2**17)))


def test_contenders_take_turns_and_memory_is_what_the_work_added():
    samples = take_turns({"small": partial(grow, 1), "large": partial(grow, 400)}, repeats=2)
    assert [len(runs) for runs in samples.values()] == [2, 2]
    assert all(390 * 2**20 < sample.grown < min(sample.peak, 410 * 2**20) for sample in samples["large"])
    assert all(sample.grown < 10 * 2**20 for sample in samples["small"])


def test_a_table_says_what_was_met_and_why_not():
    assert median_and_spread([3.0, 1.0, 2.0], "{:.1f} s") == ("2.0 s", "1.0 s to 3.0 s")
    rows = [Row("a", "b", "2x", "3x", "3x to 4x", True), Row("a", "d", "2x", "1x", "1x to 1x", False, "it is slow")]
    assert table(rows).splitlines()[2:] == [
        "| a | b | 2x | 3x | 3x to 4x | yes |",
        "|  | d | 2x | 1x | 1x to 1x | no |",
        "",
        "- it is slow",
    ]


def test_the_training_benchmark_compares_like_with_like():
    """Two steps of the real model: equal losses, and tokens that are counted alike."""
    samples = {name: [one()] for name, one in training.contenders(2, 2).items() if name in ("ours", "stock")}
    samples["by length"] = samples["ours"]
    rows = training.against_stock(samples, 2, 2)
    assert [row.asked for row in rows][::2] == ["4.5x tokens/s", "half the peak memory"]
    assert rows[-1].met
    assert samples["ours"][0].result["tokens"] == samples["stock"][0].result["tokens"] > 0
    assert samples["ours"][0].result["losses"][0] == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.skipif(not bfloat16_works(), reason="the processor has no bfloat16 products")
def test_rows_on_bfloat16_compare_it_with_float32_and_stock():
    def step(tokens: int, seconds: float, peak: int, losses: list[float]) -> Sample:
        return Sample(9.0, peak * 2**30, 0, {"tokens": tokens, "seconds": seconds, "losses": losses})

    samples = {
        "ours": [step(100, 2.0, 4, [0.5, 0.25])],
        "stock": [step(100, 4.0, 8, [])],
        "bfloat16": [step(100, 1.0, 2, [0.5, 0.375])],
    }
    assert [row.measured for row in training.in_bfloat16(samples)] == [
        "2.00x (100 against 50 tokens/s)",
        "peak memory 2.00 against 4.00 GiB",
        "losses 0.1 apart at most",
        "4.00x (100 against 25 tokens/s)",
        "peak memory 2.00 against 8.00 GiB",
    ]


def test_the_parts_of_a_decoding_step_are_all_of_it():
    """Two tokens of the real model; with 64 sequences, its products take longest."""
    found = decode_shares.shares(2).result
    parts = {part: found[part] for part in decode_shares.PARTS}
    assert sum(parts.values()) == pytest.approx(1)
    assert min(parts.values()) > 0 and max(parts, key=parts.get) == "layers"
    assert found["flop"] == pytest.approx(2 * 64 * 134.5e6 / 1e9, rel=0.01)
    assert found["bytes"] == pytest.approx(4 * 134.5e6 / 1e9, rel=0.01)
    assert 0 < found["arithmetic"] < 1


def test_errors_of_bfloat16_are_measured_against_float32_in_nats():
    """Two tokens, of which the first is the prompt's; worked numbers."""
    exact = {
        "all": torch.tensor([[[0.5, 0.5]]]).log(),
        "tokens": torch.tensor([[0.5]]).log(),
        "sums": torch.tensor([-2.0]),
    }
    exact |= {"margin": 1.0, "gradient": torch.tensor([3.0, 4.0])}
    rounded = {"all": torch.tensor([[[0.25, 0.75]]]).log(), "tokens": torch.tensor([[0.25]]).log()}
    rounded |= {"sums": torch.tensor([-2.5]), "margin": 0.5, "gradient": torch.tensor([6.0, 8.0])}
    found = bfloat16_errors.compare([exact], [rounded], [torch.tensor([[False, True]])])
    assert found == pytest.approx(
        {
            "tokens": 0.5,
            "mean": math.log(0.5),
            "token": math.log(2),
            "largest": math.log(2),
            "bias": -math.log(2),
            "story": -2,
            "stories": 0.5,
            "margin": 1,
            "margins": 0.5,
            "cosine": 1,
            "norm": 1,
            "divergence": 0.5 * math.log(2) + 0.5 * math.log(2 / 3),
        }
    )


def test_the_benchmark_of_measures_has_a_row_for_every_number_asked():
    rows = measures.rows(prompts=5, words=30, part=2, repeats=1)  # it compares the values of the contenders itself
    assert [row.asked for row in rows] == ["under 180 s", "under 2 GB", ""]


def test_stories_have_as_many_words_as_asked_and_repeat_some():
    texts, groups = measures.stories(3, 200)
    assert [len(text.split()) for text in texts] == [200] * 12
    assert groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert all(50 < len(set(text.split())) < 180 for text in texts)


def test_our_intervals_and_scipys_are_of_the_same_mean():
    low, high = statistics.ours(400, 1, 4000).result
    theirs = statistics.scipy(400, 4000).result
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.008)


def test_the_statistics_table_has_the_number_asked():
    rows = statistics.rows(draws=200, prompts=30, arms=3, measures=2, repeats=1)
    assert [row.asked for row in rows] == ["under 10 s", "", ""]
    assert "10 of ours" in rows[2].against


def test_the_sampling_benchmark_has_all_write_the_same_number_of_tokens():
    """Three prompts, two tokens: of the real model, which ends no text before the limit."""
    for contender in (sampling.ours, sampling.in_turn, sampling.in_batches):
        assert contender(3, 2).result == 3 * sampling.SAMPLES * 2


def test_the_benchmark_of_annotation_prepares_and_analyses_what_it_says():
    assert annotation.prepare(6, 20).result == 6 + 2
    assert annotation.analyse(6, 2).result.startswith("12 answers of 2 annotators to 6 items")
    assert [row.asked for row in annotation.rows(prompts=5, words=20, repeats=1)] == ["under 10 s"] * 2
