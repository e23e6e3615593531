"""Chromium for tests of what a reader sees: pages from file:// or a loopback port, every request and error kept."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ("--no-sandbox", "--disable-gpu")


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
