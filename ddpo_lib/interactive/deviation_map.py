"""An interactive map of responses: the same drawing in the book (no network, no server) and in JupyterLab (a widget).

`deviation_map.js` draws it with plotly.js from the plotly package. Both forms take `points`, a table with one row per
response:

- `prompt_id prompt text who score`: `who` is "train" or "test" for the corpus's own responses, else an arm; score is
  NaN if there is none
- for every space S: `deviation S`; `x S` and `y S`, the place in the map of the whole corpus; `prompt x S` and
  `prompt y S`, the place in the map of the response's prompt; NaN if it has no place there
"""

import gzip
import json
from pathlib import Path

import anywidget
import ipywidgets
import numpy as np
import pandas as pd
import traitlets
from plotly.offline import get_plotlyjs

from ddpo_lib.base.errors import InputError
from ddpo_lib.interactive.parts import LIBRARY, LOOK, MAP, largest, pack, part
from ddpo_lib.report.explore import map_marks, people_first

MOST_POINTS = 10_000  # with this many, a browser still responds at once
PAGE_BYTES = 2_500_000  # limit for a map's data in a page
COLUMNS = ("prompt_id", "prompt", "text", "who", "score")
SHAPES = {  # matplotlib's mark -> plotly's symbol, and the character beside a check box, filled and open
    "o": ("circle", "●○"),
    "s": ("square", "■□"),
    "D": ("diamond", "◆◇"),
    "^": ("triangle-up", "▲△"),
    "v": ("triangle-down", "▼▽"),
    "<": ("triangle-left", "◀◁"),
    "P": ("cross", "✚✛"),
    "*": ("star", "★☆"),
    "H": ("hexagon", "⬢⬡"),
    "p": ("pentagon", "⬟⬠"),
}


def page(points: pd.DataFrame, *, caption: str = "") -> str:
    """The map as HTML, for a page beside a folder `_static/` that contains `assets()`. It works from a file:// URL.

    Args:
        points: the table described above. If it has more than 10,000 rows, 10,000 of them are drawn at random, with a
            fixed seed.
        caption: a sentence below the map.

    Returns:
        HTML of at most 2.5 MB, unless prompts and places alone need more. If whole texts do not fit, each is cut to the
        same length, the longest that fits, and the page says so.

    Raises:
        InputError: a column is missing, or there is no row.
    """
    still = "This map is for a screen and needs JavaScript; in JupyterLab, open the notebook explore."
    return part(MAP.stem, _fit(points), still=still, caption=caption, scripts=("plotly.min.js",))


class DeviationMap(anywidget.AnyWidget):
    """The map as a widget of JupyterLab.

    Attributes:
        selected: numbers of the rows of `points` in the lasso or box, in ascending order; may be set.
    """

    _esm = "\n".join(
        [
            LIBRARY.read_text(encoding="utf-8"),
            MAP.read_text(encoding="utf-8"),
            "export default { render: window.ddpoMap.render };\n",
        ]
    )
    _css = LOOK.read_text(encoding="utf-8")
    _points = traitlets.Bytes().tag(sync=True)
    _plotly = traitlets.Instance(ipywidgets.Widget).tag(sync=True, **ipywidgets.widget_serialization)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(self, points: pd.DataFrame):
        """The argument and the errors are as in `page`; texts are not cut."""
        self.points = points
        super().__init__(_points=_packed(_drawn(points), None), _plotly=_plotly())

    @property
    def selection(self) -> pd.DataFrame:
        """The selected rows of `points`."""
        return self.points.iloc[self.selected]

    def save(self, path: str | Path) -> Path:
        """Write the selection as prompt-grouped JSONL, which `read_corpus` reads; `source` is `who`.

        Raises:
            InputError: no response with a text is selected.
        """
        chosen = self.selection
        chosen = chosen[chosen["text"].str.strip() != ""]
        if chosen.empty:
            raise InputError("no text is selected; draw a lasso or a box around points of the map, then save")
        path = Path(path)
        aside = path.with_name(f"{path.name}.partial")
        with aside.open("w", encoding="utf-8") as file:
            for _, rows in chosen.groupby("prompt_id", sort=False):
                record = {"prompt": rows["prompt"].iloc[0], "responses": [_response(row) for _, row in rows.iterrows()]}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        return aside.replace(path)


class _Script(ipywidgets.Widget):
    """plotly.js, compressed, as one model in the browser to which every map of the kernel refers.

    It is sent when the model is opened, since the server limits the data rate of later messages only.
    """

    code = traitlets.Bytes().tag(sync=True)


_scripts: list[_Script] = []


def _plotly() -> _Script:
    if not _scripts or _scripts[-1].comm is None:  # a user may have closed all widgets
        _scripts[:] = [_Script(code=gzip.compress(get_plotlyjs().encode(), mtime=0))]
    return _scripts[-1]


def _fit(points: pd.DataFrame) -> bytes:
    """The data of a page, with texts cut to the greatest length that stays within the limit."""
    drawn, limit = _drawn(points), PAGE_BYTES * 3 // 4  # base64 needs four bytes for three
    packed = _packed(drawn, None)
    if len(packed) <= limit:
        return packed
    longest = int(drawn["text"].str.len().max())
    return _packed(drawn, largest(longest, lambda cut: len(_packed(drawn, cut)) <= limit))


def _drawn(points: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST_POINTS` rows, indexed by their row numbers in `points`; `attrs["of"]` is the number of all rows."""
    missing = [column for column in COLUMNS if column not in points]
    for space in _spaces(points.columns):
        names = [f"{place} {space}" for place in ("x", "y", "prompt x", "prompt y")]
        missing += [name for name in names if name not in points]
    if missing or points.empty or not _spaces(points.columns):
        wants = ", ".join(missing) or ("rows" if points.empty else "a column `deviation S` for a space S")
        raise InputError(f"no map can be drawn of this table; it lacks: {wants}")
    rows = np.arange(len(points))
    if len(points) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(0).permutation(len(points))[:MOST_POINTS])
    drawn = points.iloc[rows].set_axis(rows)
    drawn.attrs = {"of": len(points)}
    return drawn


def _packed(drawn: pd.DataFrame, longest: int | None) -> bytes:
    """The columns as compressed JSON; texts cut to `longest` characters."""
    prompt, ids = pd.factorize(drawn["prompt_id"])
    first = drawn.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    names = sorted(drawn["who"].unique(), key=people_first)
    columns = {
        "of": drawn.attrs["of"],
        "longest": longest,
        "prompts": [first[key] for key in ids],
        "who": [{"name": name, **_shape(*drawn_as)} for name, drawn_as in map_marks(names).items()],
        "row": drawn.index.tolist(),
        "prompt": prompt.tolist(),
        "arm": [names.index(who) for who in drawn["who"]],
        "score": _numbers(drawn["score"]),
        "words": [len(text.split()) for text in drawn["text"]],
        "cut": [int(longest is not None and len(text) > longest) for text in drawn["text"]],
        "text": [text[:longest] for text in drawn["text"]],
        "spaces": [
            {
                "name": space,
                "deviation": _numbers(drawn[f"deviation {space}"], 4),
                "corpus": [_numbers(drawn[f"{axis} {space}"], 3) for axis in "xy"],
                "own": [_numbers(drawn[f"prompt {axis} {space}"], 3) for axis in "xy"],
            }
            for space in _spaces(drawn.columns)
        ],
    }
    return pack(columns)


def _numbers(column: pd.Series, digits: int | None = None) -> list[float | None]:
    values = column.astype(float).tolist()
    return [None if value != value else value if digits is None else round(value, digits) for value in values]


def _spaces(columns) -> list[str]:
    return [name.removeprefix("deviation ") for name in columns if name.startswith("deviation ")]


def _shape(mark: str, is_open: bool) -> dict[str, str]:
    symbol, glyphs = SHAPES[mark]
    return {"shape": symbol + "-open" * is_open, "glyph": glyphs[is_open]}


def _response(row: pd.Series) -> dict:
    """A response of the interchange format, with its deviations."""
    score = None if pd.isna(row["score"]) else float(row["score"])
    deviations = {
        name: None if pd.isna(row[name]) else float(row[name])
        for name in (f"deviation {space}" for space in _spaces(row.index))
    }
    return {"text": row["text"], "score": score, "source": row["who"], **deviations}
