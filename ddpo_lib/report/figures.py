"""One style for every chapter: each arm has one colour and one mark, and each figure has alternative text.

The functions are for notebooks and display their result.
"""

import base64
import html
import io
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, DisplayHandle, Markdown, display
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from ddpo_lib.profiles.wording import interval as interval  # these three too for notebooks, as `wording.interval`
from ddpo_lib.profiles.wording import name as name
from ddpo_lib.profiles.wording import p_value as p_value

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
MAP_MARKS = ("s", "D", "^", "v", "<", "P", "*", "H", "p")  # for arms; circles are the corpus
SPLIT_NAMES = {"train": "corpus, to train on", "test": "corpus, held out"}
MARKUP = re.compile(  # signs of what `say` shows as it is written: it could load, run or include something
    r"[$\\]|!(?=\[)|\](?=[(\[:])|`{3,}|~{3,}|:{3,}|\+{3,}|\{(?!doc\}`[\w/-]+`)(?=[\w+:-]{1,36}\}`)"
    r"|(?<![^\n])%|(?<![^\n])\((?=[^)\n]*\)=)"
)
STROKES = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}  # matplotlib's codes -> SVG's
VECTOR_MARKS = 5_000  # more marks are drawn as pixels, since a browser draws many vector marks slowly


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
        "Z" if code == Path.CLOSEPOLY else STROKES[code] + " ".join(f"{number:.3f}" for number in points)
        for points, code in drawn.iter_segments()
    )


def quality_name(report: dict) -> str:
    """The name of quality in this run, for axes, columns and captions; it warns if quality is no better than chance."""
    return report["name"] + ("" if report["better_than_chance"] else ", NO BETTER THAN CHANCE")


def map_marks(names: list[str]) -> dict[str, tuple[str, bool]]:
    """The mark of each split or arm on a map, and whether it is open. All are different as long as there are marks.

    Circles are the corpus, and open circles its held-out part. An arm has its usual mark, or another if that is in use.
    """
    given = {"train": ("o", False), "test": ("o", True)}
    free = [(sign, is_open) for is_open in (False, True) for sign in MAP_MARKS]
    for arm in sorted(set(names) - set(given), key=lambda arm: (mark(arm) not in MAP_MARKS, names.index(arm))):
        given[arm] = next((choice for choice in free if choice[0] == mark(arm)), free[0])
        if len(free) > 1:
            free.remove(given[arm])
    return {arm: given[arm] for arm in names}


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


def show(figure: plt.Figure, *, alt: str, caption: str) -> None:
    """Display a figure as SVG, with alternative text that states the finding and a caption that explains the figure."""
    _framed(picture(figure, alt=alt), caption)


def picture(figure: plt.Figure, *, alt: str) -> str:
    """A figure as an HTML image, with alternative text; the figure is closed."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue().encode()).decode()
    return f'<img class="ddpo-figure" alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{data}">'


def later() -> DisplayHandle:
    """Reserve a place on the page for a sentence or table whose numbers are computed further down; return the place."""
    return display(HTML(""), display_id=True)


def table(frame: pd.DataFrame, *, caption: str, text: tuple[str, ...] = (), place: DisplayHandle | None = None) -> None:
    """Display a table that scrolls on a phone; columns in `text` are aligned left, the others right.

    Cells are strings, shown unchanged; they are escaped. With `place`, the table appears at a place of `later`.
    """
    head = "".join(f"<th{_side(c, text)}>{html.escape(str(c))}</th>" for c in frame.columns)
    rows = [
        "".join(f"<td{_side(c, text)}>{html.escape(str(v))}</td>" for c, v in zip(frame.columns, row, strict=True))
        for row in frame.itertuples(index=False)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    grid = f'<table class="ddpo-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    _framed(grid, caption, place)


def draw_map(axes: plt.Axes, points: pd.DataFrame, space: str, *, own: bool = False) -> None:
    """Draw responses at their places in a space's map; with `own`, in the map of their own prompt.

    Colour shows the deviation, size the score, and the mark the split or arm of a response.

    Args:
        axes: to draw on.
        points: of `explore.make_points`.
        space: the name of one of its spaces.
        own: whether to draw the map of a single prompt; all points are then of that prompt.
    """
    x, y = (f"{'prompt ' if own else ''}{axis} {space}" for axis in "xy")
    score = points["score"]
    span = score.max() - score.min()
    size = 0.25 + 0.75 * ((score - score.min()) / span if span > 0 else score * 0).fillna(0)
    most = 110 if own else float(np.clip(40_000 / len(points), 6, 60))
    deviation = points[f"deviation {space}"]
    palette = mpl.colormaps["cividis"].with_extremes(bad=COLOURS["gold"])  # a response alone under its prompt
    colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(deviation.min(), deviation.max()), palette)
    for who, (sign, is_open) in map_marks(sorted(points["who"].unique(), key=people_first)).items():
        rows = points[points["who"] == who]
        painted = colours.to_rgba(rows[f"deviation {space}"])
        axes.scatter(
            rows[x],
            rows[y],
            s=most * size[rows.index],
            facecolors="none" if is_open else painted,
            edgecolors=painted,
            linewidths=1.1 if is_open else 0,
            marker=sign,
            label=f"{SPLIT_NAMES.get(who) or name(who)} ({len(rows)})",
            rasterized=len(points) > VECTOR_MARKS,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.figure.colorbar(colours, ax=axes, shrink=0.6, label=f"{space} deviation  (rarer →)")


def people_first(who: str) -> tuple[bool, bool, str]:
    """A sort key: the corpus's training split, its held-out split, then arms by name."""
    return who not in SPLIT_NAMES, who != "train", who


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


def ends(values: dict) -> tuple[float, float]:
    """The ends of an interval for a drawing; NaN, which is not drawn, if there is none."""
    return tuple(np.nan if values[end] is None else values[end] for end in ("low", "high"))


def count(number: int, noun: str) -> str:
    """A number and its noun for a sentence: `one seed`, `6 seeds`."""
    return f"one {noun}" if number == 1 else f"{number:,} {noun}s"


def space_name(model: str) -> str:
    """A space's model as prose writes it."""
    return SPACE_NAMES.get(model, model)


def estimate(row: dict, name: str, digits: int = 2, sign: bool = False) -> str:
    """A value of a row of findings with its interval (`name`, `name_low`, `name_high`), in the form of `interval`."""
    return interval({"mean": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}, digits, sign)


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
    table(
        pd.DataFrame(rows), caption=f"Provenance. {versions}.", text=("artifact", "made on", "machine", "commit", "key")
    )


def _framed(content: str, caption: str, place: DisplayHandle | None = None) -> None:
    caption = html.escape(caption)
    framed = f'<figure><div class="ddpo-scroll">{content}</div><figcaption>{caption}</figcaption></figure>'
    _put(HTML(framed), place)


def _put(content: HTML | Markdown, place: DisplayHandle | None) -> None:
    place.update(content) if place else display(content)


def _side(column: str, text: tuple[str, ...]) -> str:
    return ' class="left"' if column in text else ""
