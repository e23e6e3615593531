"""Which code an artifact depends on: a function -> a hash of every definition of the library that it reaches.

A definition is a function, a class or a constant at the top of a module. The names in a function's code lead to other
definitions, through imports at the top of a module and inside functions. Only what a definition does counts. Its
docstring, its comments and its module do not count, nor do the words of an error or of a log line. Annotations count
only outside functions, as for the fields of a class, where they say how a value is checked. A guard, an `if` that only
raises, does not count, nor does what only guards reach: a check can stop a run, but it cannot change an artifact. So
nothing is made again when a definition moves, a message is reworded or a check is added. `code_text.py` says which
guards count nevertheless.

A class that only annotations name is the type of a value that comes from elsewhere, such as a profile. Such a class
counts with the methods whose names the code uses. A constant that is a path beside its module, as in
`Path(__file__).with_name("x.yaml")`, stands for the file: the file's bytes count. For every other package that the code
uses, the minor version counts, if the package is in `VERSIONED`.
"""

import ast
import functools
import hashlib
import importlib.metadata
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ddpo_lib.base.code_text import WHOLE, Place
from ddpo_lib.base.definitions import Definition, Library
from ddpo_lib.base.files import file_hash

LIBRARY = Path(__file__).parents[1]
VERSIONED = {  # import name -> name of the package, whose minor version counts
    "torch": "torch",
    "transformers": "transformers",
    "trl": "trl",
    "peft": "peft",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "numpy": "numpy",
    "pandas": "pandas",
    "umap": "umap-learn",
}
# modules that do not change what an artifact contains
UNCOUNTED = ("run_folder", "pipeline", "errors", "code_keys", "code_text", "definitions")
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)^```", re.M | re.S)


def code_key(function: Callable, *, notebook: Path | None = None, unused: tuple[str, ...] = ()) -> dict:
    """What a function's results depend on besides its arguments.

    Args:
        function: a function of the library or of any other file. A `functools.partial` stands for the function that it
            calls, for the functions among its arguments, and for the types of its arguments.
        notebook: a Markdown notebook that the function executes; the library's code that its cells use counts too.
        unused: names of modules, without their folders, that the function could reach but does not reach with its
            arguments.

    Returns:
        `code`, a hash of the definitions; `packages`, the minor versions by package; `files`, hashes of the files that
        the definitions name, by file name.

    Raises:
        InputError: an import of something that the library does not have, or a constant that uses `__file__` and is not
            a path of plain strings; the message names the file.
    """
    functions, types = _roots(function)
    reached = reach(Library.of(LIBRARY), functions, types, notebook, (*UNCOUNTED, *unused))
    return {
        "code": _hash(json.dumps(sorted(reached.records))),
        "packages": {VERSIONED[name]: _minor(VERSIONED[name]) for name in sorted(reached.packages & VERSIONED.keys())},
        "files": {path.name: file_hash(path)[:16] for path in sorted(reached.files)},
    }


@dataclass
class Reached:
    """What a function depends on."""

    records: set[str] = field(default_factory=set)  # one hash per definition; it covers the definitions that it names
    places: set[Place] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)


@cache
def reach(
    library: Library, functions: tuple[Callable, ...], of: frozenset[type], notebook: Path | None, left_out: tuple
) -> Reached:
    """Every definition that functions lead to, except definitions in modules that are left out.

    Args:
        library: the modules to read.
        functions: functions of the library or of any other file.
        of: types of their arguments.
        notebook: as in `code_key`.
        left_out: names of modules, without their folders.
    """
    reached, attributes = Reached(), set()
    types = {place for each in of if (place := library.place_of(each))}
    todo: list[Place] = []

    def counts(place: Place) -> bool:
        file = place[0]
        return (file.parent.name if file.stem == "__init__" else file.stem) not in left_out

    def add(definition: Definition) -> None:
        named = [(name, place) for name, place in definition.named if counts(place)]
        texts = sorted((name, _hash(_text(library, place))) for name, place in named)
        reached.records.add(_hash(json.dumps([definition.text, texts])))
        reached.packages.update(definition.packages)
        reached.files.update([definition.file] if definition.file else [])
        attributes.update(definition.attributes)
        types.update(place for place in definition.types if counts(place))
        todo.extend(place for _, place in named)

    for function in functions:
        add(_definition_of(library, function))
    if notebook:
        cells = "\n".join(code for _, code in CELL.findall(notebook.read_text(encoding="utf-8")))
        module = library.module(notebook.resolve(), cells)
        add(module.normalise(module.tree.body))

    def methods() -> list[Place]:
        return [place for place in _methods_used(library, types, attributes, reached.places) if counts(place)]

    while todo := todo or methods():
        place = todo.pop()
        if place in reached.places or not counts(place):
            continue
        reached.places.add(place)
        module = library.module(place[0])
        todo += [(place[0], name) for name in (module.definitions if place[1] == WHOLE else [""])]
        if place[1] != WHOLE:
            add(module.read(place[1]))
    return reached


def _roots(function: Callable) -> tuple[tuple[Callable, ...], frozenset[type]]:
    """A function and the functions among its partial's arguments, and the types of the partial's arguments."""
    if not isinstance(function, functools.partial):
        return (inspect.unwrap(getattr(function, "__func__", function)),), frozenset()
    functions, types = _roots(function.func)
    arguments = [*function.args, *function.keywords.values()]
    return (*functions, *filter(inspect.isfunction, arguments)), types | {type(argument) for argument in arguments}


def _definition_of(library: Library, function: Callable) -> Definition:
    file = Path(inspect.getsourcefile(function)).resolve()
    if file.is_relative_to(Path(__file__).parents[1]):  # the library's own: in `library`, which may be a copy
        file = library.root / file.relative_to(Path(__file__).parents[1])
    module, line = library.module(file), function.__code__.co_firstlineno
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    if function.__qualname__ in module.definitions:
        return module.read(function.__qualname__)
    at_line = [node for node in ast.walk(module.tree) if isinstance(node, functions) and _first_line(node) == line]
    return module.normalise([ast.Expr(node) if isinstance(node, ast.Lambda) else node for node in at_line])


def _first_line(node) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _text(library: Library, place: Place) -> str:
    module = library.module(place[0])
    return module.read(place[1]).text if place[1] != WHOLE else ""


def _methods_used(library: Library, types: set[Place], attributes: set[str], known: set[Place]) -> list[Place]:
    """The methods whose names are used, of classes and of what their fields and bases name; known ones left out."""
    seen, todo, found = set(), list(types), []
    while todo:
        file, name = place = todo.pop()
        statement = library.module(file).definitions.get(name)
        if place in seen or not isinstance(statement, ast.ClassDef):
            continue
        seen.add(place)
        definition = library.module(file).read(name)
        todo += [named for _, named in definition.named] + list(definition.types)
        methods = {node.name for node in statement.body if isinstance(node, ast.FunctionDef) and node.name[:2] != "__"}
        found += [(file, f"{name}.{method}") for method in methods & attributes]
    return [place for place in found if place not in known]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _minor(package: str) -> str:
    """The minor version of the installed package, such as 2.13."""
    return ".".join(importlib.metadata.version(package).split(".")[:2])
