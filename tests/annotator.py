"""Annotators at the real Potato in a headless browser, for tests; and the book's pictures of what they see.

python tests/annotator.py runs/embedded        takes book/_static/annotator*.png anew, of stories in that run
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from browser import ARGUMENTS, NAMES, Watched

STATIC = Path(__file__).parents[1] / "book" / "_static"
ITEM, CONSENT, INSTRUCTIONS = (STATIC / f"annotator{page}.png" for page in ("", "-consent", "-instructions"))
WIDTH = 1200  # of the picture, in pixels
SHOWN = {"prompts": 16, "items": 16, "labels": 3, "checks": 0, "show": "opening", "words": 40, "seed": 0}


class Served:
    """`ddpo annotate serve`, on a port that stays the same when it is killed and started again."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "ddpo_lib.cli", "annotate", "serve", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        said = self.process.stdout.readline().strip()  # it says the address once the server answers
        assert said == f"{self.address}/", said

    def stop(self, how: signal.Signals) -> int:
        """Send a signal to the command and to Potato, which it started; the command's status."""
        os.killpg(self.process.pid, how)
        self.process.stdout.close()
        return self.process.wait(20)


class Annotator:
    """Someone at a browser of their own; keeps what they clicked, by item."""

    def __init__(self, browser, served: Served, name: str, **context):
        self.watched = Watched(browser, **context)
        self.page = self.watched.open(served.address)
        self.name = name
        self.clicked: dict[str, tuple[str, str]] = {}
        self.page.fill("input[name=email]", name)
        self.page.click("button[type=submit]")

    def begin(self) -> None:
        """From the consent page to the first item."""
        self.agree()
        self.next()
        self.wait()

    def agree(self) -> None:
        """From the consent page to the instructions."""
        self.page.get_by_label("Yes, I take part").check()
        self.next()
        self.page.wait_for_selector(".instructions >> visible=true")

    def next(self) -> None:
        with self.page.expect_navigation():
            self.page.click("#next-btn")

    def wait(self) -> str:
        """The id of the item that is shown."""
        self.page.wait_for_selector("#quality >> visible=true")
        return self.page.input_value("#instance_id")

    def click(self, question: str, choice: str) -> None:
        with self.page.expect_response("**/updateinstance") as saved:
            self.page.locator(f"#{question}").get_by_label(choice, exact=True).check()
        assert saved.value.ok

    def answer(self, best: str, diverse: str) -> None:
        item = self.wait()
        self.click("quality", best)
        self.click("diversity", diverse)
        self.clicked[item] = best, diverse

    def chosen(self) -> list[str]:
        self.wait()
        return self.page.eval_on_selector_all("#annotation-forms input:checked", "all => all.map(one => one.value)")


def take_pictures(run: Path) -> None:
    """Consent, instructions and the first item of a study of two of the run's arms, with two answers given."""
    from playwright.sync_api import sync_playwright

    from ddpo_lib.people.human_eval import prepare

    program = next(filter(None, map(shutil.which, NAMES)))
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        prepare(run, ("ddpo-both", "dpo"), Path(folder) / "study", **SHOWN)
        served = Served(Path(folder) / "study")
        try:
            browser = playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS])
            someone = Annotator(browser, served, "annotator", viewport={"width": WIDTH, "height": 700})
            someone.page.wait_for_selector("#consent >> visible=true")
            _take(someone.page, CONSENT)
            someone.agree()
            _take(someone.page, INSTRUCTIONS)
            someone.next()
            someone.answer("6", "Set B")
            _take(someone.page, ITEM)
            browser.close()
        finally:
            served.stop(signal.SIGTERM)


def _take(page, place: Path) -> None:
    """A picture of a page down to its button."""
    bottom = page.eval_on_selector("#next-btn", "button => button.getBoundingClientRect().bottom + window.scrollY")
    page.set_viewport_size({"width": WIDTH, "height": round(bottom) + 16})
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=place, animations="disabled")


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]))
