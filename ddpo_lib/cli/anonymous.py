"""What a report may say of files, folders and names without telling whose they are. Needs the standard library only."""

import getpass
import platform
import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]  # in a clone it contains notebooks/ and pyproject.toml


def is_checkout() -> bool:
    """Whether the library is part of a clone of the project, not an installed package."""
    return (PROJECT / "notebooks").is_dir()


def without_names(text: object) -> str:
    """Text with the home folder as ~, and the names of the user and of the host as <user> and <host>."""
    found = str(text).replace(str(Path.home()), "~")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        user = ""
    host = platform.node()
    names = {host.partition(".")[0]: "<host>", host: "<host>", Path.home().name: "<user>", user: "<user>"}
    for name in sorted(filter(None, names), key=len, reverse=True):
        found = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", names[name], found)
    return found


def describe_place(path: Path) -> str:
    """A folder's path if it is inside the project or the default cache; otherwise only whether it is in ~."""
    path, home = path.resolve(), Path.home().resolve()
    if is_checkout() and path.is_relative_to(PROJECT):
        return without_names(f"{path.relative_to(PROJECT)}, in the project")
    if path == home / ".cache" / "ddpo":
        return "~/.cache/ddpo"
    return "a folder in ~" if path.is_relative_to(home) else "a folder outside the project and ~"


def describe_file(path: Path) -> str:
    """A file's kind and size, without its name.

    Raises:
        OSError: there is no such file.
    """
    kind = path.suffix.removeprefix(".")
    return f"a {kind} file, {describe_size(path.stat().st_size)}" if kind else describe_size(path.stat().st_size)


def describe_size(size: int) -> str:
    """A number of bytes in decimal units: 512 B, 1.2 kB, 3.4 MB, 5.6 GB."""
    if size < 1000:
        return f"{size} B"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 999.95:  # a larger one would be rounded to 1000.0
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"
