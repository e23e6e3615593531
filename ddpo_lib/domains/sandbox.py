"""A small program that a model wrote -> whether it is refused, fails, or passes its tests, in a process of its own.

This is a guard against accidents of a model's own programs: an endless loop, too much memory, a stray file. It is no
security boundary. Do not run programs of an adversary with it.

Two guards stand one behind the other. `refuse` reads the syntax tree: only listed kinds of nodes, names and methods are
allowed, so a program has no import, no file, no network, no other process and no underscore. `run_tests` then runs the
program in a new Python (`-I`) that has only the listed built-in functions, with limits on processor time, memory and
files, no standard input and an empty folder. After `WALL` seconds its whole process group is killed. Limits are those
of the operating system: macOS does not hold the one on memory.
"""

import ast
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from tempfile import TemporaryDirectory
from textwrap import indent
from typing import NamedTuple

CPU, WALL = 2, 10.0  # seconds; the second is longer, since a machine may be busy
MEMORY = 256 * 2**20  # bytes of address space
LONGEST = 4000  # characters of a program
LARGEST = 10**6  # of a number in a program
TOGETHER = 100  # programs in one process; each writes one letter, and `run_limited` returns 200
ARGUMENT = 100_000  # characters of what a process is given; Linux takes 131,072 bytes

BUILTINS = frozenset(
    "abs all any bool dict divmod enumerate filter float int len list map max min ord chr pow range reversed round set "
    "sorted str sum tuple zip".split()
)
METHODS = frozenset(
    "add append clear copy count discard endswith extend find fromkeys get index insert isalnum isalpha isdigit "
    "islower isspace isupper items join keys lower lstrip pop remove replace reverse rstrip setdefault sort split "
    "startswith strip swapcase title union update upper values".split()
)
NODES = (
    *(ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Lambda, ast.Call, ast.keyword),
    *(ast.Assign, ast.AugAssign, ast.Expr, ast.Pass, ast.For, ast.While, ast.If, ast.Break, ast.Continue),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
    *(ast.Name, ast.Constant, ast.Attribute, ast.Subscript, ast.Slice, ast.Starred, ast.expr_context),
    *(ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    ast.comprehension,
)


class Outcome(NamedTuple):
    """How a program did."""

    passed: bool  # whether it gave the expected value in every test
    why: str = ""  # what happened otherwise, in a few words


def refuse(program: str) -> str | None:
    """Why a program is not run, in a few words; None if all of it is allowed.

    A name may be read if it is one of BUILTINS or if the program itself binds it.
    """
    tree = parse(program)
    if isinstance(tree, str):
        return tree
    nodes = list(ast.walk(tree))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    reasons = (_why_not(node, bound) for node in nodes)
    return next(filter(None, reasons), None)


def parse(program: str) -> ast.Module | str:
    """The syntax tree of a program, or why there is none."""
    if len(program) > LONGEST:
        return f"longer than {LONGEST} characters"
    try:
        return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"not Python: {type(error).__name__}"


def _why_not(node: ast.AST, bound: set[str]) -> str | None:
    if not isinstance(node, NODES):
        return f"{type(node).__name__} is not allowed"
    if isinstance(node, ast.FunctionDef) and (node.decorator_list or node.name in BUILTINS):
        return f"the function {node.name} has a decorator or the name of a built-in one"
    if isinstance(node, ast.Attribute) and (node.attr not in METHODS or not isinstance(node.ctx, ast.Load)):
        return f"the attribute {node.attr} is not allowed"
    if isinstance(node, ast.Name) and node.id not in bound | BUILTINS:
        return f"the name {node.id} is not allowed"
    if any(name.startswith("_") and name != "_" for name in _names(node)):
        return "a name begins with an underscore"
    if isinstance(node, ast.Constant):
        if not isinstance(node.value, str | int | float | bool | None):
            return f"a constant of type {type(node.value).__name__} is not allowed"
        if isinstance(node.value, int) and abs(node.value) > LARGEST:
            return f"a number is larger than {LARGEST}"
    return None


def _names(node: ast.AST) -> list[str]:
    return [value for field in ("id", "arg", "name") if isinstance(value := getattr(node, field, None), str)]


def run_tests(program: str, function: str, tests: Sequence[tuple[list, object]]) -> Outcome:
    """Run a program's function on tests, in a new process with limits.

    Args:
        program: its source.
        function: the name of the function that it must define.
        tests: pairs of positional arguments and the expected value, all of them values of JSON. Values are compared as
            JSON, so a tuple equals a list, and 1 equals neither True nor 1.0.

    Returns:
        Not passed if the program is refused, is stopped by a limit, raises an error, or gives another value.
    """
    if why := refuse(program):
        return Outcome(False, f"refused: {why}")
    task = json.dumps({"program": program, "function": function, "tests": tests, "allowed": sorted(BUILTINS)})
    status, told = run_limited(_RUNNER, task)
    if status is None:
        return Outcome(False, f"stopped after {WALL:g} s")
    if status == -signal.SIGXCPU:
        return Outcome(False, f"stopped after {CPU} s of processor time")
    if status:
        return Outcome(False, f"ended with status {status}")
    return Outcome(told == "", told)


def run_many(programs: Sequence[str], function: str, tests: Sequence[Sequence[tuple[list, object]]]) -> list[Outcome]:
    """`run_tests` for many programs, of which up to TOGETHER share a process: some fifty times as fast.

    They run one after another. Each has names and arguments of its own. Where a process is stopped or ends early, its
    programs are run again, each in a process of its own.

    Args:
        programs: their sources.
        function: what each of them must define.
        tests: of each program, as in `run_tests`.

    Returns:
        In the same order. `why` does not name the test or the error.
    """
    refused = [refuse(program) for program in programs]
    outcomes = [Outcome(False, f"refused: {why}") for why in refused]
    shared = {"function": function, "allowed": sorted(BUILTINS)}
    tasks = {
        place: json.dumps({"program": programs[place], "tests": list(tests[place]), **shared})
        for place, why in enumerate(refused)
        if why is None
    }
    for places in _batches(tasks):
        status, told = run_limited(_MANY, json.dumps([tasks[place] for place in places]))
        whole = status == 0 and len(told) == len(places)
        for place, letter in zip(places, told if whole else " " * len(places), strict=True):
            outcomes[place] = SAID[letter] if whole else run_tests(programs[place], function, tests[place])
    return outcomes


def _batches(tasks: dict[int, str]) -> Iterator[list[int]]:
    """The places of tasks that share a process."""
    batch, size = [], 0
    for place, task in tasks.items():
        more = len(json.dumps(task)) + 2
        if batch and (len(batch) == TOGETHER or size + more > ARGUMENT):
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += more
    if batch:
        yield batch


def run_limited(code: str, argument: str = "") -> tuple[int | None, str]:
    """Run Python code under the limits.

    Args:
        code: Python source; it is trusted as far as the limits go, and `refuse` is not asked.
        argument: what the code finds in `sys.argv[1]`.

    Returns:
        The exit status, negative for a signal, None if the wall clock stopped it; and what it wrote to standard output,
        its first 200 characters.
    """
    limits = f"CPU, MEMORY = {CPU}, {MEMORY}\n{_LIMITS}\n"
    with TemporaryDirectory() as empty:
        command = [sys.executable, "-I", "-S", "-c", limits + code, argument]
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=empty, env={}, start_new_session=True, **quiet)
        try:
            told, _ = process.communicate(timeout=WALL)
        except subprocess.TimeoutExpired:
            told = b""
        finally:
            done = process.poll()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
    return done, told[:200].decode("utf-8", "replace")


# first in the new process: what it needs is imported before no more files can be opened
_LIMITS = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU + 1))
for kind, most in (
    (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 3), (resource.RLIMIT_NPROC, 0),
):
    resource.setrlimit(kind, (most, most))
"""

_RUNNER = """
task = json.loads(sys.argv[1])
given = __builtins__ if isinstance(__builtins__, dict) else vars(__builtins__)
scope = {"__builtins__": {name: given[name] for name in task["allowed"]}}
try:
    exec(compile(task["program"], "program", "exec"), scope)
    function = scope.get(task["function"])
    if not callable(function):
        told = "defines no function " + task["function"]
    else:
        told = ""
        for number, (arguments, expected) in enumerate(task["tests"], 1):
            if json.dumps(function(*arguments), sort_keys=True) != json.dumps(expected, sort_keys=True):
                told = "fails test %d" % number
                break
except MemoryError:
    told = "needs too much memory"
except BaseException as error:
    told = "raises " + type(error).__name__
sys.stdout.write(told)
"""

# the same for many tasks; of each, the first letter of what is told, or a point
_MANY = f"""
many = json.loads(sys.argv[1])
for sys.argv[1] in many:
{indent(_RUNNER.removesuffix("sys.stdout.write(told)" + chr(10)), "    ")}
    sys.stdout.write(told[:1] or ".")
"""
SAID = {
    ".": Outcome(True),
    "f": Outcome(False, "fails a test"),
    "r": Outcome(False, "raises an error"),
    "n": Outcome(False, "needs too much memory"),
    "d": Outcome(False, "defines no such function"),
}
