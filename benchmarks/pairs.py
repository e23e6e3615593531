"""Drawing the pairs of one prompt with very many responses."""

import statistics
from functools import partial

import numpy as np

from benchmarks.measure import Row, Sample, median_and_spread, take_turns, timed


def rows(responses: int = 20_000, repeats: int = 3) -> list[Row]:
    """The table: time and memory, with scores like upvotes, of which many are equal."""
    samples = take_turns({"ours": partial(draw, responses)}, repeats)["ours"]
    what = f"drawing the pairs of one prompt with {responses:,} responses"
    seconds, grown = [sample.seconds for sample in samples], [sample.grown / 1e6 for sample in samples]
    return [
        Row(what, "the clock", "under 5 s", *median_and_spread(seconds, "{:.3f} s"), statistics.median(seconds) < 5),
        Row(what, "memory", "under 200 MB", *median_and_spread(grown, "{:.1f} MB"), max(grown) < 200),
    ]


def draw(responses: int) -> Sample:
    """The result is the number of pairs."""
    from ddpo_lib.pairs.rules import draw_rows

    scores = np.random.default_rng(0).lognormal(2.0, 1.5, responses).round()
    return timed(lambda: len(draw_rows(scores, 5, np.random.default_rng(1))[0]))
