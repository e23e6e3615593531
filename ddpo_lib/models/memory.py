"""What to change when a machine's or a GPU's memory is too small."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ddpo_lib.base.errors import InputError

SHORT = re.compile(r"out of memory|(can't|cannot|could not) allocate|not enough memory", re.I)


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """A context in which a failed allocation becomes an InputError that names the setting to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises a RuntimeError, on a GPU a kind of it
        if not isinstance(error, MemoryError) and not SHORT.search(str(error)):
            raise
        said = (str(error).strip() or "MemoryError").splitlines()[0][:200]
        raise InputError(f"memory is too small ({said}); {advice}") from error
