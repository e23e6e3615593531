"""Code -> text that is equal wherever the code does the same, and what the code names.

The text leaves out what does nothing: docstrings, comments, annotations of functions, the words of errors and of log
lines. It also leaves out guards: an `if` that only raises can stop a run, but it cannot change a result (`Reader` says
which ones count nevertheless).
"""

import ast
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddpo_lib.base.definitions import Module

LOGGERS = ("log", "logger")
WHOLE = "*"  # in place of a name: everything that a module defines

Place = tuple[Path, str]  # where a definition is: its module's file and its name, "Class.method" for a method


class Reader:
    """Writes code as text that is the same in every version of Python, and records what the code names.

    The text leaves out what has no effect. A name of the library becomes `@` and the name of its definition, however it
    was imported.

    A guard is an `if` without `else` whose body contains only `raise`. It is left out with all that it names. A guard
    counts if its test binds a name with `:=`, or if code may catch its error and go on: inside a `try`, and for an
    error class that the library defines outside `errors.py`.
    """

    def __init__(self, module: "Module", names: dict[str, tuple[str, ...]]):
        self.module, self.names = module, names
        self.named: set[tuple[str, Place]] = set()
        self.types: set[Place] = set()
        self.attributes: set[str] = set()
        self.packages: set[str] = set()
        self._called: dict[str, list[Place]] = {}  # name -> the places that have it
        self._functions = 0  # how many functions enclose the node
        self._tries = 0  # how many `try` statements enclose the node

    def write(self, node) -> str:
        if isinstance(node, list):
            return f"[{', '.join(filter(None, map(self.write, node)))}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        return getattr(self, f"_{type(node).__name__}", self._plain)(node)

    def _plain(self, node: ast.AST, *without: str) -> str:
        """A node as its fields. Empty fields are left out, since a new version of Python may add some."""
        parts = []
        for name, value in ast.iter_fields(node):
            if name == "ctx" or name in without or value is None or value == []:
                continue
            if name == "body" and isinstance(value, list) and is_docstring(value[0]):
                value = value[1:]
            parts.append(f"{name}={self.write(value)}")
        return f"{type(node).__name__}({', '.join(parts)})"

    def _FunctionDef(self, node) -> str:
        self._annotation(node.returns)
        self._functions += 1
        text = self._plain(node, "returns")
        self._functions -= 1
        return text

    _AsyncFunctionDef = _FunctionDef

    def _arg(self, node: ast.arg) -> str:
        self._annotation(node.annotation)
        return node.arg

    def _AnnAssign(self, node) -> str:
        if not self._functions:
            return self._plain(node)  # a field: its type says how it is checked
        self._annotation(node.annotation)
        return f"{self.write(node.target)} = {self.write(node.value)}" if node.value else ""

    def _Try(self, node) -> str:
        self._tries += 1
        text = self._plain(node)
        self._tries -= 1
        return text

    def _If(self, node: ast.If) -> str:
        return "" if self._is_guard(node) else self._plain(node)

    def _is_guard(self, node: ast.If) -> bool:
        if self._tries or node.orelse or any(isinstance(inner, ast.NamedExpr) for inner in ast.walk(node.test)):
            return False
        return all(isinstance(each, ast.Raise) and not self._is_to_be_caught(each) for each in node.body)

    def _is_to_be_caught(self, node: ast.Raise) -> bool:
        """Whether the library defines the error that is raised, and not in `errors.py`."""
        dotted = self._dotted(_raised(node)) or ()
        own = dotted[:1] in [(self.module.library.root.name,), (str(self.module.file),)]
        return own and "errors" not in dotted[:-1]

    def _Raise(self, node) -> str:
        kind = _raised(node)
        return f"Raise({ast.unparse(kind) if kind else ''})"

    def _Expr(self, node) -> str:
        call = node.value
        logs = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if logs and isinstance(call.func.value, ast.Name) and call.func.value.id in LOGGERS:
            return ""
        return self._plain(node)

    def _Import(self, node) -> str:
        return ""

    _ImportFrom = _Import

    def _Attribute(self, node) -> str:
        self.attributes.add(node.attr)
        place = self._place(node)
        return f"@{place}" if place else self._plain(node)

    def _Name(self, node) -> str:
        place = self._place(node)
        return f"@{place}" if place else node.id

    def _annotation(self, node: ast.expr | None) -> None:
        """The classes of the library that an annotation names."""
        for inner in ast.walk(node) if node else ():
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                self._annotation(ast.parse(inner.value, mode="eval"))
            elif place := self._resolved(inner):
                self.types.add(place)

    def _place(self, node: ast.expr) -> str | None:
        """The name of the definition of the library that a name or attribute stands for."""
        place = self._resolved(node)
        if place is None:
            return None
        name = place[1] if place[1] != WHOLE else place[0].stem
        called = self._called.setdefault(name, [])
        if place not in called:
            called.append(place)
        name += "'" * called.index(place)  # keeps places with the same name apart
        self.named.add((name, place))
        return name

    def _resolved(self, node: ast.AST) -> Place | None:
        if isinstance(node, ast.Name):
            dotted = self.names.get(node.id)
        elif isinstance(node, ast.Attribute) and (outer := self._dotted(node.value)):
            dotted = (*outer, node.attr)
        else:
            return None
        if dotted is None:
            return None
        library = self.module.library
        if dotted[0] == str(self.module.file):
            return self.module.file, dotted[1]
        if dotted[0] != library.root.name:
            self.packages.add(dotted[0])
            return None
        if len(library.find(list(dotted[1:]))[1]) > 1:
            return None  # an attribute of a definition, whose name is visited next
        return library.resolve(list(dotted[1:]), self.module.file)

    def _dotted(self, node: ast.expr | None) -> tuple[str, ...] | None:
        """The dotted name that a name or an attribute stands for; None if it is not known."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute) and (outer := self._dotted(node.value)):
            return (*outer, node.attr)
        return None


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _raised(node: ast.Raise) -> ast.expr | None:
    """The class of the error that a statement raises; None if it raises a caught error again."""
    return node.exc.func if isinstance(node.exc, ast.Call) else node.exc
