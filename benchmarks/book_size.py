"""How large the built book is, by kind of file, and what its first page loads before fonts and equations.

Reads the pages in `book/_build/html`; where none are built there is nothing to measure and the table stays empty.
"""

import re
from pathlib import Path

from benchmarks.measure import Row

PAGES = Path(__file__).parents[1] / "book" / "_build" / "html"
FIRST = "00a-welcome.html"
PAPER = "book.pdf"  # beside the pages, if somebody printed it
KINDS = {
    "pages with their figures": r"[^/]+\.html",
    "the script that draws maps": r"_static/plotly.*",
    "the script and the fonts of equations": r"_static/mathjax/.*",
    "samples and logs to download": r"_static/.*\.zip",
    "sources to download": r"_sources/.*",
    "the index of the search": r"searchindex\.js",
    "all else": r".*",
}
MOST = 15e6  # bytes of the book
MOST_FIRST = 400e3  # bytes of the first page with its styles and scripts
MOST_FILES = 20
LOADED = re.compile(r'<(?:link\b[^>]*rel="stylesheet"[^>]*href|(?:script|img)\b[^>]*src)="([^":?]+)(?=[?"])')


def rows(folder: Path = PAGES) -> list[Row]:
    """The table; without built pages, none."""
    if not (folder / FIRST).is_file():
        return []
    kinds = by_kind(folder)
    whole = sum(kinds.values())
    loaded = first_page(folder)
    size, number = sum(loaded.values()), len(loaded)
    return [
        Row("the built book", "the limit", "at most 15 MB", f"{whole / 1e6:.1f} MB", "", whole <= MOST),
        *(Row("", kind, "", f"{bytes_ / 1e6:.2f} MB", "", None) for kind, bytes_ in kinds.items()),
        Row("its first page", "the limit", "at most 400 kB", f"{size / 1e3:.0f} kB", "", size <= MOST_FIRST),
        Row("", "the limit", "at most 20 files", f"{number}", "", number <= MOST_FILES),
    ]


def by_kind(folder: Path) -> dict[str, int]:
    """The bytes of a built book, without its PDF; a file counts for the first kind that has its name."""
    sizes = dict.fromkeys(KINDS, 0)
    for file in (path for path in folder.rglob("*") if path.is_file() and path.name != PAPER):
        name = file.relative_to(folder).as_posix()
        sizes[next(kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, name))] += file.stat().st_size
    return sizes


def first_page(folder: Path) -> dict[str, int]:
    """The bytes of the first page and of each file that it loads, by name, without fonts and equations."""
    names = [FIRST, *LOADED.findall((folder / FIRST).read_text(encoding="utf-8"))]
    return {name: (folder / name).stat().st_size for name in names if "mathjax/" not in name}
