"""Constructors read from source: classes, arguments and types. Nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from toolkit.errors import ToolkitError
from toolkit.modules import locate
from toolkit.ranges import Range
from toolkit.registry import KINDS, Registration

INTERFACES = {target.partition(":")[2]: kind for kind, target in KINDS.items()}
_PLAIN = {"bool": bool, "int": int, "float": float, "str": str}
_DEEPEST = 16


class SourceError(ToolkitError):
    """Source that is missing or cannot be read."""


class RuleError(Exception):
    """A constructor that breaks a rule, with ``place``, its file and line."""

    def __init__(self, scope: Scope, node: ast.AST, text: str) -> None:
        super().__init__(text)
        self.place = f"{scope.file}:{getattr(node, 'lineno', 1)}"


# -- names


@dataclass(frozen=True)
class Scope:
    """A module's source, where names are looked up."""

    module: str
    file: Path
    folder: Path | None

    def look(self, name: str, depth: int = 0) -> tuple[Scope, ast.AST] | None:
        """The class, or the expression, that a name stands for, followed through imports."""
        for statement in _statements(parse(self.file).body):
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return self, statement
            if isinstance(statement, ast.Assign) and name in map(name_of, statement.targets):
                return self, statement.value
            if isinstance(statement, ast.AnnAssign) and name_of(statement.target) == name and statement.value:
                return self, statement.value
            if isinstance(statement, ast.ImportFrom) and depth < _DEEPEST:
                for alias in statement.names:
                    if name == (alias.asname or alias.name):
                        return self._from(statement, alias.name, depth)
        return None

    def _from(self, statement: ast.ImportFrom, name: str, depth: int) -> tuple[Scope, ast.AST] | None:
        scope = _scope(self._absolute(statement), self.folder)
        return scope.look(name, depth + 1) if scope else None

    def _absolute(self, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        parts = self.module.split(".")
        up = statement.level - (self.file.name == "__init__.py")
        return ".".join([*parts[: len(parts) - up], *filter(None, [statement.module])])


@cache
def _scope(module: str, folder: Path | None) -> Scope | None:
    file = locate(module, folder) if module else None
    return Scope(module, file, folder) if file and file.suffix == ".py" and file.is_file() else None


@cache
def parse(file: Path) -> ast.Module:
    """A file's statements. SourceError where it is not Python or cannot be read."""
    try:
        return ast.parse(file.read_text(encoding="utf-8"), str(file))
    except SyntaxError as error:
        raise SourceError(f"{file}:{error.lineno}: syntax error: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{file}: cannot be read: {error}") from None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _statements([*statement.body, *statement.orelse])


def name_of(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else name_of(node)


# -- classes and their constructors


def class_of(registration: Registration) -> tuple[Scope, ast.ClassDef]:
    """The class behind a registration. SourceError where there is none."""
    module, _, name = registration.target.partition(":")
    scope = _scope(module, registration.folder)
    if scope is None:
        raise SourceError(f"module {module} has no source")
    definition = scope.look(name)
    if definition is None or not isinstance(definition[1], ast.ClassDef):
        raise SourceError(f"{scope.file} defines no class {name}")
    return definition[0], definition[1]


def constructor(scope: Scope, cls: ast.ClassDef, depth: int = 0) -> tuple[Scope, ast.ClassDef, ast.FunctionDef | None]:
    """The class's own ``__init__``, or the nearest inherited one that is not an interface's, and its class."""
    for statement in cls.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return scope, cls, statement
    for base in cls.bases if depth < _DEEPEST else []:
        parent = scope.look(name_of(base)) if name_of(base) not in INTERFACES else None
        if parent and isinstance(parent[1], ast.ClassDef) and parent[0].module.partition(".")[0] != "torch":
            inherited = constructor(parent[0], parent[1], depth + 1)
            if inherited[2]:
                return inherited
    return scope, cls, None


def given(scope: Scope, function: ast.FunctionDef) -> tuple[str, ...]:
    """The names before the ``*``."""
    arguments = function.args
    for star, argument in (("*", arguments.vararg), ("**", arguments.kwarg)):
        if argument:
            raise RuleError(scope, argument, f"{star}{argument.arg}: a component must name all its arguments")
    if arguments.defaults:
        first = (arguments.posonlyargs + arguments.args)[-len(arguments.defaults)]
        text = f"{first.arg} has a default before the *: options come after it, and what is given has no default"
        raise RuleError(scope, first, text)
    return tuple(argument.arg for argument in (arguments.posonlyargs + arguments.args)[1:])


def keywords(function: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """The arguments after the ``*``, and their defaults."""
    return zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)


def arguments_section(node: ast.ClassDef) -> dict[str, str]:
    """The "Args:" section of a class's docstring, by name."""
    section = re.split(r"^\s*Args:\s*$", ast.get_docstring(node) or "", maxsplit=1, flags=re.MULTILINE)
    docs: dict[str, str] = {}
    name = ""
    for line in section[1].strip("\n").splitlines() if len(section) > 1 else []:
        if not line.strip() or not line.startswith(" "):
            break
        start = re.match(r" {4}(\w+):\s*(.*)", line)
        if start:
            name, docs[start[1]] = start[1], start[2]
        elif name:
            docs[name] += " " + line.strip()
    return docs


# -- types and values


class Annotation(NamedTuple):
    """What an annotation stands for, and the scope in which that is written."""

    scope: Scope
    node: ast.expr
    doc: str


def annotation(scope: Scope, node: ast.expr) -> Annotation:
    """An annotation with its aliases followed and its ``Annotated[type, Doc("…")]`` opened.

    ``doc`` is the outermost of the docs on the way; a plain string in place of ``Doc("…")`` counts as well.
    """
    doc = ""
    for _ in range(_DEEPEST):
        node = unquoted(node)
        alias = scope.look(node.id) if isinstance(node, ast.Name) and node.id not in _PLAIN else None
        if alias and isinstance(alias[1], ast.expr):
            scope, node = alias[0], alias[1]
        elif isinstance(node, ast.Subscript) and _last(node.value) == "Annotated":
            wrapped, *notes = _inside(node)
            node, doc = wrapped, doc or _doc(notes)
        else:
            break
    return Annotation(scope, node, doc)


def range_of(scope: Scope, node: ast.expr, depth: int = 0) -> Range | None:
    """The ``Range`` somewhere in an annotation; RuleError where its bounds are not literals."""
    node = unquoted(node)
    alias = scope.look(node.id) if isinstance(node, ast.Name) and node.id not in _PLAIN else None
    if depth > _DEEPEST:
        return None
    if alias and isinstance(alias[1], ast.expr):
        return range_of(alias[0], alias[1], depth + 1)
    if isinstance(node, ast.Call) and _last(node.func) == "Range":
        return _range(scope, node)
    return next((found for part in _types(node) if (found := range_of(scope, part, depth + 1))), None)


def _types(node: ast.expr) -> list[ast.expr]:
    """The expressions in an annotation that may name a type or a range; strings in some places are other things."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if not isinstance(node, ast.Subscript) or _last(node.value) == "Literal":
        return []
    first, *others = _inside(node)
    texts = _last(node.value) == "Annotated"
    return [first, *(other for other in others if not (texts and isinstance(other, ast.Constant)))]


def _range(scope: Scope, node: ast.Call) -> Range:
    names = ("least", "most", "above", "below")
    words = [*zip(names, node.args, strict=False), *((str(word.arg), word.value) for word in node.keywords)]
    try:
        return Range(**{name: literal(scope, value) for name, value in words})
    except (TypeError, ValueError):
        text = f"{ast.unparse(node)}: give numbers, or constants that are, for any of {', '.join(names)}"
        raise RuleError(scope, node, text) from None


def part_kind(node: ast.expr) -> str | None:
    """The kind of ``Callable[[int], Quantizer]``."""
    if not isinstance(node, ast.Subscript) or _last(node.value) != "Callable":
        return None
    parts = _inside(node)
    return INTERFACES.get(_last(unquoted(parts[-1]))) if len(parts) == 2 else None


def plain_type(scope: Scope, node: ast.expr, depth: int = 0) -> Any:
    """The type of an annotation; None where it is not plain data."""
    scope, node, _ = annotation(scope, node)
    if depth > _DEEPEST:
        return None
    if isinstance(node, ast.Name):
        return _PLAIN.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _optional(scope, [node.left, node.right], depth)
    if isinstance(node, ast.Subscript):
        return _generic(scope, node, depth)
    return None


def literal(scope: Scope, node: ast.AST) -> Any:
    """The value of a literal, or of a module's constant that is one; ValueError for anything else."""
    definition = scope.look(node.id) if isinstance(node, ast.Name) else (scope, node)
    if definition is None or isinstance(definition[1], ast.ClassDef):
        raise ValueError("is not a literal")
    if isinstance(definition[1], ast.Name):
        return literal(*definition)
    try:
        return ast.literal_eval(definition[1])  # type: ignore[arg-type]
    except ValueError:
        raise ValueError("is not a literal") from None


def unquoted(node: ast.expr) -> ast.expr:
    """An annotation without the quotes around it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    return node


def _inside(node: ast.Subscript) -> list[ast.expr]:
    """What is between the brackets."""
    return node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]


def _doc(notes: list[ast.expr]) -> str:
    """The first string, or ``Doc`` of a string, in an Annotated's metadata."""
    for note in notes:
        text = note.args[0] if isinstance(note, ast.Call) and _last(note.func) == "Doc" and note.args else note
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            return " ".join(text.value.split())
    return ""


def _optional(scope: Scope, members: list[ast.expr], depth: int) -> Any:
    some = [node for node in members if not (isinstance(node, ast.Constant) and node.value is None)]
    inside = plain_type(scope, some[0], depth + 1) if len(some) == 1 and len(members) == 2 else None
    return inside and inside | None


def _generic(scope: Scope, node: ast.Subscript, depth: int) -> Any:
    outer, inside = _last(node.value), _inside(node)
    if outer == "Literal":
        return _choices(inside)
    if outer == "Optional":
        return _optional(scope, [inside[0], ast.Constant(None)], depth)
    endless = outer == "tuple" and isinstance(inside[-1], ast.Constant) and inside[-1].value is Ellipsis
    parts = [plain_type(scope, part, depth + 1) for part in (inside[:-1] if endless else inside)]
    if any(part is None for part in parts) or outer not in ("list", "tuple", "dict"):
        return None
    if outer == "tuple":
        return tuple[(parts[0], ...)] if endless else tuple[tuple(parts)]  # type: ignore[valid-type,misc]
    if outer == "dict":
        return dict[parts[0], parts[1]] if len(parts) == 2 and parts[0] in (str, int) else None  # type: ignore[misc,valid-type]
    return list[parts[0]] if len(parts) == 1 else None  # type: ignore[misc,valid-type]


def _choices(nodes: list[ast.expr]) -> Any:
    values = [node.value for node in nodes if isinstance(node, ast.Constant)]
    some = tuple(value for value in values if value is not None)
    if len(values) != len(nodes) or not some or not all(isinstance(value, str | int) for value in some):
        return None
    chosen: Any = Literal[some]  # type: ignore[valid-type]
    return chosen if len(some) == len(values) else chosen | None
