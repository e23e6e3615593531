"""All measures of diversity on stories as long as the paper's, and ROUGE-L against the scorer of rouge_score.

Stories are words drawn with Zipf's frequencies. They are not real stories, but their words repeat about as often.
Vectors and scores are random and given. The time of a measure depends on the number and length of texts, and little on
their content.
"""

import itertools
import statistics
from functools import partial

import numpy as np

from benchmarks.measure import Row, Sample, median_and_spread, table, take_turns, timed
from ddpo_lib.measures import word_measures
from ddpo_lib.measures.table import N, measure

EACH = 4  # stories per prompt
DIMS = 384  # of the embedded semantic space


def rows(prompts: int = 1_000, words: int = 500, part: int = 10, repeats: int = 3) -> list[Row]:
    """The table: `prompts` prompts with four stories each, and ROUGE-L of the first `part` of them."""
    methods = {
        "all": partial(all_measures, prompts, words),
        "ours": partial(ours, part, words),
        "rouge_score": partial(theirs, part, words),
    }
    samples = take_turns(methods, repeats)
    np.testing.assert_array_equal(samples["ours"][0].result, samples["rouge_score"][0].result)

    seconds = {name: [sample.seconds for sample in runs] for name, runs in samples.items()}
    peaks = [sample.peak / 2**30 for sample in samples["all"]]
    ratios = [their / our for their, our in zip(seconds["rouge_score"], seconds["ours"], strict=True)]
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratio, spread = median_and_spread(ratios, "{:.0f}x")
    what = f"all measures of {prompts:,} prompts x {EACH} stories of {words} words, vectors given"
    return [
        Row(what, "the clock", "under 180 s", *median_and_spread(seconds["all"], "{:.1f} s"), middle["all"] < 180),
        Row(what, "memory of the process", "under 2 GB", *median_and_spread(peaks, "{:.2f} GB"), max(peaks) < 2),
        Row(
            f"ROUGE-L of {part} prompts x {EACH} stories of {words} words",
            "rouge_score's scorer on every pair, equal values",
            "",
            f"{ratio} ({middle['ours']:.3f} s against {middle['rouge_score']:.2f} s)",
            spread,
            None,
        ),
    ]


def all_measures(prompts: int, words: int) -> Sample:
    texts, groups = stories(prompts, words)
    rng = np.random.default_rng(1)
    vectors = {space: rng.normal(size=(len(texts), DIMS)).astype(np.float32) for space in ("semantic", "style")}
    scores = rng.uniform(-1, 1, len(texts))

    def work():
        vocabulary = word_measures.count_vocabulary(texts, N)
        return measure(texts, groups, vectors, scores, vocabulary=vocabulary, bar=0.0)

    return timed(work)


def ours(prompts: int, words: int) -> Sample:
    texts, groups = stories(prompts, words)
    return timed(lambda: word_measures.rouge_l(texts, groups)[1])


def theirs(prompts: int, words: int) -> Sample:
    from rouge_score.rouge_scorer import RougeScorer

    texts, _ = stories(prompts, words)
    scorer = RougeScorer(["rougeL"])

    def mean(group: list[str]) -> float:
        return np.mean([scorer.score(one, two)["rougeL"].fmeasure for one, two in itertools.combinations(group, 2)])

    return timed(lambda: [mean(texts[first : first + EACH]) for first in range(0, len(texts), EACH)])


def stories(prompts: int, words: int, kinds: int = 20_000) -> tuple[list[str], np.ndarray]:
    """Texts of so many words, the r-th most frequent of `kinds` words with probability in proportion to 1 / r."""
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, kinds + 1)
    vocabulary = np.array(["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 1 + k % 9)) for k in range(kinds)])
    drawn = rng.choice(vocabulary, (prompts * EACH, words), p=frequency / frequency.sum())
    return [" ".join(text) + "." for text in drawn], np.repeat(np.arange(prompts), EACH)


if __name__ == "__main__":
    print(table(rows()))
