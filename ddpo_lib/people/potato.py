"""Potato, the annotation tool of the paper's study: its project folder and its server. See `potato_files` for answers.

Potato (PyPI `potato-annotation`, GPL) runs as a separate program, started from its command line and never imported. Its
pages load nothing from other machines than the one that serves them.
"""

import html
import importlib.metadata
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from ddpo_lib.base.errors import InputError

STUDY = "study"  # the folder within a study's folder that Potato serves
OUTPUT = "annotation_output"
BEST, DIVERSE = "quality", "diversity"  # the two questions, as named in Potato's output
HARD, LEFT, RIGHT = "Hard to decide", "Set A", "Set B"
CHOICES = {BEST: [*map(str, range(1, 9)), HARD], DIVERSE: [LEFT, RIGHT, HARD]}
ASKED = {
    BEST: "Which is the most interesting, highest-quality story?",
    DIVERSE: "Which set of stories is more diverse?",
}
PATIENCE = 60  # seconds within which a started server must answer
HOLD_HOURS = 24  # after this time, an item that its annotator has not answered goes to others

Page = tuple[str, list[str], list[str]]  # a prompt, the stories of set A, those of set B


# The project folder


def write_project(folder: Path, pages: dict[str, Page], *, labels: int, per_annotator: int) -> None:
    """Write a folder that `potato start config.yaml` serves.

    Args:
        folder: to create.
        pages: by id of an item, in the order in which items are given out. Annotators get nothing else.
        labels: annotators per item.
        per_annotator: items per annotator, attention checks included.
    """
    folder.mkdir(parents=True)
    here = Path(__file__).parent
    with (folder / "tasks.jsonl").open("w", encoding="utf-8") as file:
        for name, page in pages.items():
            file.write(json.dumps({"id": name, "page": render(*page)}, ensure_ascii=False) + "\n")
    for name in ("consent.json", "instructions.html", "study.css"):
        text = (here / "study" / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace("{items}", str(min(per_annotator, len(pages)))), encoding="utf-8")
    config = yaml.safe_dump(configuration(labels, per_annotator), sort_keys=False, allow_unicode=True, width=120)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    (folder / "config.yaml").chmod(0o600)  # it contains the key that signs sessions


def configuration(labels: int, per_annotator: int) -> dict:
    """Potato's configuration of a study; all paths are relative to its folder."""
    return {
        "annotation_task_name": "Stories",
        "task_dir": ".",
        "output_annotation_dir": OUTPUT,
        "data_files": ["tasks.jsonl"],
        "item_properties": {"id_key": "id", "text_key": "id"},  # Potato also puts the text into the page, hidden
        "instance_display": {"fields": [{"key": "page", "type": "html"}], "resizable": False},
        "annotation_schemes": [
            {
                "annotation_type": "radio",
                "name": question,
                "description": ASKED[question],
                "labels": CHOICES[question],
                "horizontal": True,
                "humanize_labels": False,
                "keybinding_strategy": "none",  # an accidental key press is no answer
                "label_requirement": {"required": True},
            }
            for question in (BEST, DIVERSE)
        ],
        "phases": {
            "order": ["consent", "instructions", "annotation"],
            "consent": {
                "type": "consent",
                "file": "consent.json",
                "exit_when": {
                    "show_when": [{"schema": "consent", "operator": "equals", "value": "No, I do not take part"}],
                    "message": "You do not take part, and nothing more is recorded. You may close this page.",
                },
            },
            "instructions": {"type": "instructions", "file": "instructions.html"},
        },
        "assignment_strategy": "fixed_order",  # `tasks.jsonl` is in random order, in blocks with their checks
        "num_annotators_per_item": labels,
        "max_annotations_per_user": per_annotator,
        "instance_reclaim": {"enabled": True, "timeout_hours": HOLD_HOURS},
        "require_password": False,
        "user_config": {"allow_all_users": True, "users": []},
        "persist_sessions": True,  # annotators stay signed in when the server restarts
        "secret_key": secrets.token_hex(32),
        "jumping_to_id_disabled": True,
        "base_css": "study.css",
        "ui": {"theme": "light"},  # the same for everyone
    }


def render(prompt: str, left: list[str], right: list[str]) -> str:
    """The HTML of an item: the prompt above two columns of stories, numbered down the left column, then the right."""
    sets = [(LEFT, left, 1), (RIGHT, right, 1 + len(left))]
    columns = "".join(
        f'<div class="set"><h2>{name}</h2>'
        + "".join(f'<div class="story"><h3>{n}</h3>{_paragraphs(text)}</div>' for n, text in enumerate(texts, first))
        + "</div>"
        for name, texts, first in sets
    )
    return f'<div class="prompt"><h2>Prompt</h2>{_paragraphs(prompt)}</div><div class="sets">{columns}</div>'


def _paragraphs(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"<p>{escape(line)}</p>" for line in lines if line)


def escape(text: str) -> str:
    """Escape a text, so that its page shows it unchanged.

    Potato puts an item into a script element of the page without escaping it, and deletes `data:`, `javascript:` and
    `expression(` from the text that it shows. So these are written as character references too.
    """
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)
    return html.escape(text).replace(":", "&#58;").replace("(", "&#40;")


# The server


def start(folder: Path, port: int) -> subprocess.Popen:
    """Start Potato for a study on 127.0.0.1 and wait until it answers.

    Args:
        folder: of `human_eval.prepare`; Potato writes its log to `potato.log` there.
        port: to listen at.

    Raises:
        InputError: there is no study, Potato is not installed, the port is in use, or Potato does not start (says why).
    """
    folder = folder.resolve()
    if not (folder / STUDY / "config.yaml").is_file():
        raise InputError(
            f"{folder}: contains no study; `ddpo annotate prepare RUN --arms A B --out {folder}` makes one"
        )
    try:
        importlib.metadata.version("potato-annotation")
    except importlib.metadata.PackageNotFoundError:
        raise InputError("Potato is not installed; `pip install 'ddpo-lib[annotate]'` installs it") from None
    with socket.socket() as probe:  # otherwise another server at this port could answer below
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise InputError(f"port {port}: another program already listens there; choose another with --port")
    command = [sys.executable, "-m", "potato", "start", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    # Potato compiles its pages into its own package, where two studies would overwrite each other's pages
    environment = {**os.environ, "POTATO_GENERATED_TEMPLATES_DIR": str(folder / "pages"), "PYTHONUNBUFFERED": "1"}
    log = folder / "potato.log"
    with log.open("a", encoding="utf-8") as file:
        server = subprocess.Popen(command, cwd=folder / STUDY, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait(server, f"http://127.0.0.1:{port}/health")
    except InputError as error:
        server.kill()
        server.wait()
        raise InputError(f"Potato {error} ({_last_line(log)}); its log is {log}") from None
    return server


def _wait(server: subprocess.Popen, address: str) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if server.poll() is not None:
            raise InputError(f"stopped with status {server.returncode}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise InputError(f"gave no answer within {PATIENCE} s")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it wrote nothing"


def serve_until_stopped(server: subprocess.Popen) -> int:
    """Wait for the server and return its exit status. An interrupt or termination of this process ends it too."""

    def stop(*_):
        server.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    status = server.wait()
    return 0 if status in (-signal.SIGTERM, -signal.SIGINT) else status
