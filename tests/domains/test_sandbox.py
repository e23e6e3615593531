"""Programs that loop, eat memory, write files, open sockets, fork or recurse: refused or ended, the run unharmed."""

import time
from pathlib import Path

import pytest

from ddpo_lib.domains import sandbox
from ddpo_lib.domains.sandbox import TOGETHER, refuse, run_limited, run_many, run_tests

ONE = [([1], 2)]


def f(body: str) -> str:
    return f"def f(x):\n    {body}"


def test_a_right_program_passes_and_a_wrong_one_is_told_its_test():
    assert run_tests(f("return x + 1"), "f", [([1], 2), ([5], 6)]) == (True, "")
    assert run_tests(f("return 2"), "f", [([1], 2), ([5], 6)]) == (False, "fails test 2")


@pytest.mark.parametrize(
    ("body", "expected", "passed"),
    [
        ("return (1, 2)", [1, 2], True),
        ("return True", 1, False),
        ("return 1.0", 1, False),
        ("return {'a': 1, 'b': [x]}", {"b": [1], "a": 1}, True),
        ("return None", None, True),
    ],
)
def test_values_are_compared_as_json(body, expected, passed):
    assert run_tests(f(body), "f", [([1], expected)]).passed == passed


def test_a_program_cannot_change_the_arguments_or_values_of_a_later_test():
    assert run_tests("def f(x):\n    x.append(1)\n    return x", "f", [([[0]], [0, 1]), ([[0]], [0, 1])]).passed


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os", "Import is not allowed"),
        ("from socket import socket", "ImportFrom is not allowed"),
        (f("return open('x', 'w')"), "the name open is not allowed"),
        (f("return eval('1')"), "the name eval is not allowed"),
        (f("return exec('1')"), "the name exec is not allowed"),
        (f("return __import__('os')"), "the name __import__ is not allowed"),
        (f("return getattr(x, 'real')"), "the name getattr is not allowed"),
        (f("return ().__class__"), "the attribute __class__ is not allowed"),
        (f("return '{0.__class__}'.format(x)"), "the attribute format is not allowed"),
        (f("return f'{x}'"), "JoinedStr is not allowed"),
        (f("return x.real"), "the attribute real is not allowed"),
        (f("global y"), "Global is not allowed"),
        (f("raise ValueError"), "Raise is not allowed"),
        ("class A: pass", "ClassDef is not allowed"),
        ("async def f(x): pass", "AsyncFunctionDef is not allowed"),
        ("@abs\ndef f(x): pass", "the function f has a decorator or the name of a built-in one"),
        ("def len(x): pass", "the function len has a decorator or the name of a built-in one"),
        (f("__builtins__ = {}"), "a name begins with an underscore"),
        ("def f(_x): pass", "a name begins with an underscore"),
        (f("return b'x'"), "a constant of type bytes is not allowed"),
        (f("return 10000000"), "a number is larger than 1000000"),
        ("def f(x", "not Python: SyntaxError"),
        ("\0", "not Python: SyntaxError"),
        ("(" * 3000, "not Python: SyntaxError"),
        ("x = 1\n" * 1000, "longer than 4000 characters"),
    ],
)
def test_what_is_not_listed_is_refused_and_never_run(program, why, monkeypatch):
    monkeypatch.setattr(sandbox, "run_limited", lambda *_: pytest.fail("it was run"))
    found = refuse(program)
    assert found == why or (why.endswith("SyntaxError") and found.startswith("not Python"))
    assert run_tests(program, "f", ONE) == (False, f"refused: {found}")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (f("return [0] * 1000000 * 1000"), "needs too much memory"),
        ("def f(x):\n    a = [1]\n    while True:\n        a = a + a", "needs too much memory"),
        (f("return f(x)"), "raises RecursionError"),
        (f("return x / 0"), "raises ZeroDivisionError"),
        (f("return x[0]"), "raises TypeError"),
        (f("return {1, 2}"), "raises TypeError"),  # no value of JSON
        ("def g(x): return x", "defines no function f"),
        ("f = 3", "defines no function f"),
        ("while True: f = 1", "stopped after 1 s of processor time"),
        (f("return 10 ** 10 ** 9"), "stopped after 1 s of processor time"),  # in C, where Python sees no signal
    ],
)
def test_what_goes_wrong_ends_and_is_told(program, why, monkeypatch):
    if "processor time" in why:  # to touch much memory takes longer on some machines
        monkeypatch.setattr(sandbox, "CPU", 1)
    assert run_tests(program, "f", ONE) == (False, why)


@pytest.mark.parametrize(
    "code",
    [
        "open('x', 'w').write('a')",
        "open('/tmp/x')",
        "import socket; socket.socket()",
        "import subprocess; subprocess.run(['true'])",
        "input()",
        "open(sys.argv[0])",
        "import os; os.open('.', os.O_RDONLY)",
    ],
)
def test_behind_the_list_the_limits_stop_files_sockets_and_input(code):
    """As if a program had passed `refuse`."""
    assert run_limited(code) == (1, "")


def test_a_process_starts_in_an_empty_folder_that_is_gone_afterwards_with_no_environment(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setattr(sandbox, "_LIMITS", "")  # with them, no folder can be listed
    code = "import os; print(os.getcwd(), os.listdir(), 'SECRET' in os.environ)"
    status, told = run_limited(code)
    folder, *rest = told.split()
    assert status == 0 and rest == ["[]", "False"] and not Path(folder).exists()


def test_after_the_wall_clock_all_that_the_program_started_is_gone(monkeypatch):
    monkeypatch.setattr(sandbox, "WALL", 0.7)
    monkeypatch.setattr(sandbox, "_LIMITS", "")
    code = "import os, time\nfor _ in range(3):\n    if not os.fork():\n        break\ntime.sleep(60)"
    before, began = sleepers(), time.monotonic()
    assert run_limited(code)[0] is None
    assert time.monotonic() - began < 5
    assert sleepers() <= before


def sleepers() -> set[str]:
    """The processes that sleep as the test above asks."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if b"time.sleep(60)" in line and b"os.fork" in line and state != "Z":
            found.add(entry.name)
    return found


def test_the_run_goes_on_as_before():
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.glob("*")))
    for _ in range(3):
        run_tests(f("return f(x)"), "f", ONE)
    assert len(list(open_files.glob("*"))) == before
    assert run_tests(f("return x + 1"), "f", ONE).passed


# Many programs in one process

MANY = {
    f("return x + 1"): "",
    f("return 2"): "fails a test",
    f("return y") + "\ny = 1": "fails a test",
    f("return x[0]"): "raises an error",
    f("return f(x)"): "raises an error",
    "g = 1": "defines no such function",
    f("return [0] * 10 ** 9"): "needs too much memory",
    "import os": "refused: Import is not allowed",
    "def f(x": "refused: not Python: SyntaxError",
    "f = lambda x: x + 1": "",
}
TWO = [([1], 2), ([5], 6)]


def test_many_programs_in_one_process_do_as_each_does_alone():
    found = run_many(list(MANY), "f", [TWO] * len(MANY))
    assert [one.why for one in found] == list(MANY.values())
    assert [one.passed for one in found] == [run_tests(program, "f", TWO).passed for program in MANY]


def test_a_program_leaves_nothing_to_the_next_one():
    leaves = "def f(x):\n    x.append(1)\n    return x\ng = f\nlen = f"
    uses = f("return g(x)") + "\nfor g in []:\n    pass"
    found = run_many([leaves, uses, f("return len([x])")], "f", [[([[]], [1])], [([[]], [1])], [([0], 1)]])
    assert [one.why for one in found] == ["", "raises an error", ""]


def test_a_program_that_does_not_end_stops_no_other(monkeypatch):
    monkeypatch.setattr(sandbox, "CPU", 1)
    found = run_many([f("return x + 1"), f("while True: pass"), f("return 2")], "f", [TWO] * 3)
    assert [one.why for one in found] == ["", "stopped after 1 s of processor time", "fails test 2"]


def test_more_programs_than_fit_into_a_process_are_divided(monkeypatch):
    ran = []
    alone = sandbox.run_limited
    monkeypatch.setattr(sandbox, "run_limited", lambda *given: ran.append(given) or alone(*given))
    many = [f(f"return x + {i}") for i in range(TOGETHER + 5)]
    assert [one.passed for one in run_many(many, "f", [TWO] * len(many))] == [i == 1 for i in range(len(many))]
    assert len(ran) == 2
    long = f(f"return x + 1 + len('{'a' * 3900}') * 0")
    assert all(one.passed for one in run_many([long] * 40, "f", [TWO] * 40))
    assert all(len(argument) <= sandbox.ARGUMENT for _, argument in ran) and len(ran) > 3
    assert run_many([], "f", []) == []
