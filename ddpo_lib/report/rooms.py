"""The library's source -> its rooms: what comes in and goes out, how large each is, and which rooms it imports from."""

import ast
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ddpo_lib.base.code_keys import LIBRARY
from ddpo_lib.base.definitions import Library, Module
from ddpo_lib.base.errors import InputError


@dataclass(frozen=True)
class Room:
    """One sub-package of the library.

    Attributes:
        name: of its folder.
        takes: what comes in, from the first line of its docstring.
        gives: what goes out, from the second.
        modules: their number, without `__init__.py` and `__main__.py`.
        lines: of all its Python files.
        imports: by room, the number of imports, in the order of the rooms. A module that imports from another module
            counts once, however many names it imports. Imports inside the room are not counted.
    """

    name: str
    takes: str
    gives: str
    modules: int
    lines: int
    imports: dict[str, int]


def read_rooms(root: Path = LIBRARY) -> list[Room]:
    """The rooms of a library in the order of its `ROOMS`; the modules are read and not run.

    Args:
        root: the library's folder. Its `__init__.py` lists the rooms.

    Raises:
        InputError: a module of a folder that is no room, an import of such a module or of one outside the rooms, an
            import that leads nowhere, or a room whose docstring does not say in two lines what comes in and goes out.
    """
    library = Library.of(root)
    names = ast.literal_eval(library.module(root / "__init__.py").definitions["ROOMS"].value)
    files: dict[str, list[Path]] = {name: [] for name in names}
    for file in sorted(root.glob("*/**/*.py")):
        files[room_of(file, root, names)].append(file)
    return [_room(library, name, names, files[name]) for name in names]


def room_of(file: Path, root: Path, names: tuple[str, ...]) -> str:
    """The room that a module lies in.

    Raises:
        InputError: it lies in none of the rooms `names`.
    """
    place = file.relative_to(root)
    if place.parts[0] not in names:
        raise InputError(f"{file}: lies in no room; put it into the folder of one of {', '.join(names)}")
    return place.parts[0]


def rooms_used(module: Module, names: tuple[str, ...]) -> Counter[str]:
    """By room, the number of its modules that a module imports from.

    Raises:
        InputError: an import that leads nowhere, or to a module in none of the rooms `names`.
    """
    root = module.library.root
    return Counter(room_of(file, root, names) for file in module.modules_used())


def _room(library: Library, name: str, names: tuple[str, ...], files: list[Path]) -> Room:
    takes, gives = _in_and_out(library, library.root / name / "__init__.py")
    used: Counter[str] = Counter()
    for file in files:
        used += rooms_used(library.module(file), names)
    modules = [file for file in files if not file.stem.startswith("__")]
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    imports = {other: used[other] for other in names if used[other] and other != name}
    return Room(name, takes, gives, len(modules), lines, imports)


def _in_and_out(library: Library, file: Path) -> tuple[str, str]:
    said = (file.is_file() and ast.get_docstring(library.module(file).tree)) or ""
    lines = said.splitlines()
    if [line.partition(": ")[0] for line in lines] != ["In", "Out"]:
        raise InputError(
            f"{file}: its docstring must say in two lines what comes in and goes out, `In: ...`, `Out: ...`"
        )
    takes, gives = (line.partition(": ")[2].rstrip(".") for line in lines)
    return takes, gives
