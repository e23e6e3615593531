"""Which prompts a model or a reward has learned from: a list of hashes in its folder, which shows no prompt's text."""

import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.data.corpus import normalised

log = logging.getLogger(__name__)

FILE = "seen_prompts.json"


def fingerprint(prompt: str) -> str:
    """SHA-256 of a prompt; white space counts as it does for the split (`corpus.place`)."""
    return hashlib.sha256(normalised(prompt).encode()).hexdigest()


def write(folder: Path, prompts: Iterable[str], start: Path | None = None) -> None:
    """Write `folder/seen_prompts.json`: the sorted fingerprints of the prompts and of those that `start` has seen.

    Args:
        folder: folder of what was trained.
        prompts: texts of the prompts; repeats count once.
        start: folder of the trained model that training began with; None: an untrained model. If `start` has no list,
            none is written, since it would be incomplete.
    """
    before = set() if start is None else read(start)
    if before is None:
        log.warning("%s: no %s, so it is not known which prompts %s was trained on", start, FILE, folder)
        return
    write_json(folder / FILE, sorted(before | {fingerprint(prompt) for prompt in prompts}))


def read(folder: Path) -> set[str] | None:
    """The fingerprints of the prompts that the model or reward in a folder has learned from; None if not known.

    Raises:
        InputError: the list cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = None
    if not isinstance(known, list) or not all(isinstance(one, str) for one in known):
        raise InputError(
            f"{file}: not a list of fingerprints, so it is not known which prompts {folder} was trained on; train it "
            "again, or remove this file if you can do without that check"
        )
    return set(known)


def count(folder: Path, prompts: Iterable[str]) -> int | None:
    """How many of the prompts the model or reward in a folder has learned from; None if that is not known."""
    known = read(folder)
    return None if known is None else sum(fingerprint(prompt) in known for prompt in prompts)
