"""The modules of the library, read and not run: definitions, what each does, and what it names.

A definition is a function, a class or a constant at the top of a module. `code_text` says what of it counts.
"""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from ddpo_lib.base.code_text import WHOLE, Place, Reader, is_docstring
from ddpo_lib.base.errors import InputError


@dataclass(frozen=True)
class Definition:
    """What one definition does, and what it names.

    Attributes:
        text: its code, normalised.
        named: pairs of a name in the text and the place of its definition.
        types: places of classes that only annotations name.
        attributes: every name `x` that its code uses as `.x`.
        packages: other packages that it uses.
        file: the file, if the definition is the path of one.
    """

    text: str
    named: frozenset[tuple[str, Place]]
    types: frozenset[Place] = frozenset()
    attributes: frozenset[str] = frozenset()
    packages: frozenset[str] = frozenset()
    file: Path | None = None


class Library:
    """The modules of a folder, read but not imported."""

    def __init__(self, root: Path):
        self.root = root
        self._modules: dict[Path, Module] = {}
        self._found: dict[tuple[str, ...], tuple[Path, list[str]]] = {}

    @staticmethod
    @cache
    def of(root: Path) -> "Library":
        return Library(root)

    def module(self, file: Path, source: str | None = None) -> "Module":
        """The module of a file. `source` replaces the file's text if only a part of it is code."""
        if file not in self._modules:
            self._modules[file] = Module(self, file, source or file.read_text(encoding="utf-8"))
        return self._modules[file]

    def file(self, dotted: list[str]) -> Path | None:
        """The file of a module by its name within the library, [] for the library itself."""
        place = self.root.joinpath(*dotted)
        files = [place / "__init__.py", *([place.with_name(f"{place.name}.py")] if dotted else [])]
        return next((file for file in files if file.is_file()), None)

    def find(self, dotted: list[str]) -> tuple[Path, list[str]]:
        """The module that a dotted name begins with, and the rest of the name."""
        asked = tuple(dotted)
        if asked not in self._found:
            cuts = ((self.file(dotted[:cut]), dotted[cut:]) for cut in range(len(dotted), -1, -1))
            self._found[asked] = next((file, rest) for file, rest in cuts if file)
        return self._found[asked]

    def place_of(self, kind: type) -> Place | None:
        """The place of a class; None for a class of another library."""
        start, *module = kind.__module__.split(".")
        return self.resolve([*module, kind.__qualname__], self.root) if start == self.root.name else None

    def resolve(self, dotted: list[str], asked: Path) -> Place:
        """The place of a definition, or of a whole module with the name `WHOLE`.

        Raises:
            InputError: there is no such definition; the message names `asked`, the file that imports it.
        """
        file, rest = self.find(dotted)
        if not rest:
            return file, WHOLE
        module = self.module(file)
        if rest[0] in module.definitions:
            return file, rest[0]
        if (inner := module.imported.get(rest[0])) and inner[0] == self.root.name:
            return self.resolve([*inner[1:], *rest[1:]], file)
        if rest[0] in module.lazy:
            return self.resolve([*module.lazy[rest[0]].split("."), rest[0]], file)
        raise InputError(f"{asked}: imports {'.'.join([self.root.name, *dotted])}, which does not exist")


class Module:
    """One file: the definitions at its top, and where its names come from."""

    def __init__(self, library: Library, file: Path, source: str):
        self.library, self.file = library, file
        self.tree = ast.parse(source)
        self.definitions: dict[str, ast.stmt] = {}
        self.others: list[ast.stmt] = []  # statements that run at import and define no name
        for statement in self.tree.body:
            names = _defines(statement)
            self.definitions |= dict.fromkeys(names, statement)
            if not names and not isinstance(statement, (ast.Import, ast.ImportFrom)) and not is_docstring(statement):
                self.others.append(statement)
        self._read: dict[str, Definition] = {}

    @cached_property
    def imported(self) -> dict[str, tuple[str, ...]]:
        """Name in this module -> dotted name of what it imports."""
        tops = [node for node in self.tree.body if isinstance(node, (ast.Import, ast.ImportFrom, ast.If, ast.Try))]
        return self._imports(tops)

    @cached_property
    def lazy(self) -> dict[str, str]:
        """Name -> module that it is imported from at its first use: the table `_MODULES`."""
        table = self.definitions.get("_MODULES")
        return ast.literal_eval(table.value) if table else {}

    def modules_used(self) -> set[Path]:
        """The files of the library's modules that this one imports from, at its top or inside functions.

        Raises:
            InputError: an import of the library that leads nowhere; names this file.
        """
        read = [read for _, _, read in self._imported_names([self.tree])]
        return {self.library.find(list(name[1:]))[0] for name in read if name[0] == self.library.root.name}

    def _imports(self, nodes: Iterable[ast.AST]) -> dict[str, tuple[str, ...]]:
        return {name: bound for name, bound, _ in self._imported_names(nodes)}

    def _imported_names(self, nodes: Iterable[ast.AST]) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """Of each name imported: as it is here, what it stands for, what is read; for `import a.b`: a, a and a.b."""
        found = []
        for node in (inner for outer in nodes for inner in ast.walk(outer)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    read = tuple(alias.name.split("."))
                    found.append((alias.asname, read, read) if alias.asname else (read[0], read[:1], read))
            elif isinstance(node, ast.ImportFrom):
                read = [(*self._start(node), alias.name) for alias in node.names]
                found += [(a.asname or a.name, name, name) for a, name in zip(node.names, read, strict=True)]
        for _, _, name in found:
            if name[0] == self.library.root.name:
                self.library.resolve(list(name[1:]), self.file)
        return found

    def _start(self, node: ast.ImportFrom) -> tuple[str, ...]:
        """The dotted name after `from`; a relative name is completed from the top of the library."""
        module = tuple(node.module.split(".")) if node.module else ()
        if not node.level:
            return module
        folder = self.file.parent.relative_to(self.library.root).parts
        return (self.library.root.name, *folder[: len(folder) - node.level + 1], *module)

    def read(self, name: str) -> Definition:
        """A definition of this module. The name "" means the statements that run at import and define no name."""
        if name not in self._read:
            kept = self.others if not name else [self._statement(name)]
            self._read[name] = self.normalise(kept, name)
        return self._read[name]

    def _statement(self, name: str) -> ast.stmt:
        outer, _, method = name.partition(".")
        statement = self.definitions[outer]
        return next(m for m in statement.body if getattr(m, "name", None) == method) if method else statement

    def normalise(self, statements: list[ast.stmt], name: str = "") -> Definition:
        """What statements of this file do and name."""
        if name and isinstance(statements[0], (ast.Assign, ast.AnnAssign)) and _reads_file(statements[0].value):
            return Definition(name, frozenset(), file=self._path(name, statements[0].value))
        names = {name: (*self._here, name) for name in self.definitions} | self.imported | self._imports(statements)
        reader = Reader(self, names)
        text = reader.write(statements)
        return Definition(text, *map(frozenset, (reader.named, reader.types, reader.attributes, reader.packages)))

    @cached_property
    def _here(self) -> tuple[str, ...]:
        """This module's dotted name; for a file outside the library, the file's path."""
        if not self.file.is_relative_to(self.library.root):
            return (str(self.file),)
        parts = self.file.relative_to(self.library.root.parent).with_suffix("").parts
        return parts[:-1] if parts[-1] == "__init__" else parts

    def _path(self, name: str, value: ast.expr) -> Path | None:
        """The file that a constant names; None for a folder, whose files have constants of their own."""
        try:
            path = eval(compile(ast.Expression(value), str(self.file), "eval"), {"Path": Path, "__file__": self.file})
        except (NameError, TypeError, AttributeError):
            path = None
        if not isinstance(path, Path):
            raise InputError(f"{self.file}: {name} reads __file__; make it a path of plain strings, and read it later")
        return path if path.is_file() else None


def _defines(statement: ast.stmt) -> list[str]:
    """The names that a statement at the top of a module defines."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)):
        return []
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _reads_file(value: ast.expr | None) -> bool:
    return value is not None and any(isinstance(n, ast.Name) and n.id == "__file__" for n in ast.walk(value))
