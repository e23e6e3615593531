"""A study with people of the paper's size: `human_eval.prepare` with stories whole, `votes.analyse` of all answers.

Stories are those of `measures.py`: words drawn with Zipf's frequencies, as long as the paper's. Answers are simulated.
The time starts with the library's imports. It ends when the folder is written, or the text for the terminal is ready.
"""

import statistics
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from benchmarks.measure import Row, Sample, median_and_spread, table, take_turns, timed
from benchmarks.measures import EACH, stories

ARMS = ("ddpo-both", "dpo")


def rows(prompts: int = 100, words: int = 500, labels: int = 3, repeats: int = 3) -> list[Row]:
    """The table: the time to prepare a study, and the time to analyse its answers."""
    contenders = {"prepare": partial(prepare, prompts, words), "analyse": partial(analyse, prompts, labels)}
    whats = {
        "prepare": f"preparing a study of {prompts} prompts, two sets of {EACH} stories of {words} words each",
        "analyse": f"analysing {labels} labels of each of {prompts} items, 25 an annotator",
    }
    found = []
    for name, samples in take_turns(contenders, repeats).items():
        seconds = [sample.seconds for sample in samples]
        met = statistics.median(seconds) < 10
        found.append(Row(whats[name], "the clock", "under 10 s", *median_and_spread(seconds, "{:.2f} s"), met))
    return found


def prepare(prompts: int, words: int) -> Sample:
    with TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "study"
        write_run(run, prompts, words)

        def work() -> int:
            from ddpo_lib.people.human_eval import prepare

            sizes = {"prompts": prompts, "items": 25, "labels": 3, "checks": 2, "words": 100}
            return len(prepare(run, ARMS, out, show="whole", seed=0, **sizes)["items"])

        return timed(work)


def analyse(items: int, labels: int) -> Sample:
    def work() -> str:
        from ddpo_lib.people.simulated_votes import simulate
        from ddpo_lib.people.vote_report import describe
        from ddpo_lib.people.votes import analyse
        from ddpo_lib.profiles.profile import load_profile

        evaluation = load_profile("embedded").evaluation
        answers = simulate(items=items, labels=labels, per_annotator=min(25, items), seed=0)
        settings = {"draws": evaluation.bootstrap, "confidence": evaluation.confidence, "seed": 0}
        return describe(analyse(answers, **settings))

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
