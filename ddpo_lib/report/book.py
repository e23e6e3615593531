"""Chapters -> executed notebooks -> the HTML book, through jupytext, papermill and Jupyter Book 1.x."""

import json
import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from ddpo_lib.base.extras import require

BENCHMARKS = Path("benchmarks") / "RESULTS.md"  # it becomes a page
ADDED = tuple(  # follow at the end of that page; modules of benchmarks/ that take long write them
    Path("results", *names) for names in (("gpu", "speed.md"), ("faults", "faults.md"), ("faults", "fuzz.md"))
)
DIGITS = "%.9g"  # of a number in a log: as many as tell float32 numbers apart
WIDGET = "application/vnd.jupyter.widget-view+json"
# of MathJax, what pages load: the script of Sphinx, its fonts, and extensions for equations. The script puts
# hidden MathML beside each equation, which screen readers speak; its menu, which offers more, is off (_config.yml)
MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2/*", "input/tex/extensions/*", "a11y/assistive-mml.js")
MATHJAX_WHOLE = "input/tex/extensions/all-packages.js"  # all extensions in one file, which no page asks for


def execute(notebook: Path, folder: Path, parameters: dict) -> Path:
    """Run a MyST Markdown notebook with papermill.

    Args:
        notebook: the source.
        folder: for the executed notebook, which gets the source's name with `.ipynb`.
        parameters: values for the parameters cell.

    Returns:
        The executed notebook.

    Raises:
        papermill.PapermillExecutionError: a cell failed; the notebook with the traceback stays in `folder`.
        ValueError: two figures have one anchor, or the prose refers to a figure that is not there.
    """
    import jupytext
    import nbformat
    import papermill

    from ddpo_lib.report.sources import resolve

    folder.mkdir(parents=True, exist_ok=True)
    executed = folder / f"{notebook.stem}.ipynb"
    jupytext.write(jupytext.read(notebook), executed)
    path = str(executed).replace("{", "{{").replace("}", "}}")  # papermill formats a path
    papermill.execute_notebook(
        path,
        path,
        parameters,
        kernel_name="python3",
        progress_bar=False,
        start_timeout=600,  # seconds; a kernel starts slowly beside other jobs
        cwd=notebook.parent,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # else its warning about TCP appears in every chapter
    )
    done = nbformat.read(executed, as_version=4)
    for cell in done.cells:  # hides the injected parameters: the provenance shows them, and paths tell a reader nothing
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"] = [*cell.metadata["tags"], "remove-cell"]
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    done.metadata.pop(
        "widgets", None
    )  # drops progress bars: they need a kernel, and would load scripts from the network
    resolve(done)
    nbformat.write(done, executed)
    return executed


def build(
    project: Path,
    executed: list[Path],
    folder: Path,
    assets: dict[str, bytes],
    announcement: str | None = None,
    footer: str = "",
    buttons: dict | None = None,
) -> None:
    """Build the HTML from prose pages and executed notebooks; any warning is an error.

    Args:
        project: the checkout, with `book/`, `_config.yml` and what `make bench` wrote.
        executed: executed notebooks, one per chapter.
        folder: the pages are written to its `_build/html`.
        assets: files for `_static/`, by name. Every page loads the style sheets; no page loads a script by itself.
        announcement: HTML that every page shows at its top.
        footer: HTML that every page shows at its end.
        buttons: the theme's options for buttons that open a chapter elsewhere.

    Raises:
        RuntimeError: the build failed; the message is Sphinx's.
    """
    import nbformat
    import yaml

    from ddpo_lib.report.sources import take_out_data

    require("jupyter_book")
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(project / "book", source, ignore=shutil.ignore_patterns("_build"))
    data = {}
    for notebook in executed:
        read = nbformat.read(notebook, as_version=4)
        data |= take_out_data(read, notebook.stem)
        nbformat.write(read, source / notebook.name)
    parts = [path.read_text(encoding="utf-8") for path in benchmark_files(project)]
    (source / "benchmarks.md").write_text("\n".join(parts), encoding="utf-8")
    for name in [name for name in assets if name.endswith(".css")]:
        (source / "_static" / name).write_bytes(assets[name])
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(source),
        "--warningiserror",
        "--keep-going",
    ]
    config = yaml.safe_load((project / "_config.yml").read_text(encoding="utf-8"))
    options = config["sphinx"]["config"]["html_theme_options"]  # they replace those of `html`
    options |= {"announcement": announcement or "", "extra_footer": footer} | (buttons or {})
    (folder / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command += ["--config", str(folder / "_config.yml"), "--path-output", str(folder), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONUTF8": "1"})
    if done.returncode:
        raise RuntimeError(f"the book was not built:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    static = folder / "_build" / "html" / "_static"
    for name, content in (assets | data).items():  # after the build, which would load every script on every page
        (static / name).parent.mkdir(parents=True, exist_ok=True)
        (static / name).write_bytes(content)
    trim(static)


def trim(static: Path) -> None:
    """Delete what no equation of a built book needs from the MathJax in its `_static`, which is most of it."""
    mathjax = static / "mathjax"
    for file in [path for path in mathjax.rglob("*") if path.is_file()]:
        name = file.relative_to(mathjax).as_posix()
        if name == MATHJAX_WHOLE or not any(fnmatch(name, pattern) for pattern in MATHJAX):
            file.unlink()


def write_downloads(run: Path, static: Path) -> None:
    """Write what readers may want from a run beside its pages: `samples.zip` and `logs.zip`.

    `samples.zip` has one file of JSON Lines for each `samples-NAME` of the run, with every column of its table.
    `logs.zip` has one CSV for each training, with a row per entry of its log. The same run gives the same bytes.

    Args:
        run: the folder of the run.
        static: the `_static` of the built book.
    """
    import pandas as pd

    with ZipFile(static / "samples.zip", "w", ZIP_DEFLATED) as archive:
        for file in sorted(run.glob("samples-*/samples.parquet")):
            lines = pd.read_parquet(file).to_json(orient="records", lines=True, force_ascii=False)
            archive.writestr(_plain_entry(f"{file.parent.name.removeprefix('samples-')}.jsonl"), lines)
    with ZipFile(static / "logs.zip", "w", ZIP_DEFLATED) as archive:
        for file in sorted(run.glob("*/log.json")):
            log = pd.DataFrame(json.loads(file.read_text(encoding="utf-8")))
            archive.writestr(_plain_entry(f"{file.parent.name}.csv"), log.to_csv(index=False, float_format=DIGITS))


def _plain_entry(name: str) -> ZipInfo:
    """An entry of an archive without the time at which it was made."""
    entry = ZipInfo(name)
    entry.compress_type = ZIP_DEFLATED
    return entry


def benchmark_files(project: Path) -> list[Path]:
    """The files from which the page of benchmarks is made."""
    return [project / BENCHMARKS, *(project / file for file in ADDED if (project / file).is_file())]


def setup(app) -> dict:
    """The entry point of a Sphinx extension that removes Thebe, which would run cells on a third party's server.

    Jupyter Book writes Thebe's settings twice to each page, and the browser reports the second as an error.
    """
    app.connect("html-page-context", _drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _drop_thebe(app, page: str, template: str, context: dict, doctree) -> None:
    scripts = context["script_files"]
    context["script_files"] = [s for s in scripts if "thebe" not in f"{s.filename} {s.attributes.get('body')}"]


def publish(html: Path, project: Path) -> Path:
    """Copy built pages to `book/_build/html` of the checkout, where readers find them; return the first page."""
    place = project / "book" / "_build" / "html"
    aside = place.with_name("html.partial")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(html, aside)
    shutil.rmtree(place, ignore_errors=True)
    aside.replace(place)
    return place / "index.html"
