"""Answers that a checker has read -> how often they are right, and how many different right answers there are."""

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb
from typing import NamedTuple

import numpy as np

ATTEMPTS = 8  # the k of pass@k and of the number of distinct right answers


class Checked(NamedTuple):
    """What a checker says of one answer."""

    right: bool  # whether the answer is correct
    mode: Hashable | None  # which answer it is, whatever its wording; None if the answer cannot be read
    why: str = ""  # what is wrong, in a few words; empty for a right answer


def pass_at_k(answers: int, right: int, k: int) -> float:
    """The chance that at least one of k answers is right, without bias (Chen et al. 2021, arXiv:2107.03374, eq. 1).

    Args:
        answers: number of answers n to one task.
        right: how many of them are right, c.
        k: at most n.

    Returns:
        1 - C(n - c, k) / C(n, k).

    Raises:
        ValueError: not 0 <= right <= answers, or not 1 <= k <= answers.
    """
    if not (0 <= right <= answers and 1 <= k <= answers):
        raise ValueError(f"expected 0 <= right <= answers and 1 <= k <= answers, got {right=}, {answers=}, {k=}")
    return 1 - comb(answers - right, k) / comb(answers, k)


def distinct_at_k(answers: int, counts: Sequence[int], k: int) -> float:
    """The expected number of different right answers among k of n answers (rarefaction, Hurlbert 1971, eq. 10).

    It is the sum of `pass_at_k` over modes, each as if it were the only right one.

    Args:
        answers: number of answers n to one task, right or wrong.
        counts: how many of them are of each right mode.
        k: at most n.
    """
    if sum(counts) > answers:
        raise ValueError(f"counts: {sum(counts)} right answers among {answers}")
    return sum(pass_at_k(answers, count, k) for count in counts)


def differ(counts: Sequence[int]) -> float:
    """The chance that two right answers to one task have different modes (Simpson 1949, without bias).

    Args:
        counts: how many right answers have each mode.

    Returns:
        NaN for fewer than two right answers.
    """
    total = sum(counts)
    if total < 2:
        return float("nan")
    return 1 - sum(count * (count - 1) for count in counts) / (total * (total - 1))


def measure(tasks: Sequence[Hashable], checked: Sequence[Checked], k: int = ATTEMPTS) -> dict[str, float]:
    """Means over tasks of what their answers are.

    Args:
        tasks: the task of each answer; a task has at least k answers.
        checked: the answers, in the same order.
        k: as in `pass_at_k`.

    Returns:
        `right`: the share of right answers, which is pass@1; `pass_k`; `distinct`: of `distinct_at_k`; `differ`: its
        mean over the tasks with two or more right answers, NaN if there are none; `unread`: the share of answers
        without a mode.
    """
    by_task: dict[Hashable, list[Checked]] = {}
    for task, one in zip(tasks, checked, strict=True):
        by_task.setdefault(task, []).append(one)
    rows = []
    for answers in by_task.values():
        counts = list(Counter(one.mode for one in answers if one.right).values())
        number, right = len(answers), sum(counts)
        unread = sum(one.mode is None for one in answers) / number
        found = (pass_at_k(number, right, k), distinct_at_k(number, counts, k), differ(counts))
        rows.append((right / number, *found, unread))
    values = np.array(rows, dtype=float)
    pairs = values[:, 3][~np.isnan(values[:, 3])]
    means = [*values[:, :3].mean(axis=0), pairs.mean() if len(pairs) else np.nan, values[:, 4].mean()]
    return dict(zip(("right", "pass_k", "distinct", "differ", "unread"), map(float, means), strict=True))
