"""Pages with parts as the book has them: the theme's style sheets, the parts' files, and how well they can be seen."""

import base64
import gzip
import json
import re
from importlib.util import find_spec
from pathlib import Path

from browser import Watched

from ddpo_lib.interactive import parts

BOOK_LOOK = Path(__file__).parents[1] / "book" / "_static" / "book.css"
THEMES = ("pydata_sphinx_theme", "sphinx_book_theme")
GRAPHICS = {  # selector -> the property with its colour
    ".ddpo-sign path, .ddpo-mark > path": "fill",
    "polyline, .ddpo-ends, .ddpo-here": "stroke",
    ".ddpo-before, li:not(.ddpo-rare) .ddpo-bar": "backgroundColor",
    "select, button": "borderTopColor",
}
CONTRASTS = """(root, graphics) => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (colours) => {
    for (const colour of colours) { pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1); }
    const [red, green, blue] = [...pixel.getImageData(0, 0, 1, 1).data].map((value) => linear(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const grounds = (element) =>
    (element ? [...grounds(element.parentElement), getComputedStyle(element).backgroundColor] : ["white"]);
  const ratio = (colour, under) => {
    const [a, b] = [luminance([...under, colour]), luminance(under)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const found = [];
  for (const element of root.querySelectorAll("*")) {
    const look = getComputedStyle(element), parent = grounds(element.parentElement);
    if (!element.getClientRects().length || element.disabled) continue;
    const field = element.matches("select, textarea, input:not([type=range])");
    if (field || [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) {
      const inSvg = element instanceof SVGElement;
      const contrast = ratio(inSvg ? look.fill : look.color, grounds(element));
      found.push({ what: element.textContent, kind: "text", contrast });
    }
    for (const [selector, property] of Object.entries(graphics)) {
      if (!element.matches(selector)) continue;
      found.push({ what: selector, kind: "graphic", contrast: ratio(look[property], parent) });
    }
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll(
  ".ddpo-part :is(input, select, textarea, button, [tabindex='0'])")].filter(element => element.getClientRects().length
  && !(element.getAttribute("aria-label") || element.labels?.[0]?.textContent.trim() || element.textContent.trim()))
  .map(element => element.outerHTML.slice(0, 90))"""
FOCUS = """() => {
  const element = document.activeElement, look = getComputedStyle(element);
  const ring = element.querySelector(".ddpo-lab-ring");
  if (ring) return parseFloat(getComputedStyle(ring).strokeWidth);
  return look.outlineStyle === "none" ? 0 : parseFloat(look.outlineWidth);
}"""
LEAST = {"text": 4.5, "graphic": 3.0}  # WCAG 2.2, level AA


def written(folder: Path, *pieces: str) -> Path:
    """A page with these parts in the book's theme, beside a `_static/`."""
    static = folder / "_static"
    static.mkdir(parents=True)
    for name, content in parts.assets().items():
        (static / name).write_bytes(content)
    (static / BOOK_LOOK.name).write_bytes(BOOK_LOOK.read_bytes())
    names = [BOOK_LOOK.name, "interactive.css"]
    for package in reversed(THEMES):
        sheet = next(
            Path(find_spec(package).origin).parent.glob(f"theme/*/static/styles/{package.replace('_', '-')}.css")
        )
        (static / sheet.name).write_bytes(sheet.read_bytes())
        names.insert(0, sheet.name)
    links = "".join(f'<link rel="stylesheet" href="_static/{name}">' for name in names)
    head = (
        '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>Parts</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">{links}'
        "</head>"
    )
    (folder / "page.html").write_text(f"{head}<body><main>{''.join(pieces)}</main></body></html>", encoding="utf-8")
    return folder / "page.html"


def opened(watched: Watched, place: Path):
    """The page, once all its parts are drawn."""
    watched.page.set_default_timeout(120_000)  # milliseconds; beside other work, a browser draws slowly
    page = watched.open(place)
    page.wait_for_function("() => [...document.querySelectorAll('.ddpo-part')].every(part => part.children.length)")
    return page


def unpacked(part: str) -> dict:
    """The data in the HTML of a part."""
    coded = re.search(r'<script type="application/gzip;base64">([^<]*)</script>', part).group(1)
    return json.loads(gzip.decompress(base64.b64decode(coded)))


def too_faint(page) -> list[dict]:
    """Texts and marks of the page's parts that have too little contrast, in light and in dark."""
    faint = []
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        page.wait_for_timeout(700)  # transitions
        found = page.locator(".ddpo-part").evaluate(CONTRASTS, GRAPHICS)
        assert {each["kind"] for each in found} == {"text", "graphic"}
        faint += [each | {"theme": theme} for each in found if each["contrast"] < LEAST[each["kind"]]]
    return faint


def nameless(page) -> list[str]:
    """The controls of the page's parts that have no name."""
    return page.evaluate(NAMELESS)


def focus_width(page) -> float:
    """How wide the mark of the focused element is, in pixels."""
    return page.evaluate(FOCUS)
