"""Expressions: right or wrong to the last digit, one mode for all their orders and brackets, and no mode left out."""

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest

from ddpo_lib.domains.arithmetic import (
    LONGEST,
    Task,
    Unreadable,
    check,
    forms,
    near_misses,
    numbers_of,
    read,
    solutions,
    value,
    write,
)

TASK = Task((2, 3, 4, 7), 13)


@pytest.mark.parametrize("text", ["2 * 3 + 7", "7+(3*2)", "(7) + 3 * 2", " ( ( 2*3 )+7 ) ", "2 + 4 + 7"])
def test_a_right_answer_is_right(text):
    assert check(TASK, text)[::2] == (True, "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2 * 3 + 4", "is 10"),
        ("7 / 2", "is 7/2"),
        ("6 + 7", "uses other numbers"),
        ("7 + 7 - 3 + 2", "uses other numbers"),  # each number once
        ("13", "uses other numbers"),
        ("7 / ( 3 + 4 - 7 )", "uses other numbers"),
    ],
)
def test_a_wrong_answer_has_a_mode_and_a_reason(text, why):
    found = check(TASK, text)
    assert not found.right and found.mode == read(text) and found.why == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ends too early"),
        ("2 *", "ends too early"),
        ("(2 + 3", "a bracket is not closed"),
        ("2 + 3)", "')' is one too many"),
        ("2 3", "'3' is one too many"),
        ("-2 + 3", "'-' stands where a number is expected"),
        ("2 ** 3", "'*' stands where a number is expected"),
        ("2 // 3", "'/' stands where a number is expected"),
        ("2.5 + 3", "cannot be read at '.5 + 3'"),
        ("2 + x", "cannot be read at ' x'"),
        ("__import__('os')", "cannot be read at '__import__'"),
        ("٣ + 2", "cannot be read at '٣ + 2'"),
        ("( " * LONGEST + "2" + " )" * LONGEST, f"more than {LONGEST} numbers and signs"),
    ],
)
def test_a_text_that_is_no_expression_has_no_mode(text, why):
    assert check(TASK, text) == (False, None, why)
    with pytest.raises(Unreadable):
        read(text)


@pytest.mark.parametrize(
    "text", ["6 / 0", "6 / (2 / 0)", "6 * (2 / 0)", "6 / (3 - 3)", "6 / (2 / (3 - 3))", "6 - 2 / 0"]
)
def test_a_division_by_zero_is_wrong_wherever_it_stands(text):
    found = check(Task((0, 2, 3, 3, 6), 0), text)
    assert not found.right and found.why == "divides by zero"


def test_values_are_exact():
    assert value(read("1 / 3 + 1 / 6")) == Fraction(1, 2)
    assert check(Task((1, 3, 7, 49), 49), "49 * ( 1 / 7 * 7 )").why == "uses other numbers"
    assert check(Task((1, 3, 3, 1), 1), "1 / 3 * 3").right
    assert check(Task((8, 3, 8, 3), 24), "8 / ( 3 - 8 / 3 )").right


@pytest.mark.parametrize(
    "same",
    [
        ("2 * 3 + 7", "7 + 3 * 2", "(7) + (3 * 2)", "3*2+7"),
        ("9 - (4 - 2)", "9 + 2 - 4", "2 - 4 + 9", "9 - 4 + 2"),
        ("8 / (4 / 2)", "8 * 2 / 4", "2 / 4 * 8", "8 / 4 * 2"),
        ("1 + (2 + (3 + 4))", "4 + 3 + 2 + 1", "(1 + 2) + (3 + 4)"),
        ("(1 + 2) * (3 - 4)", "(3 - 4) * (2 + 1)"),
    ],
)
def test_order_and_idle_brackets_make_no_other_mode(same):
    assert len({read(text) for text in same}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2 * (3 + 4)", "2 * 3 + 2 * 4"),
        ("5", "5 * 1"),
        ("5", "5 / 1"),
        ("2 + 2", "2 * 2"),
        ("(5 - 3) * (4 - 2)", "(3 - 5) * (2 - 4)"),
        ("9 - 2 * (4 - 6)", "9 + 2 * (6 - 4)"),
        ("9 - 4 - 2", "9 - 4 + 2"),
    ],
)
def test_other_laws_of_arithmetic_keep_modes_apart(one, other):
    assert read(one) != read(other)


@pytest.mark.parametrize(("operands", "known"), [(1, 1), (2, 6), (3, 68), (4, 1170)])
def test_as_many_values_as_are_known_for_operands_without_relations(operands, known):
    """OEIS A140606: inequivalent expressions of n different operands with + - * /. Two modes of four numbers have one
    value if a sign moves between factors, as in `9 - 2 * (4 - 6)` and `9 + 2 * (6 - 4)`."""
    numbers = (7, 19, 101, 1009)[:operands]
    whole = [reached for mode, reached in forms(numbers) if len(numbers_of(mode)) == operands]
    assert len(set(whole)) == known
    assert len(whole) == known or (operands, len(whole)) == (4, 1260)


def test_all_right_answers_are_found():
    """Against every text of three numbers with two signs, bracketed both ways, and of two numbers, and of one."""
    task, texts = Task((2, 3, 6), 4), set()
    for order in permutations(task.numbers):
        a, b, c = order
        texts.add(str(a))
        for p, q in product("+-*/", repeat=2):
            texts |= {f"{a} {p} {b}", f"( {a} {p} {b} ) {q} {c}", f"{a} {p} ( {b} {q} {c} )"}
    right = {found.mode for found in (check(task, text) for text in sorted(texts)) if found.right}
    assert right == set(solutions(task))
    assert {write(mode) for mode in right} == {"6 - 2", "2 * 6 / 3", "2 + 6 / 3"}


def test_the_simplest_answer_comes_first_and_fewer_operations_give_fewer():
    right = [write(mode) for mode in solutions(TASK, "+-*")]
    assert right[0] == "2 + 4 + 7" and "7 + 2 * 3" in right
    assert all(check(TASK, text).right for text in right)
    assert set(right) < {write(mode) for mode in solutions(TASK)}
    assert len(set(right)) == len(right)


def test_near_misses_miss():
    found = near_misses(TASK, 2, "+-*")
    assert {value(mode) for mode in found} == {11, 12, 14, 15}
    assert not any(check(TASK, write(mode)).right for mode in found)


def test_every_wording_of_a_mode_is_read_as_that_mode():
    rng = np.random.default_rng(0)
    for mode, reached in forms((2, 3, 4, 7))[::7]:
        assert read(write(mode)) == mode and value(mode) == reached
        assert read(write(mode, rng)) == mode
    assert len({write(solutions(TASK)[0], rng) for _ in range(60)}) == 6
