"""The number, the anchor and the source of each figure and table of a chapter, and its data as CSV.

A chapter registers itself once (`chapter`). Figures and tables are then numbered in the order in which they are shown,
apart from each other. In an executed notebook, a link to data holds the data themselves, so it works everywhere. The
book writes them to files (`take_out_data`).
"""

import base64
import html
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ddpo_lib.base.files import read_mapping
from ddpo_lib.base.run_folder import Run, surroundings
from ddpo_lib.profiles.wording import interval, p_value

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ANCHOR = re.compile(r'<figure id="((?:figure|table)-[a-z0-9-]+)" data-number="([^"]+)"')
REFERENCE = re.compile(r"\[[^\]]*\]\(#((?:figure|table)-[a-z0-9-]+)\)")
DATA = re.compile(r'href="data:text/csv;charset=utf-8;base64,([A-Za-z0-9+/=]*)" download="([a-z0-9-]+\.csv)"')
ENDS = {"low": ", lower end", "high": ", upper end"}  # of an interval, in the name of a column
MOST = 8  # names of artifacts in one mention
PLACE = "data"  # in `_static` of the book: a folder for each chapter


@dataclass(frozen=True)
class Cell:
    """A cell of a table: the text that readers see, and the numbers from which it was made, by their name."""

    text: str
    numbers: dict[str, float | None]

    def __str__(self) -> str:
        return self.text


def estimated(values: dict, digits: int = 3, sign: bool = False) -> Cell:
    """A mean with its interval as a cell, in the form of `interval`; `values` has `mean`, `low` and `high`."""
    numbers = {"": values["mean"], **{said: values[end] for end, said in ENDS.items()}}
    return Cell(interval(values, digits, sign), numbers)


def estimate(row: dict, name: str, digits: int = 2, sign: bool = False) -> str:
    """A value of a row of findings with its interval (`name`, `name_low`, `name_high`), in the form of `interval`."""
    return interval(limits(row, name), digits, sign)


def ends(values: dict) -> tuple[float, float]:
    """The ends of an interval for a drawing; NaN, which is not drawn, if there is none."""
    return tuple(math.nan if values[end] is None else values[end] for end in ("low", "high"))


def limits(row: dict, name: str) -> dict:
    """A value of a row of findings as `interval` and `estimated` take it: with `mean`, `low` and `high`."""
    return {"mean": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def number(value: float, style: str) -> Cell:
    """A number as a cell, written in a style of `format`, with a true minus sign."""
    return Cell(format(value, style).replace("-", "−"), {" (fraction)" if style.endswith("%") else "": value})


def probability(p: float | None) -> Cell:
    """A p value as a cell, in the form of `p_value`; empty if it is None."""
    return Cell(p_value(p), {"": p})


@dataclass
class Chapter:
    """A chapter while it runs: what its figures are made from, and the numbers that they have so far.

    Attributes:
        run: the run that the chapter reads.
        stem: the name of its notebook, such as `02-training`.
        of: artifacts of the run, or folders of results/, from which its figures are made unless they say otherwise.
        on: how many prompts, samples and seeds its numbers rest on, in words, unless a figure says otherwise.
    """

    run: Run
    stem: str
    of: Iterable[str | Path]
    on: str
    numbers: dict[str, int] = field(default_factory=dict)  # of an anchor

    def label(self, anchor: str) -> str:
        """The number of a figure or table, `Figure 2.3`. A new anchor has the next one; a known one keeps its own."""
        kind = anchor.partition("-")[0]
        taken = [known for known in self.numbers if known.startswith(f"{kind}-")]
        place = self.numbers.setdefault(anchor, len(taken) + 1)
        return f"{kind.capitalize()} {chapter_number(self.stem)}.{place}"


_chapter: Chapter | None = None


def chapter(run: Run, stem: str, *, of: Iterable[str | Path] = (), on: str = "") -> None:
    """Register the chapter that runs in this process; its figures and tables are numbered from 1.

    Args:
        run: the run that the chapter reads.
        stem, of, on: as in `Chapter`.
    """
    global _chapter
    _chapter = Chapter(run, stem, tuple(of), on)


def chapter_number(stem: str) -> str:
    """The number of a chapter from the name of its notebook: `2a` for `02a-sharpness`, `0` for one without a number."""
    found = re.match(r"0*(\d+[a-z]?)-", stem)
    return found[1] if found else "0"


def reserve(kind: str, name: str) -> None:
    """Number a figure or table that stands here and is made further down."""
    _current().label(f"{kind}-{name}")


def ref(anchor: str) -> str:
    """The number of a figure or table that was shown before, for a sentence: `ref("table-claims")` is `Table 2.4`.

    Raises:
        ValueError: no figure or table of this chapter has that anchor yet.
    """
    if anchor not in _current().numbers:
        raise ValueError(f"{anchor}: no figure or table before this sentence has that anchor")
    return _current().label(anchor)


@dataclass(frozen=True)
class Source:
    """What a figure or table carries: its anchor, its number, and a fold with its data and origin in HTML."""

    anchor: str
    number: str
    fold: str


def source(
    kind: str, name: str, data: pd.DataFrame, of: Iterable[str | Path] | None = None, on: str | None = None
) -> Source:
    """Number a figure or table of the registered chapter and write where it is from.

    Args:
        kind: `figure` or `table`.
        name: short, the same for as long as the figure exists, of small letters, digits and hyphens. It makes the
            anchor, so a link survives when figures are added.
        data: what is drawn, with units in the names of its columns.
        of, on: as in `Chapter`; None for those of the chapter.

    Raises:
        ValueError: no chapter is registered, the name has other signs, the data are missing, or the run has no such
            artifact.
    """
    now = _current()
    if not NAME.fullmatch(name):
        raise ValueError(f"{kind} {name!r}: a name has small letters, digits and hyphens only")
    if not isinstance(data, pd.DataFrame):
        raise ValueError(f"{kind} {name}: it has no data; give the frame that is drawn as `data`")
    anchor = f"{kind}-{name}"
    label = now.label(anchor)
    packed = base64.b64encode(to_csv(data).encode()).decode()
    link = f'<a href="data:text/csv;charset=utf-8;base64,{packed}" download="{anchor}.csv">Data as CSV</a>'
    facts = [made_from(now.run, now.of if of is None else of)]
    facts += [f"Made by notebooks/{now.stem}.md at commit {surroundings()['commit'] or 'unknown'}."]
    facts += [f"Over {on}."] if (on := now.on if on is None else on) else []
    told = html.escape(" ".join(facts))
    here = f'<a href="#{anchor}">Link to this {kind}</a>'
    fold = (
        f'<details class="ddpo-source"><summary>{label}: data and source</summary>'
        f"<p>{link} ({len(data)} row{'s' * (len(data) != 1)}). {told} {here}</p></details>"
    )
    return Source(anchor, label, fold)


def made_from(run: Run, of: Iterable[str | Path]) -> str:
    """Artifacts with their commits, days and seeds, as sentences; artifacts of one commit and day share a mention.

    Raises:
        ValueError: an artifact was not made.
    """
    alike: dict[str, list[str]] = {}
    seeds = set()
    for one in of:
        stored = isinstance(one, Path)
        manifest = read_mapping(one if one.is_file() else one / "manifest.json") if stored else run.manifest(one)
        if not manifest:
            raise ValueError(f"{one}: {'nothing is stored there' if stored else f'{run.folder} has no such artifact'}")
        seeds |= {manifest["params"]["seed"]} if "seed" in manifest.get("params", {}) else set()
        shown = "/".join(one.parts[one.parts.index("results") :]) if stored else one
        alike.setdefault(f"at commit {manifest['commit'] or 'unknown'} on {manifest['made']}", []).append(shown)
    if not alike:
        return "From no artifact of the run."
    told = "; ".join(f"{_some(names)} ({when})" for when, names in alike.items())
    seeded = f" Seed{'s' * (len(seeds) > 1)}: {', '.join(map(str, sorted(seeds)))}." if seeds else ""
    return f"Data from {told}.{seeded}"


def to_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV, with all digits. A cell made of several numbers becomes as many columns.

    Text beside such cells, such as a dash, stays in the first of their columns.
    """
    columns = {}
    for position, name in enumerate(frame.columns):
        cells = frame.iloc[:, position].tolist()
        plain = (
            " ".join(re.sub(r"_(low|high)$", lambda end: ENDS[end[1]], str(name)).replace("_", " ").split()) or "row"
        )
        parts = dict.fromkeys(part for cell in cells if isinstance(cell, Cell) for part in cell.numbers) or {"": None}
        first = next(iter(parts))
        for part in parts:
            columns[plain + part] = [
                cell.numbers.get(part) if isinstance(cell, Cell) else cell if part == first else None for cell in cells
            ]
    return pd.DataFrame(columns, dtype=object).to_csv(index=False, lineterminator="\n")


def resolve(notebook) -> None:
    """Give references in the prose of an executed notebook their numbers.

    Prose refers to a figure as `[the figure](#figure-NAME)`; this becomes a link whose text is `Figure 2.3`.

    Args:
        notebook: of `nbformat`, changed in place.

    Raises:
        ValueError: two figures have one anchor, or the prose refers to one that is not there.
    """
    found = [pair for page in _pages(notebook) for pair in ANCHOR.findall(page["text/html"])]
    numbers = dict(found)
    if len(numbers) < len(found):
        names = [anchor for anchor, _ in found]
        raise ValueError(f"{sorted({name for name in names if names.count(name) > 1})}: two have this anchor")

    def link(match: re.Match) -> str:
        if match[1] not in numbers:
            raise ValueError(f"{match[0]}: the chapter has no figure or table with that anchor")
        return f'<a href="#{match[1]}">{numbers[match[1]]}</a>'

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = REFERENCE.sub(link, cell.source)


def take_out_data(notebook, stem: str) -> dict[str, bytes]:
    """Replace the data in an executed notebook's links by paths of files; return the files, by path in `_static`."""
    files = {}

    def link(match: re.Match) -> str:
        path = f"{PLACE}/{stem}/{match[2]}"
        files[path] = base64.b64decode(match[1])
        return f'href="_static/{path}" download="{match[2]}"'

    for page in _pages(notebook):
        page["text/html"] = DATA.sub(link, page["text/html"])
    return files


def _pages(notebook) -> list[dict]:
    """The outputs of a notebook that are HTML, each as its forms by type."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"] for output in outputs if "text/html" in output.get("data", {})]


def _some(names: list[str]) -> str:
    """Names in a list, no more than `MOST` of them, and how many follow."""
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if names[MOST:] else "")


def _current() -> Chapter:
    if _chapter is None:
        raise ValueError("no chapter is registered; call `figures.chapter(run, STEM)` before the first figure")
    return _chapter
