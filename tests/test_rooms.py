"""Every module lies in a room, a room imports only from the rooms before it, and public names stay at the doors."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ddpo_lib
from ddpo_lib.base.definitions import Library, Module
from ddpo_lib.base.errors import InputError
from ddpo_lib.report.rooms import Room, read_rooms, room_of, rooms_used

PROJECT = Path(__file__).parents[1]
LIBRARY = PROJECT / "ddpo_lib"
DOORS = {"corpus", "diversity", "embed", "generate", "losses", "pipeline", "trainer"}
MOST = 12  # modules of a room


def wrong_imports(file: Path, source: str | None = None) -> list[str]:
    """Where a module of a room imports from a later room, from a door, or from nowhere."""
    module = Module(Library.of(LIBRARY), file, source or file.read_text(encoding="utf-8"))
    room = ddpo_lib.ROOMS.index(room_of(file, LIBRARY, ddpo_lib.ROOMS))
    try:
        used = rooms_used(module, ddpo_lib.ROOMS)
    except InputError as error:
        return [str(error)]
    return [f"{file}: imports from {name}" for name in used if ddpo_lib.ROOMS.index(name) > room]


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
    assert [wrong for file in (LIBRARY / room).glob("*.py") for wrong in wrong_imports(file)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from ddpo_lib.runs.pipeline import open_run",
        "def f():\n    from ddpo_lib.runs import pipeline",
        "import ddpo_lib.cli.main",
        "from ddpo_lib.trainer import DeviationTrainer",
        "from ddpo_lib import weights",
        "from ddpo_lib.statistics.intervals import no_such_name",
        "from ddpo_lib.gone import away",
    ],
)
def test_an_import_that_points_back_to_a_door_or_nowhere_is_found(line):
    assert wrong_imports(LIBRARY / "training" / "trainer.py", line)


def test_no_import_of_the_library_leads_nowhere():
    files = [*LIBRARY.rglob("*.py"), *(PROJECT / "tests").rglob("*.py"), *(PROJECT / "benchmarks").rglob("*.py")]
    assert len(files) > 100
    for file in files:
        Library.of(LIBRARY).module(file).modules_used()


def test_a_door_only_hands_on():
    for door in DOORS:
        tree = ast.parse((LIBRARY / f"{door}.py").read_text(encoding="utf-8"))
        assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in tree.body), door


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("deviation", ["mean_distance", "weights"]),
        ("rewards", ["DeviationReward"]),
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


# What the page "Inside" draws

ROOMS = ("low", "middle", "high")
SAID = '"""In: numbers.\nOut: sums."""\n'


@pytest.fixture
def house(tmp_path):
    """Writes a library, a source for each file, and reads its rooms."""

    def write(**sources: str) -> list[Room]:
        files = {"__init__": 'ROOMS = ("low", "middle", "high")', **{f"{room}/__init__": SAID for room in ROOMS}}
        for name, source in {**files, **sources}.items():
            file = tmp_path / "house" / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source, encoding="utf-8")
        return read_rooms(tmp_path / "house")

    return write


LOW = {"low/one": "def f(): ...\ndef g(): ...\n", "low/two": "def h(): ...\n"}


def test_each_import_of_one_room_by_another_counts_once_for_each_module(house):
    rooms = house(
        **LOW,
        **{
            "middle/a": "from house.low.one import f, g\nfrom house.low import two\n",
            "middle/b": "def late():\n    from house.low.one import f\n    from house.low.one import g\n",
            "high/c": "import numpy\nimport house.low.two\nimport house.middle.a as a\nfrom house.high import d\n",
            "high/d": "import house.low.one, house.low.two\n",
        },
    )
    assert [(room.name, room.modules, room.lines) for room in rooms] == [
        ("low", 2, 5),
        ("middle", 2, 7),
        ("high", 2, 7),
    ]
    assert [room.imports for room in rooms] == [{}, {"low": 3}, {"low": 3, "middle": 1}]
    assert {(room.takes, room.gives) for room in rooms} == {("numbers", "sums")}


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        ({"attic/x": ""}, "attic/x.py: lies in no room; put it into the folder of one of low, middle, high"),
        ({"door": "", "high/c": "from house import door\n"}, "door.py: lies in no room"),
        ({"attic/x": "", "high/c": "from house.attic import x\n"}, "attic/x.py: lies in no room"),
        ({"high/c": "from house.low.one import gone\n"}, "c.py: imports house.low.one.gone"),
        ({"low/__init__": '"""Sums of numbers."""\n'}, "low/__init__.py: its docstring must say in two lines"),
    ],
)
def test_an_unknown_room_or_import_is_an_error_that_names_the_file(house, sources, told):
    with pytest.raises(InputError, match=re.escape(told)):
        house(**LOW, **sources)


def test_the_rooms_of_the_library_are_read_with_all_their_modules_and_imports():
    rooms = read_rooms()
    assert tuple(room.name for room in rooms) == ddpo_lib.ROOMS
    found = {room.name: room for room in rooms}
    assert sum(room.lines for room in rooms) == sum(
        len(file.read_text(encoding="utf-8").splitlines()) for file in LIBRARY.glob("*/*.py")
    )
    assert found["base"].imports == {}
    assert found["models"].takes == "a model's name in a profile"
    source = "\n".join(file.read_text(encoding="utf-8") for file in (LIBRARY / "deviation").glob("*.py"))
    assert set(found["deviation"].imports) == set(re.findall(r"ddpo_lib\.(\w+)", source)) - {"deviation"}
