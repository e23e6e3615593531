"""pass@k and distinct right answers: worked numbers, and the mean over all ways to draw k of n answers."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from ddpo_lib.domains import tables
from ddpo_lib.domains.checked import Checked, differ, distinct_at_k, measure, pass_at_k

ANSWERS = ["a", "a", "b", "", "", ""]  # two modes are right, three answers are wrong


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_both_estimators_are_means_over_all_draws(k):
    drawn = [{answer for answer in some if answer} for some in combinations(ANSWERS, k)]
    assert pass_at_k(6, 3, k) == pytest.approx(np.mean([bool(some) for some in drawn]))
    assert distinct_at_k(6, [2, 1], k) == pytest.approx(np.mean([len(some) for some in drawn]))


def test_worked_numbers():
    assert pass_at_k(10, 0, 5) == 0 and pass_at_k(10, 10, 1) == 1 and pass_at_k(4, 1, 4) == 1
    assert pass_at_k(5, 2, 3) == pytest.approx(1 - 1 / 10)
    assert differ([2, 1]) == pytest.approx(2 / 3)
    assert differ([4]) == 0 and differ([1, 1, 1]) == 1 and np.isnan(differ([1])) and np.isnan(differ([]))


@pytest.mark.parametrize(("answers", "right", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_counts_that_cannot_be_are_refused(answers, right, k):
    with pytest.raises(ValueError, match="expected 0 <= right"):
        pass_at_k(answers, right, k)


def test_more_right_answers_than_answers_are_refused():
    with pytest.raises(ValueError, match="counts: 3 right answers among 2"):
        distinct_at_k(2, [2, 1], 1)


def test_measures_are_means_over_tasks():
    right, wrong, unread = Checked(True, "m"), Checked(False, "x", "is 3"), Checked(False, None, "no")
    tasks = ["one", "two", "one", "two"]
    found = measure(tasks, [right, wrong, Checked(True, "n"), unread], k=2)
    assert found == {"right": 0.5, "pass_k": 0.5, "distinct": 1.0, "differ": 1.0, "unread": 0.25}
    assert np.isnan(measure(["one"], [wrong], k=1)["differ"])


def test_a_grid_is_shown_if_each_row_has_a_value_of_each_measure():
    table = pd.DataFrame({"row": ["sft", "dpo", "dpo"], **{name: [0.5, 0.5, np.nan] for name in tables.MEASURES}})
    grid = tables.DomainGrid(table, *[None] * 6)
    assert tables.can_be_shown(grid)
    assert not tables.can_be_shown(grid._replace(table=table.assign(differ=[np.nan, 0.5, 0.5])))
