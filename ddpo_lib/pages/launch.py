"""What lets a reader run a chapter elsewhere: the notebook that its page offers, and buttons of services that run it.

Both need the address of the project. It is read from the checkout's remote `origin`, so no page names an address that
somebody typed. A book that is built from a checkout without a public remote has no buttons, and the first cell of its
notebooks asks for the address where the library is not installed.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import nbformat

BRANCH = "launch"  # the workflow that publishes the book puts its notebooks there, in a folder of that name
GITHUB = re.compile(r"(?:https://(?:[^@/]+@)?|ssh://git@|git@)github\.com[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?")
PUBLIC = re.compile(r"https://(?:[^@/]+@)?([\w.-]+(?::\d+)?/\S+)")
FIRST_CELL = """\
# Installs what is missing: the project, its pinned packages and two small models. Needs a network, git and make.
import importlib.util
import os
import subprocess
import sys

address = {address!r}  # of the project, for git
commit = {commit!r}  # from which these pages were built; "" for the newest

if importlib.util.find_spec("ddpo_lib") is None:
    if sys.version_info < (3, 11):
        raise SystemExit("This chapter needs Python 3.11 or later.")
    if not address:
        raise SystemExit("This book was built from a project without a public address. Write its address above.")
    project = os.path.abspath("ddpo-companion")
    if not os.path.isdir(project):
        subprocess.run(["git", "clone", "--quiet", address, project], check=True)
        subprocess.run(["git", "-C", project, "checkout", "--quiet", commit or "HEAD"], check=True)
    place = f"IN={{os.path.dirname(sys.executable)}}/"
    subprocess.run(["make", "--no-print-directory", "-C", project, "install", place], check=True)
    if "numpy" in sys.modules:
        raise SystemExit("All is installed. Other versions were loaded before: restart the kernel and run all cells.")
    sys.path.insert(0, project)
    importlib.invalidate_caches()
"""
RUNS_CELL = """\
# A run of your own if there is one in the project, or else the maintainers', which needs no training.
from ddpo_lib.runs.pipeline import finished_runs

runs = finished_runs(profile, corpus, runs)"""


@dataclass(frozen=True)
class Origin:
    """Where a checkout is from.

    Attributes:
        address: for `git clone`; "" if the checkout has no public remote.
        commit: of the checkout; "" if files differ from it or there is none.
        github: `owner/name` on GitHub; "" elsewhere.
    """

    address: str = ""
    commit: str = ""
    github: str = ""


def origin(project: Path) -> Origin:
    """The origin of a checkout. Names and passwords in an address are left out."""
    remote = _git(project, "remote", "get-url", "origin")
    commit = (
        "" if _git(project, "status", "--porcelain", "--untracked-files=no") else _git(project, "rev-parse", "HEAD")
    )
    if found := GITHUB.fullmatch(remote):
        return Origin(f"https://github.com/{found[1]}", commit, found[1])
    found = PUBLIC.fullmatch(remote)
    return Origin(f"https://{found[1]}" if found else "", commit)


def buttons(source: Origin) -> dict:
    """The theme's options for buttons that open a chapter on Binder and Colab; none if the project is not on GitHub."""
    if not source.github:
        return {}
    services = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}
    return {
        "repository_url": source.address,
        "repository_branch": BRANCH,
        "path_to_docs": BRANCH,
        "launch_buttons": {"notebook_interface": "jupyterlab"} | services,
    }


def make_downloadable(notebook: Path, source: Origin) -> None:
    """Change an executed chapter into the notebook that readers download: it runs as it is, and has no outputs.

    A first cell installs what is missing. The parameters that the build injected, which hold its paths, are replaced by
    a cell that finds a run to read. The page shows the outputs, and running the notebook makes them again.

    Args:
        notebook: of a built book; the file is replaced. One without code keeps its cells.
        source: where the project is from.
    """
    read = nbformat.read(notebook, as_version=4)
    for cell in read.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source, cell.metadata["tags"] = RUNS_CELL, ["remove-input"]
    first = FIRST_CELL.format(address=source.address, commit=source.commit)
    read.cells.insert(0, nbformat.v4.new_code_cell(first, id="install-what-is-missing"))
    read.metadata.pop("papermill", None)
    nbformat.write(read, notebook)


def _git(project: Path, *words: str) -> str:
    """What git says of a checkout; "" if it fails or there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(project), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
