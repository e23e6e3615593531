"""Work on disk that a kill may leave unfinished: what may be continued, and by which of two processes.

One rule holds for checkpoints and for journals. They are continued only by a call that depends on the same things:
data, settings, seeds, models and code, as the key of an artifact does. Any other call begins anew and says what
differs.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import read_mapping, write_json

log = logging.getLogger(__name__)

BEGUN = "begun.json"

Result = TypeVar("Result")


def continue_or_begin(folder: Path, of: dict) -> None:
    """Make a folder for work, and empty it unless it contains unfinished work that depends on the same things.

    Args:
        folder: the folder; what it depends on is kept there in `begun.json`.
        of: name -> JSON value, everything that the work depends on.
    """
    of = json.loads(json.dumps(of))
    if folder.exists() and (different := differing(read_mapping(folder / BEGUN), of)):
        log.warning("%s: unfinished work of another kind (%s differs); it is removed and begun anew", folder, different)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / BEGUN, of)


def differing(there: dict, here: dict) -> str:
    """The names whose values differ, as text; empty if all are the same."""
    return ", ".join(name for name in {**here, **there} if name not in there or there[name] != here.get(name))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A context in which no other process that asks for `path` in this way works on it.

    Raises:
        InputError: another process does.
    """
    from filelock import Timeout  # commands that write no file work without it

    from ddpo_lib.base.locks import lease

    lock = lease(path.with_name(f".{path.name.removeprefix('.')}.lock"))
    try:
        acquired = lock.acquire(timeout=1)  # seconds; the lock of a process that was killed is taken at the second try
    except Timeout:
        raise InputError(
            f"{path}: another command is writing it now; wait until that one ends, or name another file"
        ) from None
    with acquired:
        yield


def write_whole(path: Path, write: Callable[[Path], Result]) -> Result:
    """Call `write` with a path beside a file, and move what it wrote into place whole; returns what it returned.

    Raises:
        InputError: another process writes the file.
        OSError: the file cannot be written; the error names it.
    """
    aside = path.with_name(f".{path.name}.partial")
    with held(path):
        try:
            result = write(aside)
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(path)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error  # pyarrow leaves it out
        finally:
            aside.unlink(missing_ok=True)
    return result
