"""Errors of a disk that is full or cannot be written, in one line, whichever library raises them."""

import errno
import os
import re
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
CUT = re.compile(r"PytorchStreamWriter failed|inline_container\.cc|\d+ requested and \d+ written")  # of torch and numpy


def describe_disk_error(error: BaseException) -> str | None:
    """What to tell of an error that a full disk, or one that cannot be written, caused; None for any other error.

    Libraries in other languages raise errors of their own kinds, whose text ends like the system's own.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in (*FULL, *CLOSED):
            number, name = cause.errno, cause.filename
        else:
            numbers = (number for number in (*FULL, *CLOSED) if _tells(str(cause), number))
            number, name = next(numbers, None), None
        if number in FULL:
            return (
                f"{name or 'a file'}: no space left to write it; nothing half made is left. Free some space and run "
                "the same command again"
            )
        if number in CLOSED:
            return (
                f"{name or 'a file'}: {os.strerror(number)}; change its permissions, or name another place (what is "
                "computed once for all runs is in the folder of XDG_CACHE_HOME)"
            )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _tells(said: str, number: int) -> bool:
    of_rust = f"os error {number})" in said
    return of_rust or os.strerror(number) in said or (number == errno.ENOSPC and bool(CUT.search(said)))
