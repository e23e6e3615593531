"""Pages with parts of the book as readers get them: the theme's style sheets, a part, and how well it can be seen."""

import importlib.util
from pathlib import Path

from browser import Watched

from ddpo_lib.interactive import parts

PROJECT = Path(__file__).parents[1]
PATIENCE = 120_000  # ms; a machine with other work draws a page slowly
CONTRAST = """root => {
  const colour = text => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    return { rgb: numbers.slice(0, 3), alpha: numbers[3] ?? 1 };
  };
  const light = rgb => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const { rgb, alpha } = colour(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll(`${root}, ${root} *`)) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    const field = ["INPUT", "SELECT", "TEXTAREA"].includes(element.tagName) && element.type !== "range";
    if (!(own || field) || !element.getClientRects().length) continue;
    if (element.tagName === "OPTION" || element.disabled) continue;
    const look = getComputedStyle(element);
    const [a, b] = [element.closest("svg") ? look.fill : look.color].map(text => light(colour(text).rgb))
      .concat(light(ground(element))).sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), element.tagName, element.textContent.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""
NAMELESS = """root => [...document.querySelectorAll(
  `${root} :is(input, select, textarea, button, [tabindex="0"])`)].filter(element => element.getClientRects().length
  && !(element.getAttribute("aria-label") || element.labels?.[0]?.textContent.trim() || element.textContent.trim()))
  .map(element => element.outerHTML.slice(0, 90))"""
FOCUS = """() => {
  const element = document.activeElement, look = getComputedStyle(element);
  const ring = element.querySelector(".ddpo-lab-ring");
  if (ring) return parseFloat(getComputedStyle(ring).strokeWidth);
  return look.outlineStyle === "none" ? 0 : parseFloat(look.outlineWidth);
}"""


def _theme() -> dict[str, bytes]:
    """The style sheets of the book's theme and of the book, by name, in the order in which pages load them."""
    themes = {}
    for package in ("pydata_sphinx_theme", "sphinx_book_theme"):
        folder = Path(importlib.util.find_spec(package).origin).parent / "theme" / package / "static" / "styles"
        themes |= {file.name: file.read_bytes() for file in [folder / f"{package.replace('_', '-')}.css"]}
    return themes | {"book.css": (PROJECT / "book" / "_static" / "book.css").read_bytes()}


def written(folder: Path, *pieces: str) -> Path:
    """A page with these parts in the book's theme, beside a `_static/`."""
    (folder / "_static").mkdir()
    sheets = _theme()
    for name, content in (parts.assets() | sheets).items():
        (folder / "_static" / name).write_bytes(content)
    links = "".join(f'<link rel="stylesheet" href="_static/{name}">' for name in [*sheets, parts.LOOK.name])
    (folder / "page.html").write_text(
        '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>A part</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">{links}'
        f'</head><body><main style="padding: 0 10px">{"".join(pieces)}</main></body></html>',
        encoding="utf-8",
    )
    return folder / "page.html"


def opened(browser, place: Path, root: str, **context) -> tuple[Watched, object]:
    """A page whose part `root` has been drawn."""
    watched = Watched(browser, **context)
    watched.page.set_default_timeout(PATIENCE)
    page = watched.open(place)
    page.wait_for_selector(f"{root} [role=status]", state="attached")
    page.wait_for_function("root => document.querySelector(`${root} [role=status]`).textContent", arg=root)
    return watched, page


def is_well_seen(page, root: str) -> None:
    """Assert that each text has the contrast of WCAG AA in light and in dark, and that each control has a name."""
    assert page.evaluate(NAMELESS, root) == []
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        page.wait_for_timeout(300)  # the theme's colours change slowly
        seen = page.evaluate(CONTRAST, root)
        assert len(seen) > 20 and seen[0][0] >= 4.5, (theme, seen[:3])


def focus_width(page) -> float:
    """How wide the mark of the focused element is, in pixels."""
    return page.evaluate(FOCUS)
