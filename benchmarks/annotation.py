"""A study with people: `human_eval.prepare` for as many prompts as the paper's, stories whole.

Stories are those of `measures.py`, words drawn with Zipf's frequencies, as long as the paper's. What is timed starts
with the imports and ends with the folder in its place.
"""

import statistics
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.measure import Row, Sample, median_and_spread, table, take_turns, timed
from benchmarks.measures import EACH, stories

ARMS = ("ddpo-both", "dpo")


def rows(prompts: int = 100, words: int = 500, repeats: int = 3) -> list[Row]:
    """The table: the time that a study takes to prepare."""
    samples = take_turns({"prepare": partial(prepare, prompts, words)}, repeats)["prepare"]
    seconds = [sample.seconds for sample in samples]
    what = f"preparing a study of {prompts} prompts, two sets of {EACH} stories of {words} words each"
    met = statistics.median(seconds) < 10
    return [Row(what, "the clock", "under 10 s", *median_and_spread(seconds, "{:.2f} s"), met)]


def prepare(prompts: int, words: int) -> Sample:
    with TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "study"
        write_run(run, prompts, words)

        def work() -> int:
            from ddpo_lib.human_eval import prepare

            sizes = {"prompts": prompts, "items": 25, "labels": 3, "checks": 2, "words": 100}
            return len(prepare(run, ARMS, out, show="whole", seed=0, **sizes)["items"])

        return timed(work)


def write_run(run: Path, prompts: int, words: int) -> None:
    """A run folder with stories of two arms."""
    texts, groups = stories(len(ARMS) * prompts, words)
    for number, arm in enumerate(ARMS):
        own = groups // prompts == number
        sample = pd.DataFrame({"prompt_id": [f"p{g % prompts:05d}" for g in groups[own]], "prompt": "A prompt."})
        sample["sample"] = sample.groupby("prompt_id").cumcount()
        sample["text"] = [text for text, is_own in zip(texts, own, strict=True) if is_own]
        (run / f"samples-{arm}").mkdir(parents=True)
        sample.to_parquet(run / f"samples-{arm}" / "samples.parquet")


if __name__ == "__main__":
    print(table(rows()))
