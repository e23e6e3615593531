"""Arithmetic with many right answers: reach a target from given numbers.

The rule: an answer is an expression of the given numbers with + - * / and brackets. Each given number is used at most
once, and not all need to be used. A lone number is an expression too. There is no sign before a number.

Values are exact (`fractions`). A mode is an expression up to the order of terms and factors and up to the brackets that
make no difference: `2 * 3 + 7`, `7 + (3 * 2)` and `(7) + 3 * 2` are one mode, and so are `9 - (4 - 2)` and `9 + 2 - 4`.
Other laws do not count: `2 * (3 + 4)` and `2 * 3 + 2 * 4`, or `5` and `5 * 1`, are different modes.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ddpo_lib.domains.checked import Checked

OPERATIONS = "+-*/"
TOKEN = re.compile(r"\s*([0-9]{1,9}|[-+*/()])")
LONGEST = 100  # tokens of an answer; the parser is recursive, and no task needs as many


class Task(NamedTuple):
    """Numbers that may each be used once, and the number to reach."""

    numbers: tuple[int, ...]
    target: int


class Mode(NamedTuple):
    """An expression in its canonical form: a number, or a sum or product of parts in a fixed order."""

    kind: str  # "" for a number, "+" for a sum, "*" for a product
    number: int  # or 0
    # of a sum or product, each with 1 if it is added or multiplied, and -1 if it is subtracted or divided by; no part
    # has the kind of the whole, but for a divisor that divides by zero
    parts: tuple[tuple[int, "Mode"], ...]


class Unreadable(ValueError):
    """A text that is no expression."""


def check(task: Task, text: str) -> Checked:
    """Whether a text is a right answer to a task, and its mode.

    An expression that uses other numbers than the given ones, or divides by zero, has a mode but is wrong.
    """
    try:
        mode = read(text)
    except Unreadable as error:
        return Checked(False, None, str(error))
    if Counter(numbers_of(mode)) - Counter(task.numbers):
        return Checked(False, mode, "uses other numbers")
    found = value(mode)
    if found is None:
        return Checked(False, mode, "divides by zero")
    return Checked(found == task.target, mode, "" if found == task.target else f"is {found}")


def solutions(task: Task, operations: str = OPERATIONS, used: int | None = None) -> list[Mode]:
    """All right modes of a task, the simplest first (`simplicity`).

    Args:
        task: what to reach.
        operations: those that may be used.
        used: the most numbers in an answer; None: all. With 4 it takes milliseconds, and each more 25 times as long.
    """
    return list(_by_value(tuple(sorted(task.numbers)), operations, used).get(task.target, ()))


def near_misses(task: Task, distance: int, operations: str = OPERATIONS, used: int | None = None) -> list[Mode]:
    """The modes of a task's numbers whose values are other whole numbers, at most `distance` from its target."""
    found = _by_value(tuple(sorted(task.numbers)), operations, used)
    near = [task.target + step for step in range(-distance, distance + 1) if step]
    return sorted((mode for reached in near for mode in found.get(reached, ())), key=simplicity)


@cache
def _by_value(numbers: tuple[int, ...], operations: str, used: int | None) -> dict[Fraction, list[Mode]]:
    """Every mode under its value, the simplest first."""
    found: dict[Fraction, list[Mode]] = {}
    for mode, reached in sorted(forms(numbers, operations, used), key=lambda one: simplicity(one[0])):
        found.setdefault(reached, []).append(mode)
    return found


@cache
def simplicity(mode: Mode) -> tuple:
    """A sort key: fewer numbers first, then fewer products, then fewer subtractions and divisions, then the text."""
    text = write(mode)
    products, inverses = (sum(map(text.count, signs)) for signs in ("*/", "-/"))
    return len(numbers_of(mode)), products, inverses, text


@cache
def forms(
    numbers: tuple[int, ...], operations: str = OPERATIONS, used: int | None = None
) -> tuple[tuple[Mode, Fraction], ...]:
    """Every mode of these numbers, each number used at most once, with its value; without those that divide by zero.

    Args:
        numbers: sorted.
        operations, used: as in `solutions`.
    """
    found: dict[Mode, Fraction] = {}
    for size in range(1, (used or len(numbers)) + 1):
        for chosen in sorted(set(combinations(numbers, size))):
            found.update(_forms_of_all(chosen, operations))
    return tuple(found.items())


@cache
def _forms_of_all(numbers: tuple[int, ...], operations: str) -> dict[Mode, Fraction]:
    """Every mode that uses each of the sorted numbers exactly once, with its value."""
    if len(numbers) == 1:
        return {Mode("", numbers[0], ()): Fraction(numbers[0])}
    found: dict[Mode, Fraction] = {}
    for left, right in _divisions(numbers):
        for a, x in _forms_of_all(left, operations).items():
            for b, y in _forms_of_all(right, operations).items():
                if "+" in operations:
                    found[_join("+", ((1, a), (1, b)))] = x + y
                if "-" in operations:
                    found[_join("+", ((1, a), (-1, b)))] = x - y
                if "*" in operations:
                    found[_join("*", ((1, a), (1, b)))] = x * y
                if "/" in operations and y:
                    found[_join("*", ((1, a), (-1, b)))] = x / y
    return found


def _divisions(numbers: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to divide numbers into two that are not empty; each in both orders."""
    for bits in range(1, 2 ** len(numbers) - 1):
        sides = ([], [])
        for place, number in enumerate(numbers):
            sides[bits >> place & 1].append(number)
        yield tuple(sides[0]), tuple(sides[1])


def _join(kind: str, parts: Sequence[tuple[int, Mode]]) -> Mode:
    """A sum or product; parts of the same kind are dissolved into it.

    A divisor that itself divides by zero stays as it is: in `6 / (2 / 0)` the zero would become a factor.
    """
    flat = []
    for sign, part in parts:
        dissolved = part.kind == kind and not (sign < 0 and kind == "*" and value(part) is None)
        flat += [(sign * inner, mode) for inner, mode in part.parts] if dissolved else [(sign, part)]
    return Mode(kind, 0, tuple(sorted(flat, key=lambda one: (-one[0], one[1]))))


def value(mode: Mode) -> Fraction | None:
    """The exact value; None if it divides by zero."""
    if not mode.kind:
        return Fraction(mode.number)
    total = Fraction(0 if mode.kind == "+" else 1)
    for sign, part in mode.parts:
        inner = value(part)
        if inner is None or (mode.kind == "*" and sign < 0 and inner == 0):
            return None
        if mode.kind == "+":
            total += sign * inner
        else:
            total = total * inner if sign > 0 else total / inner
    return total


def numbers_of(mode: Mode) -> list[int]:
    """The numbers that an expression uses, as often as it uses them."""
    if not mode.kind:
        return [mode.number]
    return [number for _, part in mode.parts for number in numbers_of(part)]


def write(mode: Mode, rng: np.random.Generator | None = None) -> str:
    """A text of a mode, its tokens separated by blanks.

    Args:
        mode: what to write.
        rng: with it, terms and factors come in random order; without, in that of the mode.
    """
    if not mode.kind:
        return str(mode.number)
    parts = [mode.parts[i] for i in rng.permutation(len(mode.parts))] if rng else list(mode.parts)
    parts.insert(0, parts.pop(next(i for i, (sign, _) in enumerate(parts) if sign > 0)))
    signs = {1: " + ", -1: " - "} if mode.kind == "+" else {1: " * ", -1: " / "}
    text = ""
    for sign, part in parts:
        inner = write(part, rng)
        text += (signs[sign] if text else "") + (f"( {inner} )" if part.kind == "+" else inner)
    return text


def read(text: str) -> Mode:
    """The mode of an expression. Nothing is evaluated.

    Raises:
        Unreadable: the text is no expression of whole numbers, + - * / and brackets.
    """
    tokens, at = [], 0
    text = text.strip()
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise Unreadable(f"cannot be read at {text[at : at + 10]!r}")
        tokens.append(found[1])
        at = found.end()
    if len(tokens) > LONGEST:
        raise Unreadable(f"more than {LONGEST} numbers and signs")
    mode, rest = _read_sum(tokens, 0)
    if rest < len(tokens):
        raise Unreadable(f"{tokens[rest]!r} is one too many")
    return mode


def _read_sum(tokens: list[str], at: int) -> tuple[Mode, int]:
    return _read_parts(tokens, at, "+", "+-", _read_product)


def _read_product(tokens: list[str], at: int) -> tuple[Mode, int]:
    return _read_parts(tokens, at, "*", "*/", _read_operand)


def _read_parts(tokens: list[str], at: int, kind: str, signs: str, read_part) -> tuple[Mode, int]:
    """Parts with one of two signs between them, and the place of the first token after them."""
    first, at = read_part(tokens, at)
    parts = [(1, first)]
    while at < len(tokens) and tokens[at] in signs:
        sign = 1 if tokens[at] == signs[0] else -1
        part, at = read_part(tokens, at + 1)
        parts.append((sign, part))
    return (_join(kind, parts) if len(parts) > 1 else first), at


def _read_operand(tokens: list[str], at: int) -> tuple[Mode, int]:
    """A number or an expression in brackets."""
    if at == len(tokens):
        raise Unreadable("ends too early")
    if tokens[at] == "(":
        mode, at = _read_sum(tokens, at + 1)
        if at == len(tokens) or tokens[at] != ")":
            raise Unreadable("a bracket is not closed")
        return mode, at + 1
    if not tokens[at].isdigit():
        raise Unreadable(f"{tokens[at]!r} stands where a number is expected")
    return Mode("", int(tokens[at]), ()), at + 1
