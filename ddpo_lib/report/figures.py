"""One style for every chapter: each arm has one colour and one mark, and each figure has alternative text.

The functions are for notebooks and display their result. Figures and tables are numbered and carry their data and
their source (`sources`); `figures.chapter` comes before the first of them.
"""

import base64
import html
import io
import re
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, DisplayHandle, Markdown, display
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D

from ddpo_lib.profiles.wording import interval as interval  # these three too for notebooks, as `wording.interval`
from ddpo_lib.profiles.wording import name as name
from ddpo_lib.profiles.wording import p_value as p_value
from ddpo_lib.report.sources import Source, reserve, source
from ddpo_lib.report.sources import chapter as chapter
from ddpo_lib.report.sources import ends as ends
from ddpo_lib.report.sources import estimate as estimate
from ddpo_lib.report.sources import estimated as estimated
from ddpo_lib.report.sources import limits as limits
from ddpo_lib.report.sources import number as number
from ddpo_lib.report.sources import probability as probability
from ddpo_lib.report.sources import ref as ref

# Okabe and Ito's palette, suitable for colour-blind readers; marks distinguish the spaces without colour.
COLOURS = {
    "gold": "#6b6b6b",
    "base": "#b8b8b8",
    "sft": "#b8b8b8",
    "dpo": "#0072b2",
    "orpo": "#56b4e9",
    "ddpo": "#d55e00",
    "dorpo": "#e69f00",
    "divpo": "#009e73",
    "instruct": "#cc79a7",
}
MARKS = {"semantic": "o", "style": "s", "both": "D"}
PLAIN_MARKS = {"gold": "*", "sft": "v", "base": "v", "dpo": "^", "orpo": "<", "divpo": "P"}
ASKED_MARKS = {"instruct": "X", "instruct-iter": "h", "instruct-verbalized": "p"}
SPACE_NAMES = {"minilm": "MiniLM", "stylometric": "the stylometric space", "lexical": "tf-idf", "delta": "Delta"}
MARKUP = re.compile(  # signs of what `say` shows as it is written: it could load, run or include something
    r"[$\\]|!(?=\[)|\](?=[(\[:])|`{3,}|~{3,}|:{3,}|\+{3,}|\{(?!doc\}`[\w/-]+`)(?=[\w+:-]{1,36}\}`)"
    r"|(?<![^\n])%|(?<![^\n])\((?=[^)\n]*\)=)"
)
DPI = 200  # of what is drawn as pixels in an SVG figure
STROKES = {
    Outline.MOVETO: "M",
    Outline.LINETO: "L",
    Outline.CURVE3: "Q",
    Outline.CURVE4: "C",
}  # matplotlib's codes -> SVG's


def colour(arm: str) -> str:
    return COLOURS.get(arm.split("-")[0], "#000000")


def mark(arm: str) -> str:
    method, _, space = arm.partition("-")
    return ASKED_MARKS.get(arm) or MARKS.get(space) or PLAIN_MARKS.get(method, "o")


def outline(arm: str) -> str:
    """The mark of an arm as the `d` of an SVG path around the origin, about 1 wide."""
    style = MarkerStyle(mark(arm))
    drawn = style.get_path().transformed(style.get_transform() + Affine2D().scale(1, -1))  # in SVG, y points down
    return "".join(
        "Z" if code == Outline.CLOSEPOLY else STROKES[code] + " ".join(f"{number:.3f}" for number in points)
        for points, code in drawn.iter_segments()
    )


def quality_name(report: dict) -> str:
    """The name of quality in this run, for axes, columns and captions; it warns if quality is no better than chance."""
    return report["name"] + ("" if report["better_than_chance"] else ", NO BETTER THAN CHANCE")


def use_style() -> None:
    """Set matplotlib for the book: vector output, readable type, no frame."""
    mpl.rcParams.update(
        {
            "svg.fonttype": "path",
            "svg.hashsalt": "ddpo",
            "font.size": 10.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "figure.dpi": 100,
            "text.parse_math": False,  # names in somebody's data may contain dollars
        }
    )


def show(
    figure: plt.Figure,
    *,
    name: str,
    alt: str,
    caption: str,
    data: pd.DataFrame,
    of: Iterable[str | Path] | None = None,
    on: str | None = None,
    fold: str = "",
) -> None:
    """Display a figure as SVG, with its number, its data and its source.

    Args:
        figure: is closed.
        alt: alternative text, which states the finding.
        caption: explains the figure.
        name, data, of, on: as in `sources.source`.
        fold: if given, the figure is folded below this text.
    """
    framed = _framed(picture(figure, alt=alt), caption, source("figure", name, data, of, on))
    _put(HTML(f"<details><summary>{html.escape(fold)}</summary>{framed}</details>" if fold else framed), None)


def picture(figure: plt.Figure, *, alt: str) -> str:
    """A figure as an HTML image, with alternative text; the figure is closed."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=DPI, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue().encode()).decode()
    return f'<img class="ddpo-figure" alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def show_part(
    part: str, *, name: str, data: pd.DataFrame, of: Iterable[str | Path] | None = None, on: str | None = None
) -> None:
    """Display a part of a page that readers change (`interactive.parts`), numbered as a figure, with data and source.

    Args:
        part: a `figure` element in HTML.
        name, data, of, on: as in `sources.source`.
    """
    about = source("figure", name, data, of, on)
    inside, end, after = part.replace("<figure", _opening(about), 1).rpartition("</figure>")
    before, tag, note = inside.rpartition("<figcaption>")
    inside = f"{before}{tag}<b>{about.number}.</b> {note}" if tag else inside
    _put(HTML(f"{inside}{about.fold}{end}{after}"), None)


def later(table: str | None = None) -> DisplayHandle:
    """Reserve a place for a sentence, or for a `table` of that name, whose numbers are computed further down."""
    if table:
        reserve("table", table)
    return display(HTML(""), display_id=True)


def table(
    frame: pd.DataFrame,
    *,
    name: str,
    caption: str,
    text: tuple[str, ...] = (),
    data: pd.DataFrame | None = None,
    of: Iterable[str | Path] | None = None,
    on: str | None = None,
    place: DisplayHandle | None = None,
) -> None:
    """Display a table that scrolls on a phone, with its number, its data and its source.

    Args:
        frame: its cells are texts, shown as they are, or `estimated` and `number`, whose digits are all in the data.
        data: in place of the frame, if its texts leave out digits.
        caption: explains the table.
        text: the columns that are aligned left; the others are aligned right.
        name, of, on: as in `sources.source`.
        place: of `later`, where the table appears instead of here.
    """
    about = source("table", name, frame if data is None else data, of, on)
    _put(HTML(_framed(_grid(frame, text), caption, about)), place)


def _grid(frame: pd.DataFrame, text: tuple[str, ...]) -> str:
    side = {column: ' class="left"' if column in text else "" for column in frame.columns}
    head = "".join(f"<th{side[c]}>{html.escape(str(c))}</th>" for c in frame.columns)
    rows = [
        "".join(f"<td{side[c]}>{html.escape(str(v))}</td>" for c, v in zip(frame.columns, row, strict=True))
        for row in frame.itertuples(index=False)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table class="ddpo-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def stories(items: list[tuple[str, str]], *, caption: str = "") -> None:
    """Display stories side by side, each below a line of facts; all texts are escaped."""
    note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    display(HTML(f"<figure>{cards(items)}{note}</figure>"))


def cards(items: list[tuple[str, str]]) -> str:
    """Stories side by side as HTML, each below a line of facts; all texts are escaped."""
    made = []
    for facts, text in items:
        paragraphs = "".join(f"<p>{html.escape(line)}</p>" for line in text.splitlines() if line.strip())
        made.append(f'<div class="ddpo-story"><div class="ddpo-facts">{html.escape(facts)}</div>{paragraphs}</div>')
    return f'<div class="ddpo-stories">{"".join(made)}</div>'


def say(text: str, place: DisplayHandle | None = None) -> None:
    """Display a sentence as prose, here or in a `place` of `later`; for sentences whose numbers come from the run.

    The text may contain emphasis, code, headings, lists and `{doc}` roles. All other markup is shown as it is written,
    since it can come from the names in somebody's data: HTML, links, images, mathematics, directives and other roles.
    """
    _put(Markdown(inert(text)), place)


def inert(text: str) -> str:
    """Markdown in which all markup but that of `say` is escaped."""
    text = MARKUP.sub(lambda found: "".join(f"\\{sign}" for sign in found[0]), text)
    return html.escape(text, quote=False)


def count(number: int, noun: str) -> str:
    """A number and its noun for a sentence: `one seed`, `6 seeds`."""
    return f"one {noun}" if number == 1 else f"{number:,} {noun}s"


def space_name(model: str) -> str:
    """A space's model as prose writes it."""
    return SPACE_NAMES.get(model, model)


def provenance(run, artifacts: list[str]) -> None:
    """The footer of a chapter: its artifacts, where each was made, and how long that took."""
    rows = []
    for artifact in artifacts:
        m = run.manifest(artifact)
        hardware = m["hardware"]
        machine = hardware["gpu"] or f"{hardware['processor']}, {hardware['threads']} of {hardware['cores']} cores"
        made = {"artifact": artifact, "made on": m["made"], "seconds": f"{m['seconds']:.0f}", "machine": machine}
        rows.append(made | {"commit": m["commit"] or "", "key": m["key"][:12]})
    versions = ", ".join(f"{package} {version}" for package, version in m["versions"].items())
    grid = _grid(pd.DataFrame(rows), text=("artifact", "made on", "machine", "commit", "key"))
    _put(HTML(_framed(grid, f"Provenance. {versions}.", None)), None)


def _framed(content: str, caption: str, about: Source | None) -> str:
    """A figure element around an image or a table, with its number and its fold if it has a source."""
    note = (f"<b>{about.number}.</b> " if about else "") + html.escape(caption)
    start = f'{_opening(about) if about else "<figure"}><div class="ddpo-scroll">{content}</div>'
    return f"{start}<figcaption>{note}</figcaption>{about.fold if about else ''}</figure>"


def _opening(about: Source) -> str:
    return f'<figure id="{about.anchor}" data-number="{about.number}"'


def _put(content: HTML | Markdown, place: DisplayHandle | None) -> None:
    place.update(content) if place else display(content)
