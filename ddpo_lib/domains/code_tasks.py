"""Small programming tasks with tests: which programs are right, which mode each has, and what deviation weighs.

A mode is the normalised syntax tree of a program: comments, layout and docstrings are gone, and the names that the
program binds are renamed in the order in which they appear. Constants, and the names of built-in functions and methods,
stay. So two wordings of one idea that differ in names are one mode; a loop and a comprehension are two.
"""

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from ddpo_lib.domains.checked import Checked
from ddpo_lib.domains.sandbox import parse, run_tests

FUNCTION = "f"  # what every program must define
TASKS = Path(__file__).with_name("code_tasks.yaml")


class CodeTask(NamedTuple):
    """A task: what to write, and pairs of arguments and the expected value, all of them values of JSON."""

    name: str
    prompt: str
    tests: tuple[tuple[list, object], ...]


@cache
def read_programs() -> pd.DataFrame:
    """The programs of `code_tasks.yaml`.

    Returns:
        One row per program: `task prompt text`, `right` as the file says, and `number` within the task.
    """
    rows = []
    for name, task in yaml.safe_load(TASKS.read_text(encoding="utf-8")).items():
        texts = [(text, kind == "right") for kind in ("right", "wrong") for text in task[kind]]
        rows += [(name, task["prompt"], text, right, number) for number, (text, right) in enumerate(texts)]
    return pd.DataFrame(rows, columns=["task", "prompt", "text", "right", "number"])


@cache
def read_tasks() -> dict[str, CodeTask]:
    """The tasks of `code_tasks.yaml` by name."""
    content = yaml.safe_load(TASKS.read_text(encoding="utf-8"))
    return {name: CodeTask(name, one["prompt"], tuple(map(tuple, one["tests"]))) for name, one in content.items()}


def check(task: CodeTask, program: str) -> Checked:
    """Whether a program passes the tests of a task, run in the sandbox, and its mode."""
    outcome = run_tests(program, FUNCTION, task.tests)
    return Checked(outcome.passed, mode_of(program), outcome.why)


def check_all(tasks: Sequence[CodeTask], programs: Sequence[str]) -> list[Checked]:
    """`check` for each task and its program; about 30 ms each."""
    return [check(task, program) for task, program in zip(tasks, programs, strict=True)]


def mode_of(program: str) -> str | None:
    """The source of the normalised syntax tree; None if the program is not Python."""
    tree = parse(program)
    if isinstance(tree, str):
        return None
    bound = [name for node in ast.walk(tree) for name in _binds(node)]
    names = {name: f"v{number}" for number, name in enumerate(dict.fromkeys(bound))}
    return ast.unparse(_Renamed(names).visit(tree))


def _binds(node: ast.AST) -> list[str]:
    """The names that a node binds."""
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []


class _Renamed(ast.NodeTransformer):
    """A tree with other names and without docstrings and annotations."""

    def __init__(self, names: dict[str, str]):
        self.names = names

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.name = self.names[node.name]
        node.returns = None
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.names[node.arg])

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def weigh_programs(spaces: dict[str, str]) -> pd.DataFrame:
    """What deviation would weigh among the programs of each task.

    Args:
        spaces: name -> counted space, as in `embed.COUNTED`.

    Returns:
        The table of `read_programs` with `mode`, `passed`, `why`; `kind`: "common" for a right program of the mode that
        most right programs of its task have, "rare" for another right one, "wrong"; and per space `weight NAME`, the
        deviation weight among all programs of the task.
    """
    from ddpo_lib.deviation.distances import mean_distance
    from ddpo_lib.deviation.weighting import weights
    from ddpo_lib.spaces.embed import COUNTED

    table = read_programs().copy()
    checked = check_all([read_tasks()[name] for name in table["task"]], table["text"].tolist())
    table = table.join(pd.DataFrame(checked).rename(columns={"right": "passed"}))
    right = table[table["passed"]]
    common = right.groupby("task")["mode"].agg(lambda of: of.value_counts(sort=True).index[0])
    is_common = table["mode"] == table["task"].map(common)
    table["kind"] = np.where(~table["passed"], "wrong", np.where(is_common, "common", "rare"))
    groups = table["task"].astype("category").cat.codes.to_numpy()
    for name, space in spaces.items():
        vectors = COUNTED[space](table["text"].tolist())
        table[f"weight {name}"] = weights([mean_distance(vectors, groups)], groups)
    return table
