"""The answers to a study, once `votes` has analysed them -> the names, types and meanings of the results:
per question the win rates, tests, agreement, side bias and chance of detection, and all of them in one `Analysis`.
"""

from typing import TypedDict

from ddpo_lib.people.agreement import Agreement, Estimate


class TestedEstimate(Estimate):
    """`p` is two-sided, of 1/2; `p_corrected` after Holm over the two questions."""

    p: float | None
    p_corrected: float | None


class Exact(TestedEstimate):
    """The first arm's share of decided labels or items, with Clopper-Pearson interval and exact binomial test.

    `first`, `second`, `ties` are counts; `p_half` is of the test with every tie as half a win for each arm.
    """

    first: int
    second: int
    ties: int
    p_half: float
    p_half_corrected: float


class Side(TypedDict):
    """`left` is the crossed interval and test of choices for the left side, with a tie as half. `labels` is the exact
    test of labels, with left as `first`. Since sides are drawn per item, it can take an arm's lead for a side bias.
    `first_left`, `first_right`: the share of labels for the first arm when it is on that side."""

    left: TestedEstimate
    labels: Exact
    first_left: float | None
    first_right: float | None


class Plan(TypedDict):
    """Shares of labels for each arm, the chance that this study detects them, and the items needed for 80%."""

    first: float
    second: float
    chance: float
    needed: int | None


class Detection(TypedDict):
    """What this study can detect in one question (`two_way_intervals.detection_chance`).

    It uses this study's variance shares of items and annotators, labels per item and labels per annotator;
    `per_annotator` is None if one annotator gave all labels. The chance for the observed effect adds nothing to its p.
    Observed effects are often too large, so plan for half of the effect. `paper` is the paper's effect against the arm
    `paper_against`: DPO if that is known, else GPT-4o.
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
    """The result for one question.

    Crossed: the shares of labels, the score of the first arm (a tie is half) and its wins among decided labels. Exact:
    wins among labels, and among items by majority; an item is a tie unless more than half of its labels agree.
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
    detection: Detection


class Analysis(TypedDict):
    """The result of `votes.analyse`.

    `attentive`: both questions without the annotators who failed an attention check, whose names are `left_out`; None
    if nobody failed, or nobody is left. `time`: seconds per item, as `median`, `low` and `high` quartile; how many are
    `known`, and how many are `fast`, below `bar`. `annotators` and `items`: mappings with counts by question. An
    annotator's `without` is the score of each question without this annotator's labels.
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
