"""Answers of annotators -> win rates, tests, agreement, side bias, power (paper, human evaluation).

The table of answers has a row an annotator and item: `item prompt_id annotator first_side quality quality_side story
diversity diversity_side seconds attention passed` (`answers.read_answers`, `judge.judge`). `first` and `second` are
the study's two arms in the order of its key; a tie is "hard to decide". Attention checks count in no result.

Which interval has which property:

- *Crossed* ones (`two_way_intervals.crossed_ratio`) are the main ones: for other items and other annotators.
`two_way_intervals` says how
  often they hold the truth, and where they fail.
- *Exact* ones (Clopper and Pearson 1934) hold it at least as often as they say, and so more often where there are few,
  if what they count is independent, and labels are not: of 100 items with 3 labels, where items have 30% of the latent
  variance and annotators 10%, 95% intervals from labels hold the truth in 72 to 87% of 2,000 simulated studies a case.
  Those from majority votes are of another number, the share of items won, and take labels of one item for what they
  are, but not those of one annotator: 84 to 98% there, 96 to 99% where annotators do not differ.
- That of Krippendorff's alpha is over items alone: 94% there, and 84 to 89% where nine in ten labels are alike.

What the paper tested, and whether its percentages are of labels or of items, is not at hand. Here tests are two-sided:
the t test behind the crossed interval, the exact binomial test of decided labels and of decided items, and these two
once more with every tie as half a win. For each of them p is corrected over the two questions (Holm).
"""

from typing import TypedDict

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.stats import holm, plain
from ddpo_lib.evaluation.published import published
from ddpo_lib.people.agreement import CODES, Agreement, Estimate, agreement, count_labels, majority
from ddpo_lib.people.two_way_intervals import crossed_ratio, label_load, needed_items, power, variance_shares

QUESTIONS = ("quality", "diversity")
FAST = 1 / 3  # of the median time: below, an answer counts as suspiciously fast


class TestedEstimate(Estimate):
    """`p` is two-sided, of 1/2; `p_corrected` after Holm over the two questions."""

    p: float | None
    p_corrected: float | None


class Exact(TestedEstimate):
    """Wins of the first arm among what is decided, with the Clopper-Pearson interval and the exact binomial test.

    `first`, `second`, `ties` are counts; `p_half` is the test with every tie as half a win for either.
    """

    first: int
    second: int
    ties: int
    p_half: float
    p_half_corrected: float


class Side(TypedDict):
    """`left` is the crossed interval and test of choices for the left, a tie as half: sides are drawn by item, so that
    the exact test of labels, `labels` (its first is left), can call an arm's lead a bias. `first_left`, `first_right`:
    the share of labels for the first arm where it stood there."""

    left: TestedEstimate
    labels: Exact
    first_left: float | None
    first_right: float | None


class Plan(TypedDict):
    """Shares of labels for either arm, the power that this study had for them, and the items that give 80%."""

    first: float
    second: float
    power: float
    needed: int | None


class Power(TypedDict):
    """From the variance shares of item and annotator, the labels an item and the load of an annotator that this study
    had (`two_way_intervals.power`), for one question by itself; `per_annotator` is None where one gave all.

    Power for what was seen says no more than its p does; half of it is what to plan for, since what is seen is often
    too large. `paper` is the paper's effect against the arm `paper_against`: DPO where that is known, else GPT-4o.
    """

    item: float
    annotator: float
    labels: float
    per_annotator: float | None
    seen: Plan
    half: Plan
    paper: Plan
    paper_against: str


class Question(TypedDict):
    """Shares of labels, the score of the first arm (a tie is half) and its wins among decided labels, all crossed;
    exact ones of labels, and of items by majority, where an item is a tie unless more than half of its labels agree.
    """

    first: Estimate
    second: Estimate
    tie: Estimate
    score: TestedEstimate
    wins: TestedEstimate
    labels: Exact
    items: Exact
    agreement: Agreement
    side: Side
    power: Power


class Analysis(TypedDict):
    """What `analyse` returns. `attentive` is both questions again without the annotators who failed an attention check,
    whose names are `left_out`; None where nobody failed, or nobody is left.

    `time`: seconds an item, `median`, `low` and `high` quartile, how many are `known`, and how many `fast`, under
    `bar`. `annotators` and `items`: a mapping each, with counts by question; an annotator's `without` is the score of
    each question without that annotator's labels.
    """

    answers: int
    annotators: list[dict]
    items: list[dict]
    prompts: int
    confidence: float
    draws: int
    seed: int
    quality: Question
    diversity: Question
    attentive: dict | None
    attention: dict
    time: dict


def analyse(answers: pd.DataFrame, *, draws: int, confidence: float, seed: int) -> Analysis:
    """Everything that a study can say, as JSON takes it; see this module's docstring for methods.

    Args:
        answers: a row an annotator and item, with the columns of this module's docstring. A judge that was asked in
            both orders has two.
        draws: of items, for the interval of alpha.
        confidence: of all intervals; tests and power are at 1 - confidence.
        seed: of the draws.

    Raises:
        InputError: no answer to a real item.
    """
    checks = answers["attention"].astype(bool)
    real = answers[~checks].reset_index(drop=True)
    if real.empty:
        raise InputError(f"answers: {len(answers)} rows, and no complete answer to a real item among them")
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
    """Wins among what is decided, with the Clopper-Pearson interval and two exact tests; the fields of `Exact`.

    Half wins that do not come out whole are rounded towards no difference.
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
        "power": _power(choices, *groups, question, confidence),
    }


def _crossed(parts, wholes, items, annotators, confidence: float) -> dict:
    found = crossed_ratio(parts, wholes, items, annotators, confidence=confidence)
    return {name: float(value) for name, value in found._asdict().items()}


def _tally(choices: np.ndarray) -> tuple[int, int, int]:
    return tuple(int((choices == code).sum()) for code in (1, -1, 0))


def _power(choices: np.ndarray, items: np.ndarray, annotators: np.ndarray, question: str, confidence: float) -> dict:
    number = len(np.unique(items))
    spread = variance_shares((1 + choices) / 2, items, annotators)
    design = {"labels": len(choices) / number, "per_annotator": label_load(annotators), "confidence": confidence}

    def plan(first: float, second: float) -> dict:
        had = float(power(first, second, spread, items=number, **design))
        return {"first": first, "second": second, "power": had, "needed": needed_items(first, second, spread, **design)}

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
