"""What readers of a built book meet: every page by screen reader, phone and keyboard, its size, its search, its PDF."""

import html
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from browser import Watched
from pypdf import PdfReader

WCAG = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
CONTRAST = {"type": "rule", "values": ["color-contrast"]}
# axe without the drawing of plotly, whose thousands of marks say nothing to it
AXE = """rules => axe.run({ exclude: [[".js-plotly-plot"]] }, { runOnly: rules, resultTypes: ["violations"] })
  .then(found => found.violations.flatMap(({ id, nodes }) => nodes.map(({ target, any, all, none }) =>
    `${id}: ${target.at(-1)}: ${[...any, ...all, ...none][0].message}`)))"""
# texts of a page whose box hides their end; what is one pixel wide is for screen readers
CLIPPED = """() => [...document.querySelectorAll(".bd-content *")].filter(element =>
  ["hidden", "clip"].includes(getComputedStyle(element).overflowX) && element.clientWidth > 1
  && element.scrollWidth > element.clientWidth + 1 && element.textContent.trim()
  && !element.closest(".ddpo-map-plot, .math"))
  .map(element => `${element.tagName}.${element.className}: ${element.textContent.trim().slice(0, 40)}`)"""
ALIKE = (
    'most => [...document.querySelectorAll("dl.py, .genindextable li")].slice(most).forEach(entry => entry.remove())'
)
# the theme lets the keyboard reach what scrolls, a moment after a window has another size; axe names what it leaves out
REACHED = """async () => {
  const scrolls = (box) => box.scrollWidth > box.clientWidth;
  const out = () => [...document.querySelectorAll("pre")].some(box => scrolls(box) && box.tabIndex < 0);
  for (let tries = 0; tries < 50 && out(); tries++) await new Promise(done => setTimeout(done, 100));
}"""
WIDTHS = (768, 390)  # a tablet, a phone
DESK = {"width": 1280, "height": 900}


@cache
def axe() -> str:
    package = pytest.importorskip("axe_playwright_python", reason="the package axe-playwright-python is not installed")
    return Path(package.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


def faults(page, place: Path) -> list[str]:
    """What is wrong with a page: wider than a tablet or a phone, a clipped text, a violation of WCAG 2.1 A or AA in
    light or in dark. Of many entries that are alike, as of functions, axe sees the first forty."""
    page.set_viewport_size(DESK)
    page.goto(place.as_uri())
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(100)
        needed = page.evaluate("document.documentElement.scrollWidth")
        found += [f"needs {needed} px of {width}"] * (needed > width)
        found += [f"clipped at {width} px: {text}" for text in page.evaluate(CLIPPED)]
    page.set_viewport_size(DESK)
    page.evaluate(REACHED)
    page.evaluate(axe())
    page.evaluate(ALIKE, 40)
    found += page.evaluate(AXE, WCAG)
    page.add_style_tag(content="* { transition: none !important; }")  # colours would fade for a while
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(200)
    found += [f"dark: {violation}" for violation in page.evaluate(AXE, CONTRAST)]
    return [f"{place.name}: {fault}" for fault in found]


def faults_of_book(browser, folder: Path) -> list[str]:
    """The faults of all pages of a built book, but of the index, which leads to the first page at once."""
    page = browser.new_context(viewport=DESK, color_scheme="light").new_page()
    places = [place for place in sorted(folder.glob("*.html")) if place.name != "index.html"]
    found = [fault for place in places for fault in faults(page, place)]
    page.context.close()
    return found


def loaded(browser, folder: Path, name: str) -> list[tuple[str, int]]:
    """The kind and the bytes of all that a page loads from a server."""
    answers = []
    with _served(folder) as address:
        page = browser.new_page()
        page.on("requestfinished", lambda request: answers.append((request.resource_type, request.response())))
        page.goto(f"{address}/{name}", wait_until="networkidle")
        sizes = [(kind, len(response.body())) for kind, response in answers]
        page.close()
    return sizes


def hits(browser, folder: Path, words: str) -> tuple[list[str], list[str]]:
    """The titles that the search of a book finds, from a file, and the errors of the page."""
    watched = Watched(browser)
    watched.open(f"{(folder / 'search.html').as_uri()}?q={words.replace(' ', '+')}")
    watched.page.wait_for_selector("#search-results ul.search li")
    watched.page.wait_for_timeout(500)
    return watched.page.locator("#search-results ul.search > li > a").all_text_contents(), watched.errors


def outline(reader: PdfReader, entries: list | None = None, depth: int = 0) -> list[tuple[int, str, int]]:
    """The level, the words and the page of each entry of a PDF's outline, in order."""
    found = []
    for entry in reader.outline if entries is None else entries:
        if isinstance(entry, list):
            found += outline(reader, entry, depth + 1)
        else:
            found.append((depth, entry.title, reader.get_destination_page_number(entry)))
    return found


def contents(toc: Path, folder: Path) -> list[tuple[int, str]]:
    """The level and the title of each part and page of a built book, in order."""
    order = yaml.safe_load(toc.read_text(encoding="utf-8"))
    found = [(0, _heading(folder / f"{order['root']}.html"))]
    for part in order["parts"]:
        found.append((0, part["caption"]))
        found += [(1, _heading(folder / f"{chapter['file']}.html")) for chapter in part["chapters"]]
    return found


def beyond_paper(reader: PdfReader) -> list[tuple[int, str]]:
    """Texts of a PDF that begin beyond the right edge of their page, with the page's number."""
    placed = []
    for number, page in enumerate(reader.pages):
        edge = float(page.mediabox.width)

        def look(text: str, matrix, place, *_, number=number, edge=edge) -> None:
            if text.strip() and matrix[0] * place[4] + matrix[4] > edge:
                placed.append((number, text))

        page.extract_text(visitor_text=look)
    return placed


def _heading(page: Path) -> str:
    first = re.search(r"<article.*?<h1>(.*?)<a class", page.read_text(encoding="utf-8"), re.DOTALL)[1]
    return html.unescape(re.sub("<[^>]+>", "", first)).strip()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
