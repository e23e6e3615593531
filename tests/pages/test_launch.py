"""The notebooks that readers download, and the buttons that open them elsewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from ddpo_lib.base.files import read_mapping
from ddpo_lib.pages.launch import FIRST_CELL, RUNS_CELL, Origin, buttons, make_downloadable, origin
from ddpo_lib.report.kept_run import MARK
from ddpo_lib.runs.pipeline import KEPT_RUN, PROJECT, finished_runs, open_run


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", folder, *named, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path):
    """A checkout whose Makefile notes where it would install."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "Makefile").write_text("install:\n\t@echo '$(IN)' > installed\n")
    (folder / "ddpo_lib").mkdir()
    (folder / "ddpo_lib" / "__init__.py").write_text("MADE = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    return folder


@pytest.mark.parametrize(
    ("remote", "address", "github"),
    [
        ("https://github.com/someone/companion", "https://github.com/someone/companion", "someone/companion"),
        ("https://github.com/someone/companion.git", "https://github.com/someone/companion", "someone/companion"),
        ("https://token@github.com/someone/a.b.git", "https://github.com/someone/a.b", "someone/a.b"),
        ("git@github.com:someone/companion.git", "https://github.com/someone/companion", "someone/companion"),
        ("ssh://git@github.com/someone/companion", "https://github.com/someone/companion", "someone/companion"),
        ("https://me:secret@example.org:8443/git/companion", "https://example.org:8443/git/companion", ""),
        ("https://github.com.example.org/someone/companion", "https://github.com.example.org/someone/companion", ""),
        ("/home/me/companion", "", ""),
        ("file:///home/me/companion", "", ""),
        ("me@example.org:companion", "", ""),
        (None, "", ""),
    ],
)
def test_an_origin_is_a_public_address_without_names_and_passwords(project, remote, address, github):
    if remote:
        git(project, "remote", "add", "origin", remote)
    assert origin(project) == Origin(address, git(project, "rev-parse", "HEAD"), github)


def test_a_changed_checkout_has_no_commit_and_a_folder_without_git_no_origin(project, tmp_path):
    (project / "Makefile").write_text("install:\n")
    assert origin(project) == Origin()
    (tmp_path / "plain").mkdir()
    assert origin(tmp_path / "plain") == Origin()


def test_only_a_project_on_github_has_buttons():
    assert buttons(Origin("https://example.org/companion", "abc")) == {}
    told = buttons(Origin("https://github.com/someone/companion", "abc", "someone/companion"))
    assert told["repository_url"] == "https://github.com/someone/companion"
    assert set(told["launch_buttons"]) == {"notebook_interface", "binderhub_url", "colab_url"}


def test_a_downloaded_notebook_has_no_outputs_no_path_of_the_build_and_a_first_cell_that_installs(tmp_path):
    chapter = nbformat.v4.new_notebook(metadata={"papermill": {"input_path": "/build/chapter.ipynb"}})
    code = nbformat.v4.new_code_cell("print(1)", execution_count=3)
    code.outputs = [nbformat.v4.new_output("stream", text="1\n" * 1000)]
    chosen = nbformat.v4.new_code_cell("runs = None", metadata={"tags": ["parameters"]})
    injected = nbformat.v4.new_code_cell('runs = "/build"', metadata={"tags": ["injected-parameters", "remove-cell"]})
    chapter.cells = [nbformat.v4.new_markdown_cell("Prose."), chosen, injected, code]
    nbformat.write(chapter, tmp_path / "chapter.ipynb")
    make_downloadable(tmp_path / "chapter.ipynb", Origin("https://example.org/companion", "abc"))
    read = nbformat.read(tmp_path / "chapter.ipynb", as_version=4)
    nbformat.validate(read)
    first, *others = [cell.source for cell in read.cells]
    assert others == ["Prose.", "runs = None", RUNS_CELL, "print(1)"]
    assert "'https://example.org/companion'" in first and "'abc'" in first
    assert all(cell.outputs == [] and cell.execution_count is None for cell in read.cells if cell.cell_type == "code")
    assert "/build" not in (tmp_path / "chapter.ipynb").read_text()


def test_the_workflow_puts_the_notebooks_where_the_buttons_look(project, tmp_path):
    """The third command of the workflow, in a checkout with a bare repository as its origin."""
    steps = yaml.safe_load((PROJECT / ".github" / "workflows" / "book.yml").read_text())["jobs"]["build"]["steps"]
    (command,) = (step["run"] for step in steps if "git push" in step.get("run", ""))
    built = project / "book" / "_build" / "html" / "_sources"
    built.mkdir(parents=True)
    (built / "chapter.ipynb").write_text("{}")
    (project / ".gitignore").write_text("*.ipynb\n")
    git(tmp_path, "init", "--quiet", "--bare", "bare")
    git(project, "remote", "add", "origin", str(tmp_path / "bare"))
    before = git(project, "rev-parse", "HEAD")
    for _ in "ab":  # the second push replaces the first
        git(project, "checkout", "--quiet", "--force", "--detach", before)
        shutil.rmtree(project / "launch", ignore_errors=True)
        subprocess.run(["bash", "-e", "-c", command], cwd=project, check=True, capture_output=True)
    told = buttons(Origin("https://github.com/someone/companion", "abc", "someone/companion"))
    branch, place = told["repository_branch"], told["path_to_docs"]
    assert git(tmp_path / "bare", "ls-tree", "--name-only", branch, f"{place}/") == f"{place}/chapter.ipynb"
    assert git(tmp_path / "bare", "rev-parse", f"{branch}^") == before


def test_binder_finds_what_it_needs():
    folder = PROJECT / ".binder"
    assert (folder / "postBuild").stat().st_mode & 0o111
    assert re.fullmatch(r"python-3\.1[1-3]\n", (folder / "runtime.txt").read_text())
    (python,) = re.findall(r"python -c '(.+)'", (folder / "postBuild").read_text())
    assert "finished_runs" in python and compile(python, "postBuild", "exec")


def run_first_cell(folder: Path, address: str, commit: str = "", then: str = "") -> subprocess.CompletedProcess:
    """The first cell in a Python without packages."""
    script = FIRST_CELL.format(address=address, commit=commit) + then
    command = [sys.executable, "-I", "-S", "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_first_cell_clones_the_commit_of_the_pages_and_installs_into_its_own_python(project, tmp_path):
    first = git(project, "rev-parse", "HEAD")
    (project / "ddpo_lib" / "__init__.py").write_text("MADE = 2\n")
    git(project, "commit", "--quiet", "--all", "--message", "two")
    for commit, made in ((first, "1"), ("", "2")):
        (folder := tmp_path / f"reader{made}").mkdir()
        done = run_first_cell(folder, str(project), commit, "import ddpo_lib; print(ddpo_lib.MADE)")
        assert (done.returncode, done.stdout) == (0, f"{made}\n"), done.stderr
        installed = (folder / "ddpo-companion" / "installed").read_text().strip()
        assert installed == f"{Path(sys.executable).parent}/"


def test_a_kernel_that_has_loaded_packages_is_to_be_restarted(project, tmp_path):
    loaded = "import sys, types; sys.modules['numpy'] = types.ModuleType('numpy')\n"
    script = loaded + FIRST_CELL.format(address=str(project), commit="")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "restart the kernel" in done.stderr
    assert (tmp_path / "ddpo-companion" / "installed").exists()


def test_without_an_address_the_first_cell_says_what_to_write(tmp_path):
    done = run_first_cell(tmp_path, "")
    assert done.returncode == 1 and "Write its address above." in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_downloaded_chapter_reads_a_run_of_the_reader_or_else_the_maintainers(tmp_path):
    own = tmp_path / "own"
    assert finished_runs("smoke", None, own) == own
    assert finished_runs(KEPT_RUN, "stories.jsonl", own) == own
    kept = finished_runs(KEPT_RUN, None, own, tmp_path / "kept")
    assert kept == tmp_path / "kept" and not own.exists()
    run = open_run(KEPT_RUN, folder=kept)
    assert run.is_fresh("evaluation") and read_mapping(run.folder / MARK) == {"from": KEPT_RUN}
    assert finished_runs(KEPT_RUN, None, kept, tmp_path / "other") == kept
