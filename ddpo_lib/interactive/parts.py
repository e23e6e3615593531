"""Parts of a page that readers can change: data and a still form go into the page, scripts lie beside it.

A part needs no network and no server, and works from a file:// URL. `parts.js` is the library of all parts: it makes
elements, draws axes, and opens the parts of a page. The part NAME is drawn by `NAME.js`, which registers itself with
`ddpoParts.add("NAME", (root, data) => ...)`. The still form is what readers see in print and without scripts.
"""

import base64
import gzip
import html
import json
import re
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

from plotly.offline import get_plotlyjs

from ddpo_lib.report import figures

LIBRARY = Path(__file__).with_name("parts.js")
LOOK = Path(__file__).with_name("interactive.css")
MAP = Path(__file__).with_name("deviation_map.js")
LABORATORY = Path(__file__).with_name("laboratory.js")
WEIGHTING = Path(__file__).with_name("weighting.js")
COUNTED = Path(__file__).with_name("counted_spaces.js")
POWER = Path(__file__).with_name("power.js")
MODES = Path(__file__).with_name("modes_through_training.js")
PLANE = Path(__file__).with_name("quality_plane.js")
READER = Path(__file__).with_name("story_reader.js")
# one constant a file, so that an edit of the file makes the book stale
FILES = (LIBRARY, LOOK, MAP, LABORATORY, WEIGHTING, COUNTED, POWER, MODES, PLANE, READER)
START = """
(() => {
  const figure = document.currentScript.closest("figure");
  const loaded = (window.ddpoScripts ??= {});
  const load = (file) => (loaded[file] ??= new Promise((done, fail) => {
    const script = document.createElement("script");
    Object.assign(script, { src: "_static/" + file, async: false, onload: done, onerror: fail }); // in this order
    document.head.append(script);
  }));
  load("parts.js").then(() => Promise.all(SCRIPTS.map(load))).then(() => window.ddpoParts.open(figure), () => {});
})();
"""  # a page with several parts loads each script once; if one is missing, the still form stays


def part(name: str, data: bytes | dict, *, still: str, caption: str = "", scripts: tuple[str, ...] = ()) -> str:
    """A part as HTML, for a page beside a folder `_static/` that contains `assets()`.

    Args:
        name: of the part; `NAME.js` draws it.
        data: what `NAME.js` gets, as a dict for JSON or as JSON compressed by gzip.
        still: HTML for print and for readers without scripts; the caller escapes all texts in it.
        caption: a sentence below the part.
        scripts: other files of `assets()` that the part needs.

    Returns:
        A `figure` element.
    """
    packed = data if isinstance(data, bytes) else pack(data)
    files = json.dumps([*scripts, f"{name}.js"])
    note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="ddpo-part-figure" data-part="{name}"><div class="ddpo-still">{still}</div>'
        f'<div class="ddpo-part"></div>'
        f'<script type="application/gzip;base64">{base64.b64encode(packed).decode()}</script>'
        f"<script>{START.replace('SCRIPTS', files)}</script>{note}</figure>"
    )


def pack(data: dict) -> bytes:
    """JSON, compressed; the same data give the same bytes."""
    return gzip.compress(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(), 6, mtime=0)


def largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `most` that fits, if each smaller one does; at least 1."""
    return max(1, bisect_left(range(1, most + 1), True, key=lambda number: not fits(number)))


def arm_look(arm: str) -> dict[str, str]:
    """An arm in the data of a part: its `name`, its `colour` and its `mark`, an SVG path; as in the book's figures."""
    return {"name": figures.name(arm), "colour": figures.colour(arm), "mark": figures.outline(arm)}


def assets() -> dict[str, bytes]:
    """The files that parts need in a book's `_static/`: name -> content."""
    scripts = {file.name: file.read_bytes() for file in FILES}
    return {"plotly.min.js": packed_script(get_plotlyjs()), **scripts}


def packed_script(code: str) -> bytes:
    """A script of less than half the size that does the same after `parts.js`; its first comment, the licence, stays
    readable."""
    licence = re.match(r"\s*/\*.*?\*/", code, re.DOTALL)
    coded = base64.b64encode(gzip.compress(code.encode(), 9, mtime=0)).decode()
    return f'{licence[0] if licence else ""}\nwindow.ddpoParts.unpack("{coded}");\n'.encode()
