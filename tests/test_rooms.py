"""Every module lies in a room, a room imports only from the rooms before it, and public names stay at the doors."""

import ast
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import ddpo_lib

PROJECT = Path(__file__).parents[1]
LIBRARY = PROJECT / "ddpo_lib"
MODULES = sorted(LIBRARY.rglob("*.py"))
DOORS = {"corpus", "diversity", "embed", "generate", "losses", "pipeline", "trainer"}
MOST = 12  # modules of a room


def name_of(file: Path) -> str:
    """The dotted name of a module of the project."""
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def bindings(file: Path) -> set[str]:
    """Names that a module binds at its top, imports included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def imports(source: str) -> list[tuple[str, str | None]]:
    """What Python code imports from the library, at its top or inside functions: (module, name or None)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write the import out: the order of the rooms is read from it"
            found += [(node.module, alias.name) for alias in node.names]
    return [(module, name) for module, name in found if module.split(".")[0] == "ddpo_lib"]


def file_of(module: str) -> Path | None:
    place = PROJECT.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()), None)


def target(module: str, name: str | None) -> str | None:
    """The module that an import reads; None where there is no such module, or no such name in it."""
    if name and file_of(f"{module}.{name}"):
        return f"{module}.{name}"
    file = file_of(module)
    known = file and (name is None or name in bindings(file) or (module == "ddpo_lib" and name in ddpo_lib.__all__))
    return module if known else None


def pointing_back(file: Path, source: str) -> list[str]:
    """Imports of a module of a room that lead to a later room, to a door, or nowhere."""
    room, wrong = ddpo_lib.ROOMS.index(file.relative_to(LIBRARY).parts[0]), []
    for module, name in imports(source):
        found = target(module, name)
        parts = found.split(".") if found else []
        if len(parts) < 2 or parts[1] not in ddpo_lib.ROOMS or ddpo_lib.ROOMS.index(parts[1]) > room:
            wrong.append(f"{name_of(file)}: from {module} import {name}")
    return wrong


def test_every_module_lies_in_a_room_of_at_most_twelve():
    folders = {file.parent.name for file in LIBRARY.glob("*/__init__.py")}
    assert folders == set(ddpo_lib.ROOMS)
    assert {file.stem for file in LIBRARY.glob("*.py")} == {"__init__", *DOORS}
    assert not list(LIBRARY.glob("*/*/**/*.py"))
    for room in ddpo_lib.ROOMS:
        modules = [file for file in (LIBRARY / room).glob("*.py") if not file.stem.startswith("__")]
        assert 1 <= len(modules) <= MOST, room


@pytest.mark.parametrize("room", ddpo_lib.ROOMS)
def test_a_room_imports_only_from_those_before_it(room):
    files = (LIBRARY / room).glob("*.py")
    assert [wrong for file in files for wrong in pointing_back(file, file.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    "line",
    [
        "from ddpo_lib.runs.pipeline import open_run",
        "def f():\n    from ddpo_lib.runs import pipeline",
        "import ddpo_lib.cli.main",
        "from ddpo_lib.trainer import DeviationTrainer",
        "from ddpo_lib import weights",
        "from ddpo_lib.base.stats import no_such_name",
        "from ddpo_lib.gone import away",
    ],
)
def test_an_import_that_points_back_to_a_door_or_nowhere_is_found(line):
    assert pointing_back(LIBRARY / "training" / "trainer.py", line)


@pytest.mark.parametrize("room", ddpo_lib.ROOMS)
def test_a_room_says_in_two_lines_what_comes_in_and_what_goes_out(room):
    tree = ast.parse((LIBRARY / room / "__init__.py").read_text(encoding="utf-8"))
    said = ast.get_docstring(tree).splitlines()
    assert [line.split(":")[0] for line in said] == ["In", "Out"]


def test_no_import_of_the_library_leads_nowhere():
    files = [*MODULES, *(PROJECT / "tests").rglob("*.py"), *(PROJECT / "benchmarks").rglob("*.py")]
    assert len(files) > 100
    for file in files:
        for module, name in imports(file.read_text(encoding="utf-8")):
            assert target(module, name), f"{file}: from {module} import {name}"


def test_a_door_only_hands_on():
    for door in DOORS:
        tree = ast.parse((LIBRARY / f"{door}.py").read_text(encoding="utf-8"))
        assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in tree.body), door


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("deviation", ["mean_distance", "weights"]),
        ("pairs", ["make_divpo_pairs", "make_pairs"]),
        ("trainer", ["DeviationConfig", "DeviationTrainer"]),
        ("losses", ["ddpo_loss", "dorpo_loss", "log_odds"]),
        ("corpus", ["read_corpus"]),
        ("embed", ["embed"]),
        ("generate", ["generate"]),
        (
            "diversity",
            [
                "compression_ratio",
                "count_vocabulary",
                "distinct_k",
                "distinct_n",
                "ead",
                "effective_diversity",
                "equivalent",
                "matched_length",
                "ngram_diversity",
                "pairwise_distance",
                "rouge_l",
                "self_bleu",
                "truncate",
                "utility_k",
                "vendi",
            ],
        ),
        ("pipeline", ["open_run"]),
    ],
)
def test_public_names_stay_where_a_user_types_them(module, names):
    known = importlib.import_module(f"ddpo_lib.{module}")
    assert set(names) <= set(dir(known)) and all(getattr(known, name).__name__ == name for name in names)


def test_what_readme_shows_comes_from_the_package_itself():
    for name in ddpo_lib.__all__:
        assert getattr(ddpo_lib, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'wieghts'"):
        ddpo_lib.wieghts  # noqa: B018


def answer(code: str) -> str:
    """What a new Python prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT).stdout


def test_the_package_is_imported_in_an_instant():
    code = "import time; start = time.perf_counter(); import ddpo_lib; print(time.perf_counter() - start)"
    assert min(float(answer(code)) for _ in range(3)) < 0.05


@pytest.mark.parametrize(
    "line", ["from ddpo_lib import weights", "from ddpo_lib.deviation import mean_distance, weights"]
)
def test_weights_need_no_torch(line):
    assert answer(f"import sys; {line}; print('torch' in sys.modules, 'numpy' in sys.modules)").split() == [
        "False",
        "True",
    ]
