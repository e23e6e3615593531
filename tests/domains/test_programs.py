"""Programs: all that a corpus may have are right, those of a neighbour are wrong, and each is one mode."""

from itertools import combinations

import numpy as np
import pytest

from ddpo_lib.domains import programs
from ddpo_lib.domains.code_tasks import mode_of
from ddpo_lib.domains.programs import (
    ListTask,
    all_tasks,
    check_all,
    neighbours,
    programs_of,
    prompt_of,
    read_task,
    solve,
    ways,
    write_program,
)

TASK = ListTask("sum", "squares", "even", "over", 4)


@pytest.mark.parametrize(
    ("prompt", "numbers", "value"),
    [
        ("sum of squares of even numbers over 4", [4, 6, 7, -8], 36),
        ("list of negatives of odd numbers", [3, 2, -1], [-3, 1]),
        ("count of numbers under 1", [0, 1, -7, 5], 2),
        ("sum of doubles of numbers under 9", [], 0),
        ("list of triples of even numbers under 2", [1, 0, -2], [0, -6]),
    ],
)
def test_a_prompt_says_what_a_right_program_gives(prompt, numbers, value):
    assert solve(read_task(prompt), numbers) == value
    assert prompt_of(read_task(prompt)) == prompt


def test_each_task_has_a_prompt_of_its_own_that_is_read_back():
    every = all_tasks()
    assert [read_task(prompt_of(task)) for task in every] == list(every)
    assert len({prompt_of(task) for task in every}) == len(every) > 600
    assert all(task.parity or task.side for task in every)
    with pytest.raises(ValueError, match="expected the form"):
        read_task("sum of primes")


def test_every_program_of_every_task_is_right_and_each_is_a_mode_of_its_own():
    pairs = [(task, text) for task in all_tasks() for text in programs_of(task)]
    checked = check_all(*zip(*pairs, strict=True))
    assert [(pair, one.why) for pair, one in zip(pairs, checked, strict=True) if not one.right] == []
    modes: dict[ListTask, set] = {}
    for (task, _), one in zip(pairs, checked, strict=True):
        modes.setdefault(task, set()).add(one.mode)
    for task, found in modes.items():
        assert len(found) == len(programs_of(task)) == np.prod(ways(task)) >= 7
    assert {len(found) for found in modes.values()} == {7, 14}


def test_a_program_of_a_neighbour_is_wrong():
    tasks = [all_tasks()[i] for i in np.random.default_rng(0).permutation(len(all_tasks()))[:40]]
    pairs = [(task, write_program(other, 1, 0)) for task in tasks for other in neighbours(task)]
    checked = check_all(*zip(*pairs, strict=True))
    assert {one.why for one in checked} == {"fails a test"}
    assert all(one.mode for one in checked)


def test_neighbours_differ_in_one_part_and_in_what_they_give():
    found = {prompt_of(task) for task in neighbours(TASK)}
    assert found == {
        *(f"sum of {made}even numbers over 4" for made in ("", "doubles of ", "triples of ", "negatives of ")),
        *("sum of squares of odd numbers over 4", "sum of squares of even numbers under 4"),
        *("sum of squares of numbers over 4", "sum of squares of even numbers"),
        *("sum of squares of even numbers over 3", "list of squares of even numbers over 4"),
    }  # not "over 5", which is the same for even numbers
    assert all(len(neighbours(task)) >= 3 for task in all_tasks())
    for one, other in combinations(all_tasks()[::7], 2):
        assert (other in neighbours(one)) <= (sum(a != b for a, b in zip(one[:3], other[:3], strict=True)) <= 1)


def test_the_form_and_the_limit_are_chosen_apart():
    assert write_program(TASK, 0, 0) == "def f(xs): \n\t return sum([ x * x for x in xs if x % 2 == 0 and x > 4 ])"
    assert write_program(TASK, 0, 1) == "def f(xs): \n\t return sum([ x * x for x in xs if x % 2 == 0 and x >= 5 ])"
    loop = "t = 0\nfor x in xs:\n    if x % 2 == 0 and x > 4:\n        t += x * x\nreturn t"
    expected = mode_of("def f(xs):\n    " + loop.replace("\n", "\n    "))
    assert mode_of(write_program(TASK, 1, 0)) == expected


def test_checks_keep_the_order_and_equal_programs_are_run_once(monkeypatch):
    ran = []
    run_many = programs.run_many
    monkeypatch.setattr(programs, "run_many", lambda *given: ran.append(len(given[0])) or run_many(*given))
    right, wrong = write_program(TASK, 0, 0), write_program(TASK._replace(parity="odd"), 0, 0)
    odd = TASK._replace(parity="odd")
    found = check_all([TASK, odd, TASK, odd, TASK], [right, right, wrong, wrong, right])
    assert [one.right for one in found] == [True, False, False, True, True]
    assert ran == [4] and found[0] == found[4]
    assert check_all([TASK], ["def f(xs): return"])[0][:2] == (False, mode_of("def f(xs): return"))
    assert check_all([TASK], ["def f(xs"])[0] == (False, None, "refused: not Python: SyntaxError")
    assert check_all([], []) == []


def test_tests_have_lists_that_tell_a_limit_from_its_neighbour():
    assert len(programs.tests_of(TASK)) == len(programs.INPUTS) and programs.tests_of(TASK)[0] == ([[]], 0)
    free = [task for task in all_tasks() if not task.parity]
    values = [str([value for _, value in programs.tests_of(task)]) for task in free]
    assert len(set(values)) == len(free)  # without a parity no two limits are the same
