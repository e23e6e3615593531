"""Chromium for tests of what a reader sees: pages from file:// or a loopback port, every request and error kept."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu")
PIXEL = """row => {
  const plot = document.querySelector(".ddpo-map-plot"), full = plot._fullLayout, box = plot.getBoundingClientRect();
  for (const trace of plot._fullData) {
    const i = trace.customdata.indexOf(row);
    const { xaxis: x, yaxis: y } = full;
    if (i >= 0) return [box.left + x._offset + x.l2p(trace.x[i]), box.top + y._offset + y.l2p(trace.y[i])];
  }
  return null;
}"""
DRAWN = """() => document.querySelector(".ddpo-map-plot")._fullData.flatMap(trace => trace.customdata.map((row, i) => ({
  row, type: trace.type, symbol: trace.marker.symbol, x: trace.x[i], y: trace.y[i], size: trace.marker.size[i],
  color: trace.marker.color[i], opacity: trace.marker.opacity[i] ?? trace.marker.opacity,
})))"""


@pytest.fixture(scope="session")
def launch() -> Iterator:
    """`launch(*arguments)` starts a headless browser; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    with sync_api.sync_playwright() as playwright:
        yield lambda *arguments: playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS, *arguments])


@pytest.fixture(scope="session")
def browser(launch) -> Iterator:
    """One browser for all tests that want nothing special of it."""
    browser = launch()
    yield browser
    browser.close()


class Watched:
    """A page that keeps what it asked for and what went wrong."""

    def __init__(self, browser, **context):
        self.page = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context)).new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)

    def open(self, place: Path | str):
        self.page.goto(place.as_uri() if isinstance(place, Path) else place)
        return self.page

    def outside(self, *hosts: str) -> list[str]:
        """Requests that left the machine: to anything but files, data and the given hosts."""
        at_home = ("file", "data", "blob")
        parts = [(url, urlsplit(url)) for url in self.requests]
        return [url for url, part in parts if part.scheme not in at_home and part.netloc not in hosts]


def shown(watched: Watched, place):
    page = watched.open(place)
    page.wait_for_function("() => document.querySelector('.ddpo-map-plot')?._fullData?.length")
    page.wait_for_function("() => document.querySelector('.ddpo-map-status').textContent")
    return page


def drawn(page) -> dict[int, dict]:
    return {point["row"]: point for point in page.evaluate(DRAWN)}


def hovered(page, row: int) -> str:
    """The words of the label over a point, without spaces, which a break of lines may take away."""
    page.mouse.move(*page.evaluate(PIXEL, row))
    page.wait_for_selector(".ddpo-map-plot .hoverlayer .hovertext")
    label = page.locator(".ddpo-map-plot .hoverlayer .hovertext").text_content()
    page.mouse.move(2, 2)
    page.wait_for_selector(".ddpo-map-plot .hoverlayer .hovertext", state="detached")
    return "".join(label.split())


def lasso(page, rows: list[int], corners=((1, 0), (1, 1), (0, 1), (0, 0.05))) -> None:
    """Draw around the points of some rows with the mouse; corners are shares of the way from left and from top."""
    spots = np.array([page.evaluate(PIXEL, row) for row in rows])
    (left, top), (right, bottom) = spots.min(0) - 14, spots.max(0) + 14
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in corners:
        page.mouse.move(left + x * (right - left), top + y * (bottom - top), steps=5)
    page.mouse.up()
    page.wait_for_function("() => document.querySelector('.ddpo-map-reader').textContent.includes('selected')")


def words(page) -> str:
    return page.locator(".ddpo-map-reader").first.text_content()
