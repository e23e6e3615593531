"""Programs in the yaml file are what it says; a mode is a syntax tree whose names do not matter."""

import pytest

from ddpo_lib.domains.code_tasks import CodeTask, check, mode_of, read_programs, read_tasks, weigh_programs

SPACES = {"semantic": "lexical", "style": "stylometric"}


@pytest.fixture(scope="module")
def weighed():
    return weigh_programs(SPACES)


def test_right_programs_pass_and_wrong_ones_fail_as_the_file_says(weighed):
    other = weighed[weighed["passed"] != weighed["right"]]
    assert other.empty, other[["task", "text", "why"]].to_string()
    assert not weighed["why"].str.startswith("refused").any()
    assert len(weighed) == len(read_programs()) > 70


def test_each_task_has_a_common_mode_rare_ones_and_wrong_ones(weighed):
    assert len(read_tasks()) == 8
    for name, of in weighed.groupby("task"):
        kinds = of["kind"].value_counts()
        assert kinds["common"] >= 2 and kinds["rare"] >= 2 and kinds["wrong"] >= 3, name
        assert of.loc[of["kind"] == "common", "mode"].nunique() == 1
        right, wrong = (set(of.loc[of["passed"] == passed, "mode"]) for passed in (True, False))
        assert not right & wrong


def test_weights_sum_to_the_number_of_programs_of_a_task(weighed):
    for space in SPACES:
        sums = weighed.groupby("task")[f"weight {space}"].agg(["sum", "size"])
        assert sums["sum"].to_numpy() == pytest.approx(sums["size"].to_numpy())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(a):\n    return a + 1", "def g(number):\n\n    # more\n    return (number + 1)"),
        ("def f(a):\n    return a", 'def f(a: int) -> int:\n    """Its argument."""\n    return a'),
        ("f = lambda x, y: x - y", "f = lambda y, x: y - x"),
        ("def f(n):\n    return f(n)", "def g(k):\n    return g(k)"),
    ],
)
def test_names_layout_comments_and_docstrings_do_not_matter(one, other):
    assert mode_of(one) == mode_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(a):\n    return a + 1", "def f(a):\n    return a + 2"),
        ("def f(a):\n    return a + 1", "def f(a):\n    return 1 + a"),
        ("def f(a):\n    return min(a)", "def f(a):\n    return max(a)"),
        ("def f(a, b):\n    return a - b", "def f(a, b):\n    return b - a"),
        ("def f(a):\n    return a.pop()", "def f(a):\n    return a.copy()"),
    ],
)
def test_constants_order_and_built_in_names_do(one, other):
    assert mode_of(one) != mode_of(other)


def test_a_text_that_is_not_python_has_no_mode():
    task = CodeTask("one", "Return one.", (([], 1),))
    assert check(task, "def f(:")[:2] == (False, None)
    assert check(task, "def f():\n    return 1")[::2] == (True, "")
    assert check(task, "import os") == (False, "import os", "refused: Import is not allowed")
