"""Programs with many right answers: tasks on lists of numbers, and every program of a small language for each of them.

A task says which numbers of a list count, what is made of each, and what becomes of all: "sum of squares of even
numbers over 4". Its programs differ in their form, such as a loop or a recursion, and in how they write the limit. All
of them do the same, and each has a syntax tree of its own.

A wrong program is a right one of a neighbouring task, which differs in one part: another limit, the other parity, one
condition forgotten. So wrong programs have the shapes of right ones, and only a run tells one from the other.

Words are separated by single blanks, and a line break with the tabs after it is a word. A text is Python as it stands.
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from ddpo_lib.domains.checked import Checked
from ddpo_lib.domains.code_tasks import FUNCTION, mode_of
from ddpo_lib.domains.sandbox import run_many

LIMITS = 9  # the largest number in a condition

MADE = {  # what is made of a number x: the value, and how it is written
    "": (lambda x: x, "x"),
    "doubles": (lambda x: 2 * x, "x * 2"),
    "triples": (lambda x: 3 * x, "x * 3"),
    "squares": (lambda x: x * x, "x * x"),
    "negatives": (lambda x: -x, "- x"),
}
PARITIES = {"even": (lambda x: x % 2 == 0, "x % 2 == 0"), "odd": (lambda x: x % 2 == 1, "x % 2 == 1")}
SIDES = {  # a condition on x and a limit k, and two ways to write it, the more common first
    "over": (lambda x, k: x > k, ("x > {k}", "x >= {more}")),
    "under": (lambda x, k: x < k, ("x < {k}", "x <= {less}")),
}
LOOP = "t = {none} {1} for x in xs: {2} if {c} : {3} t += {one} {1} return t"
CONTINUE = "t = {none} {1} for x in xs: {2} if not ( {c} ) : {3} continue {2} t += {one} {1} return t"
RECURSION = "if not xs: {2} return {none} {1} x = xs[0] {1} return ( {one} if {c} else {none} ) + f(xs[1:])"
FORMS = {  # the most common form first; `one` is what a number adds to `none`
    "sum": (
        *("return sum([ {e} for x in xs if {c} ])", LOOP, "return sum( {e} for x in xs if {c} )"),
        "ys = [ x for x in xs if {c} ] {1} return sum([ {e} for x in ys ])",
        *("return sum(map(lambda x: {e} , filter(lambda x: {c} , xs)))", CONTINUE, RECURSION),
    ),
    "list": (
        *("return [ {e} for x in xs if {c} ]", LOOP, "return list( {e} for x in xs if {c} )"),
        "ys = [ x for x in xs if {c} ] {1} return [ {e} for x in ys ]",
        *("return list(map(lambda x: {e} , filter(lambda x: {c} , xs)))", CONTINUE, RECURSION),
    ),
    "count": (
        *("return len([ x for x in xs if {c} ])", LOOP, "return sum( 1 for x in xs if {c} )"),
        "ys = [ x for x in xs if {c} ] {1} return len(ys)",
        *("return len(list(filter(lambda x: {c} , xs)))", CONTINUE, RECURSION),
    ),
}
ONE = {"sum": ("{e}", "0"), "list": ("[ {e} ]", "[]"), "count": ("1", "0")}
BREAKS = {str(depth): "\n" + "\t" * depth for depth in (1, 2, 3)}
INPUTS = ([], [4], list(range(-12, 13)), [7, 7, 2], [9, -3, 10, 0, 5, 1, 8], [3, 6, -1, 2, 11, -8])
PROMPT = re.compile(
    rf"({'|'.join(FORMS)}) of (?:({'|'.join(filter(None, MADE))}) of )?"
    rf"(?:({'|'.join(PARITIES)}) )?numbers(?: ({'|'.join(SIDES)}) (\d+))?"
)


class ListTask(NamedTuple):
    """What becomes of a list of numbers."""

    end: str  # a key of FORMS
    made: str  # a key of MADE
    parity: str  # a key of PARITIES; "": both count
    side: str  # a key of SIDES; "": there is no limit
    limit: int  # 0 without a side


@cache
def all_tasks() -> tuple[ListTask, ...]:
    """Every task, in a fixed order. Each has a condition; where numbers are counted, nothing is made of them."""
    limits = [("", 0), *product(SIDES, range(1, LIMITS + 1))]
    every = product(FORMS, MADE, ("", *PARITIES), limits)
    tasks = [ListTask(end, made, parity, *limit) for end, made, parity, limit in every]
    return tuple(task for task in tasks if (task.parity or task.side) and not (task.end == "count" and task.made))


def prompt_of(task: ListTask) -> str:
    """`sum of squares of even numbers over 4`."""
    made = f"{task.made} of " if task.made else ""
    parity = f"{task.parity} " if task.parity else ""
    return f"{task.end} of {made}{parity}numbers" + (f" {task.side} {task.limit}" if task.side else "")


def read_task(prompt: str) -> ListTask:
    """The task of a prompt.

    Raises:
        ValueError: it is not one of `prompt_of`.
    """
    found = PROMPT.fullmatch(prompt)
    if found is None:
        raise ValueError(f"prompt: expected the form 'sum of squares of even numbers over 4', got {prompt!r}")
    end, made, parity, side, limit = found.groups(default="")
    return ListTask(end, made, parity, side, int(limit or 0))


def solve(task: ListTask, numbers: Sequence[int]) -> int | list[int]:
    """What a right program gives for a list of numbers."""
    counted = [x for x in numbers if not task.parity or PARITIES[task.parity][0](x)]
    counted = [x for x in counted if not task.side or SIDES[task.side][0](x, task.limit)]
    made = [MADE[task.made][0](x) for x in counted]
    return {"sum": sum(made), "list": made, "count": len(made)}[task.end]


@cache
def tests_of(task: ListTask) -> tuple[tuple[list, object], ...]:
    """The tests of a task: INPUTS, and what a right program gives for each."""
    return tuple(([numbers], solve(task, numbers)) for numbers in INPUTS)


@cache
def neighbours(task: ListTask) -> tuple[ListTask, ...]:
    """The tasks that differ in one part and give another value in some test; of two limits, those one apart."""
    given = [value for _, value in tests_of(task)]
    near = [other for other in all_tasks() if _differ_in_one_part(task, other)]
    return tuple(other for other in near if [value for _, value in tests_of(other)] != given)


def _differ_in_one_part(one: ListTask, other: ListTask) -> bool:
    parts = one.end != other.end, one.made != other.made, one.parity != other.parity, one[3:] != other[3:]
    if sum(parts) != 1:
        return False
    if one.parity != other.parity:
        return bool(one.parity)  # none is added
    if one[3:] == other[3:] or (one.side and not other.side):
        return True
    return bool(one.side) and abs(one.limit - other.limit) + (one.side != other.side) == 1


def ways(task: ListTask) -> tuple[int, int]:
    """How many forms a right program may have, and how many ways there are to write its limit."""
    return len(FORMS[task.end]), len(SIDES[task.side][1]) if task.side else 1


def write_program(task: ListTask, form: int, way: int) -> str:
    """The text of a right program.

    Args:
        task: what it does.
        form, way: places in the order of `ways`; 0 is the most common.
    """
    conditions = [PARITIES[task.parity][1]] if task.parity else []
    if task.side:
        limit = SIDES[task.side][1][way]
        conditions.append(limit.format(k=task.limit, more=task.limit + 1, less=task.limit - 1))
    e = MADE[task.made][1]
    one, none = ONE[task.end]
    parts = {"e": e, "c": " and ".join(conditions), "one": one.format(e=e), "none": none}
    body = re.sub(r"\{(\w+)\}", lambda name: (parts | BREAKS)[name[1]], FORMS[task.end][form])
    return f"def f(xs): {BREAKS['1']} {body}"


def programs_of(task: ListTask) -> list[str]:
    """All right programs of a task that a corpus may have, each once."""
    return [write_program(task, *chosen) for chosen in product(*map(range, ways(task)))]


def check_all(tasks: Sequence[ListTask], programs: Sequence[str]) -> list[Checked]:
    """Whether each program passes the tests of its task, run in the sandbox, and its mode; equal ones run once."""
    distinct = list(dict.fromkeys(zip(tasks, programs, strict=True)))
    outcomes = run_many([text for _, text in distinct], FUNCTION, [tests_of(task) for task, _ in distinct])
    modes = {text: mode_of(text) for _, text in distinct}
    checked = {
        (task, text): Checked(outcome.passed, modes[text], outcome.why)
        for (task, text), outcome in zip(distinct, outcomes, strict=True)
    }
    return [checked[pair] for pair in zip(tasks, programs, strict=True)]
