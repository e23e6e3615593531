"""Answers of annotators -> win rates, tests, agreement, side bias, power (paper, human evaluation).

The table of answers has a row an annotator and item: `item prompt_id annotator first_side quality quality_side story
diversity diversity_side seconds attention passed` (`human_eval.read_answers`, `judge.judge`). `first` and `second` are
the study's two arms in the order of its key; a tie is "hard to decide". Attention checks count in no result.

Which interval has which property:

- *Crossed* ones (`crossed.crossed_ratio`) are the main ones: for other items and other annotators. `crossed` says how
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
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from ddpo_lib.agreement import CODES, Agreement, Estimate, agreement, count_labels, majority
from ddpo_lib.crossed import POWER, Spread, crossed_ratio, label_load, needed_items, power, variance_shares
from ddpo_lib.errors import InputError
from ddpo_lib.published import published
from ddpo_lib.stats import holm, plain

QUESTIONS = ("quality", "diversity")
STORIES = 4  # of each arm on a page
FAST = 1 / 3  # of the median time: below, an answer counts as suspiciously fast
SECONDS = 90.0  # that simulated annotators take, median
ALIKE, DIFFERENT = Spread(0.0, 0.0), Spread(0.3, 0.1)  # simulated items and annotators


class Tested(Estimate):
    """`p` is two-sided, of 1/2; `p_corrected` after Holm over the two questions."""

    p: float | None
    p_corrected: float | None


class Exact(Tested):
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

    left: Tested
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
    had (`crossed.power`), for one question by itself; `per_annotator` is None where one gave all.

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
    score: Tested
    wins: Tested
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


def describe(analysis: Analysis) -> str:
    """An analysis as text for a terminal."""
    from ddpo_lib.wording import interval, name, p_value

    confidence = f"{analysis['confidence']:.0%}"
    over = "over items and annotators" if len(analysis["annotators"]) > 1 else "over items, for this one annotator,"
    lines = [
        f"{analysis['answers']} answers of {len(analysis['annotators'])} annotators to {len(analysis['items'])} items; "
        f"[{confidence} intervals], {over} where not said otherwise; p two-sided, then after Holm"
    ]

    def tested(found: dict, p: str = "p") -> str:
        return f"p {p_value(found[p]) or '—'}, {p_value(found[f'{p}_corrected']) or '—'}"

    for question in QUESTIONS:
        found = analysis[question]
        agreed, side, plans = found["agreement"], found["side"], found["power"]
        lines.append(f"\n{question}")
        lines += [f"  {kind:<32}{interval(found[kind])}" for kind in ("first", "second", "tie")]
        lines.append(f"  {'first, a tie as half':<32}{interval(found['score'])}   {tested(found['score'])}")
        lines.append(f"  {'first, of decided labels':<32}{interval(found['wins'])}   {tested(found['wins'])}")
        for level in ("labels", "items"):
            one = found[level]
            rates = f"{one['first']} / {one['second']} / {one['ties']} ties, {interval(one)} exact"
            lines.append(f"  {'by ' + level:<32}{rates}   {tested(one)}; ties as half wins {tested(one, 'p_half')}")
        pairs = "—" if agreed["pairs"] is None else f"{agreed['pairs']:.0%}"
        lines.append(
            f"  {'agreement':<32}alpha {interval(agreed['alpha'], 2)}, {pairs} of pairs; items: {agreed['unanimous']} "
            f"unanimous, {agreed['majority']} by majority, {agreed['neither']} neither"
        )
        lines.append(
            f"  {'left side, a tie as half':<32}{interval(side['left'])}   p {p_value(side['left']['p']) or '—'}"
        )
        paper = f"the paper's ({name(plans['paper_against'])})"
        for part, said in (("seen", "what was seen"), ("half", "half of it"), ("paper", paper)):
            plan = plans[part]
            needed = "more items than can be planned" if plan["needed"] is None else f"{plan['needed']} items"
            shares = f"{plan['first']:.0%} / {plan['second']:.0%}"
            lines.append(f"  {'power for ' + said:<32}{shares}: {plan['power']:.0%}; {needed} for {POWER:.0%}")
    return "\n".join([*lines, "", *_describe_annotators(analysis)])


def _describe_annotators(analysis: Analysis) -> list[str]:
    from ddpo_lib.wording import interval

    time, attention = analysis["time"], analysis["attention"]
    lines = []
    if time["known"]:
        lines.append(
            f"time: median {time['median']:.0f} s an item, quartiles {time['low']:.0f} and {time['high']:.0f}; "
            f"{time['fast']} of {time['known']} under {time['bar']:.0f} s"
        )
    lines.append(f"attention checks: {attention['failed']} of {attention['checks']} failed")
    if analysis["attentive"]:
        said = "; ".join(f"{q} {interval(analysis['attentive'][q]['score'])}" for q in QUESTIONS)
        lines.append(f"  without {', '.join(attention['annotators'])}: first, a tie as half: {said}")
    lines.append(
        f"{'annotator':<24}{'answers':>8}" + "".join(f"{q + ' f/s/t':>20}" for q in QUESTIONS) + f"{'left':>7}{'s':>6}"
    )
    for one in analysis["annotators"]:
        votes = "".join(f"{one[q]['first']:>12}/{one[q]['second']}/{one[q]['ties']}".rjust(20) for q in QUESTIONS)
        left = "" if one["left"] is None else f"{one['left']:.0%}"
        seconds = "" if one["seconds"] is None else f"{one['seconds']:.0f}"
        lines.append(f"{one['annotator'][:23]:<24}{one['answers']:>8}{votes}{left:>7}{seconds:>6}")
    return lines


# Simulated annotators


def assign(items: int, labels: int, per_annotator: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which item and which annotator each label is of: items at random, none twice to one annotator.

    Args:
        items: numbered from 0.
        labels: an item.
        per_annotator: items that an annotator answers, no more than there are; the last may get fewer.

    Returns:
        Two (items * labels,) integer arrays.
    """
    rng = np.random.default_rng(seed)
    order = np.empty(0, dtype=int)
    for _ in range(labels):
        open_batch = order[len(order) - len(order) % per_annotator :]
        round_ = rng.permutation(items)
        order = np.concatenate([order, round_[np.argsort(np.isin(round_, open_batch), kind="stable")]])
    return order, np.arange(len(order)) // per_annotator


def simulate_choices(
    first: float,
    second: float,
    items: np.ndarray,
    annotators: np.ndarray,
    *,
    spread: Spread = ALIKE,
    left: np.ndarray | None = None,
    side: float = 0.0,
    studies: int = 1,
    seed: int,
) -> np.ndarray:
    """Choices of annotators whose preference is known, by an ordered probit model.

    A label's latent preference is normal with variance 1, of which items and annotators have `spread`; it is a choice
    of the first arm above one threshold, of the second below another, and a tie between them. Over items, annotators
    and sides, a label is the first arm's with probability `first`, and the second's with `second`.

    Args:
        first, second: probabilities.
        items, annotators: (labels,), as `assign` gives them.
        spread: shares of the latent variance.
        left: (labels,) whether the first arm stands left.
        side: what standing left adds to the latent preference for an arm.
        studies: independent ones, with items and annotators of their own.
        seed: of the draws.

    Returns:
        (studies, labels) of 1 first, -1 second, 0 tie.
    """
    rng = np.random.default_rng(seed)
    parts = (
        np.sqrt(share) * rng.standard_normal((studies, codes.max() + 1))[:, codes]
        for share, codes in zip(spread, (items, annotators), strict=True)
    )
    shift = side * np.where(left, 1.0, -1.0) if left is not None else 0.0
    own = np.sqrt(1 - sum(spread)) * rng.standard_normal((studies, len(items)))
    latent = sum(parts, own) + shift
    return (latent > _threshold(first, side)).astype(int) - (latent < -_threshold(second, side))


def simulate(
    *,
    items: int = 100,
    labels: int = 3,
    per_annotator: int = 25,
    quality: tuple[float, float] = (0.45, 0.45),
    diversity: tuple[float, float] = (0.62, 0.26),
    spread: Spread = DIFFERENT,
    side: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """A table of answers as a study gives it, of simulated annotators; never to be shown as people's.

    Args:
        items, labels, per_annotator: of the study.
        quality, diversity: probabilities of a label for the first and for the second arm; the rest are ties.
        spread, side: as in `simulate_choices`, alike for both questions.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    item, annotator = assign(items, labels, per_annotator, seed=seed)
    left = (rng.random(items) < 0.5)[item]
    table = pd.DataFrame(
        {
            "item": [f"item-{i:04d}" for i in item],
            "prompt_id": [f"prompt-{i:04d}" for i in item],
            "annotator": [f"simulated-{a:03d}" for a in annotator],
            "first_side": np.where(left, "left", "right"),
        }
    )
    names = np.array(["tie", "first", "second"])  # by code, -1 from the end
    for question, rates in zip(QUESTIONS, (quality, diversity), strict=True):
        drawn = {"spread": spread, "left": left, "side": side, "seed": int(rng.integers(2**31))}
        (choices,) = simulate_choices(*rates, item, annotator, **drawn)
        table[question] = names[choices]
        table[f"{question}_side"] = np.where(choices == 0, "tie", np.where((choices > 0) == left, "left", "right"))
    place = pd.Series(rng.integers(1, STORIES + 1, len(table)), dtype="Int64")
    place += STORIES * (table["quality_side"] == "right")
    table.insert(6, "story", place.mask(table["quality"] == "tie"))
    table["seconds"] = SECONDS * np.exp(0.5 * rng.standard_normal(len(table)))
    table["attention"] = False
    table["passed"] = pd.array([pd.NA] * len(table), dtype="boolean")
    return table


def _threshold(share: float, side: float) -> float:
    """Where a normal variable, shifted up by `side` in half of all cases and down in the others, has `share` above."""
    if side == 0 or share in (0, 1):
        return float(norm.isf(share))
    edge = abs(norm.isf(share)) + abs(side) + 1
    return brentq(lambda at: (norm.sf(at - side) + norm.sf(at + side)) / 2 - share, -edge, edge)


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
