"""Answers of annotators -> win rates, tests, agreement, side bias, chance of detection (paper, human evaluation).

The table of answers has one row per annotator and item: `item prompt_id annotator first_side quality quality_side story
diversity diversity_side seconds attention passed` (`answers.read_answers`, `judge.judge`). `first` and `second` are
the study's two arms in the order of its key; a tie is "hard to decide". Attention checks count in no result.

There are three kinds of intervals:

- *Crossed* intervals (`two_way_intervals.crossed_ratio`) are the main ones. They generalise to other items and
  annotators. `two_way_intervals` says how often they contain the truth, and where they fail.
- *Exact* intervals (Clopper and Pearson 1934) contain the truth at least as often as stated, if the counts are of
  independent events. Labels are not independent. The case simulated here is 100 items with 3 labels, where items have
  30% of the latent variance and annotators 10%. 95% intervals from labels then contain the truth in 72 to 87% of 2,000
  studies per case. Intervals from majority votes are for another number, the share of items won. They allow for the
  dependence of labels of one item, but not of one annotator. They contain the truth in 84 to 98%, and in 96 to 99% if
  annotators do not differ.
- The interval of Krippendorff's alpha is over items alone. It contains the truth in 94% in the same case, and in 84 to
  89% if nine in ten labels are equal.

It is not known which tests the paper used, nor whether its percentages are of labels or of items. Tests here are
two-sided: the t test of the crossed interval; the exact binomial tests of decided labels and of decided items; and
these two again with every tie as half a win. For each test, p is corrected over the two questions (Holm).
"""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import plain
from ddpo_lib.evaluation.published import published
from ddpo_lib.people.agreement import CODES, agreement, count_labels, majority
from ddpo_lib.people.two_way_intervals import crossed_ratio, detection_chance, label_load, needed_items, variance_shares
from ddpo_lib.people.vote_results import Analysis
from ddpo_lib.statistics.intervals import holm

QUESTIONS = ("quality", "diversity")
FAST = 1 / 3  # of the median time; a faster answer counts as suspicious


def analyse(answers: pd.DataFrame, *, draws: int, confidence: float, seed: int) -> Analysis:
    """The complete analysis of a study, as JSON values; this module's docstring describes the methods.

    Args:
        answers: one row per annotator and item, with the columns of this module's docstring; a judge that was asked in
            both orders has two rows per item.
        draws: bootstrap draws of items, for the interval of alpha.
        confidence: of all intervals; tests and chances of detection are at 1 - confidence.
        seed: of the draws.

    Raises:
        InputError: no item besides attention checks has an answer.
    """
    checks = answers["attention"].astype(bool)
    real = answers[~checks].reset_index(drop=True)
    if real.empty:
        raise InputError(f"answers: {len(answers)} rows, and no complete answer to a real item; collect answers first")
    failed = answers[checks & ~answers["passed"].fillna(True).astype(bool)]
    inattentive = sorted(failed["annotator"].unique())
    settings = {"draws": draws, "confidence": confidence, "seed": seed}
    kept = real[~real["annotator"].isin(inattentive)]
    bar = FAST * real["seconds"].median()
    return plain(
        {
            "answers": len(real),
            "prompts": real["prompt_id"].nunique(),
            **settings,
            **_questions(real, **settings),
            "attentive": {"left_out": inattentive, **_questions(kept, **settings)}
            if inattentive and len(kept)
            else None,
            "attention": {"checks": int(checks.sum()), "failed": len(failed), "annotators": inattentive},
            "time": {
                "median": real["seconds"].median(),
                "low": real["seconds"].quantile(0.25),
                "high": real["seconds"].quantile(0.75),
                "known": int(real["seconds"].notna().sum()),
                "fast": int((real["seconds"] < bar).sum()),
                "bar": bar,
            },
            "annotators": [
                _annotator(name, real, answers[checks & (answers["annotator"] == name)], bar)
                for name in sorted(real["annotator"].unique())
            ],
            "items": [_item(name, rows) for name, rows in real.groupby("item", sort=True)],
        }
    )


def exact(first: int, second: int, ties: int, *, confidence: float) -> dict:
    """The first's share of decided labels or items, with Clopper-Pearson interval and two tests; the fields of `Exact`.

    If ties as half wins give a fractional count, it is rounded towards no difference.
    """
    decided, total = first + second, first + second + ties
    interval = binomtest(first, decided).proportion_ci(confidence) if decided else None
    return {
        "first": int(first),
        "second": int(second),
        "ties": int(ties),
        "mean": first / decided if decided else None,
        "low": interval.low if decided else None,
        "high": interval.high if decided else None,
        "p": binomtest(first, decided).pvalue if decided else None,
        "p_half": binomtest(max(first, second) + ties // 2, total).pvalue if total else None,
    }


# Parts of an analysis


def _questions(answers: pd.DataFrame, **settings) -> dict[str, dict]:
    """Both questions, with p corrected over them."""
    found = {question: _question(answers, question, **settings) for question in QUESTIONS}
    for part in ("score", "wins", "labels", "items"):
        for p in ("p", "p_half") if part in ("labels", "items") else ("p",):
            raw = [found[question][part][p] for question in QUESTIONS]
            corrected = holm(np.array([np.nan if value is None else value for value in raw]))
            for question, value in zip(QUESTIONS, corrected.tolist(), strict=True):
                found[question][part][f"{p}_corrected"] = value
    return found


def _question(answers: pd.DataFrame, question: str, *, draws: int, confidence: float, seed: int) -> dict:
    choices = answers[question].map(CODES).to_numpy()
    to_left = answers[f"{question}_side"].map({"left": 1, "right": -1, "tie": 0}).to_numpy()
    groups = answers["item"].to_numpy(), answers["annotator"].to_numpy()
    crossed = {kind: _crossed(choices == code, 1.0, *groups, confidence) for kind, code in CODES.items()}
    won = majority(answers, question).to_numpy()
    stood_left = (answers["first_side"] == "left").to_numpy()
    return {
        **{kind: {end: value[end] for end in ("mean", "low", "high")} for kind, value in crossed.items()},
        "score": _crossed((1 + choices) / 2, 1.0, *groups, confidence),
        "wins": _crossed(choices == 1, choices != 0, *groups, confidence),
        "labels": exact(*_tally(choices), confidence=confidence),
        "items": exact(*_tally(won), confidence=confidence),
        "agreement": agreement(
            count_labels(answers, question).to_numpy(), draws=draws, confidence=confidence, seed=seed
        ),
        "side": {
            "left": _crossed((1 + to_left) / 2, 1.0, *groups, confidence),
            "labels": exact(*_tally(to_left), confidence=confidence),
            **{
                f"first_{name}": float((choices[where] == 1).mean()) if where.any() else None
                for name, where in (("left", stood_left), ("right", ~stood_left))
            },
        },
        "detection": _detection(choices, *groups, question, confidence),
    }


def _crossed(parts, wholes, items, annotators, confidence: float) -> dict:
    found = crossed_ratio(parts, wholes, items, annotators, confidence=confidence)
    return {name: float(value) for name, value in found._asdict().items()}


def _tally(choices: np.ndarray) -> tuple[int, int, int]:
    return tuple(int((choices == code).sum()) for code in (1, -1, 0))


def _detection(
    choices: np.ndarray, items: np.ndarray, annotators: np.ndarray, question: str, confidence: float
) -> dict:
    number = len(np.unique(items))
    spread = variance_shares((1 + choices) / 2, items, annotators)
    design = {"labels": len(choices) / number, "per_annotator": label_load(annotators), "confidence": confidence}

    def plan(first: float, second: float) -> dict:
        chance = float(detection_chance(first, second, spread, items=number, **design))
        return {
            "first": first,
            "second": second,
            "chance": chance,
            "needed": needed_items(first, second, spread, **design),
        }

    first, second = float((choices == 1).mean()), float((choices == -1).mean())
    middle, quarter = (first + second) / 2, (first - second) / 4
    reported = published()["human_evaluation"]
    against = "dpo" if reported["dpo"][question] else "gpt-4o"
    return {
        "item": spread.item,
        "annotator": spread.annotator,
        "labels": design["labels"],
        "per_annotator": design["per_annotator"],
        "seen": plan(first, second),
        "half": plan(middle + quarter, middle - quarter),
        "paper": plan(*(share / 100 for share in reported[against][question])),
        "paper_against": against,
    }


def _annotator(name: str, real: pd.DataFrame, checks: pd.DataFrame, bar: float) -> dict:
    own, others = real[real["annotator"] == name], real[real["annotator"] != name]
    sides = pd.concat([own[f"{question}_side"] for question in QUESTIONS])
    decided = sides[sides != "tie"]
    return {
        "annotator": name,
        "answers": len(own),
        **{
            q: dict(zip(("first", "second", "ties"), _tally(own[q].map(CODES).to_numpy()), strict=True))
            for q in QUESTIONS
        },
        "left": float((decided == "left").mean()) if len(decided) else None,
        "seconds": own["seconds"].median(),
        "fast": int((own["seconds"] < bar).sum()),
        "checks": len(checks),
        "failed": int((~checks["passed"].fillna(True).astype(bool)).sum()),
        "without": {q: float((1 + others[q].map(CODES)).mean() / 2) if len(others) else None for q in QUESTIONS},
    }


def _item(name: str, rows: pd.DataFrame) -> dict:
    found = {"item": name, "prompt_id": rows["prompt_id"].iloc[0], "labels": len(rows)}
    for question in QUESTIONS:
        tally = np.array(_tally(rows[question].map(CODES).to_numpy()))
        pairs = len(rows) * (len(rows) - 1)
        agreed = float((tally * (tally - 1)).sum() / pairs) if pairs else None
        found[question] = {
            "first": tally[0].item(),
            "second": tally[1].item(),
            "ties": tally[2].item(),
            "agreement": agreed,
        }
    return found
