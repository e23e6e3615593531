"""What the project says of itself holds: pins, files that ship, names."""

import importlib
import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from conftest import LONG_FILES

from ddpo_lib.report.book import publish

PROJECT = Path(__file__).parents[1]


def locked() -> dict[str, str]:
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    return dict(re.match(r"([\w.-]+)==(\S+)", line).groups() for line in lines if not line.startswith("#"))


def test_the_conda_pins_are_those_of_the_lock():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    (pins,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert len(pins) > 15
    for pin in pins:
        name, version = pin.split("==")
        assert locked()[name] == version, name


def test_every_dependency_is_locked():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        if not requirement.startswith("ddpo-lib["):  # the layer below
            assert re.match(r"[\w-]+", requirement).group() in locked(), requirement


def test_the_version_is_the_same_wherever_it_is_written():
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((PROJECT / "CITATION.cff").read_text())["version"] == version


def test_the_model_wheels_are_those_that_the_library_trusts():
    from ddpo_lib.models.models import WHEELS

    lines = (PROJECT / "models.lock").read_text()
    for wheel in WHEELS.values():
        assert f"{wheel.requirement} --hash=sha256:" in lines


def test_notebooks_are_sources_and_each_but_the_explorer_is_a_chapter_of_the_book():
    from ddpo_lib.runs.pipeline import CHAPTERS

    contents = (PROJECT / "book" / "_toc.yml").read_text()
    assert {path.stem for path in (PROJECT / "notebooks").glob("*.md")} == {*CHAPTERS, "explore"}
    assert not list((PROJECT / "notebooks").glob("*.ipynb"))
    for stem in CHAPTERS:
        assert re.search(rf"(file|root): {stem}$", contents, re.M), stem


def test_each_file_of_tests_that_starts_early_is_there_once():
    """A file that was renamed would run last, and `make test` would wait for it with one core idle."""
    names = [path.name for path in (PROJECT / "tests").rglob("test_*.py")]
    assert [names.count(name) for name in LONG_FILES] == [1] * len(set(LONG_FILES))


API = re.findall(r"automodule:: (\S+)\n((?:   :.*\n)*)", (PROJECT / "book" / "api.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("module", "options"), API, ids=[module for module, _ in API])
def test_what_the_page_of_the_library_names_is_there(module, options):
    named = re.findall(r":(?:exclude-)?members: (.+)", options)
    there = dir(importlib.import_module(module))
    classes = [value for value in vars(importlib.import_module(module)).values() if isinstance(value, type)]
    for name in (name.strip() for names in named for name in names.split(",")):
        assert name in there or any(hasattr(one, name) for one in classes), name


def test_the_workflow_publishes_what_make_read_builds(tmp_path):
    """As far as it can be told here: its commands are targets of the Makefile, and its folder that of `publish`."""
    jobs = yaml.safe_load((PROJECT / ".github" / "workflows" / "book.yml").read_text())["jobs"]
    steps = jobs["build"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[:2] == ["make read", "make pdf"]  # the PDF lies beside the pages
    assert len(commands) == 3  # the third is run in tests/pages/test_launch.py
    targets = re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert {"read", "pdf"} <= set(targets)
    (python,) = (step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    assert python in tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "index.html").write_text("a page")
    folder = publish(tmp_path / "html", tmp_path).parent.relative_to(tmp_path)
    (place,) = (step["with"]["path"] for step in steps if "upload-pages" in step.get("uses", ""))
    assert place == folder.as_posix()
