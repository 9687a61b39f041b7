"""Constructors read from source: names, classes and arguments. Nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.modules import locate
from toolkit.registry import PARTS, Registration

INTERFACES = {target.partition(":")[2]: kind for kind, target in PARTS.items()}
DEEPEST = 16
"""After so many names that stand for one another, or classes that inherit, no more is followed."""


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
            if isinstance(statement, ast.ImportFrom) and depth < DEEPEST:
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
    for base in cls.bases if depth < DEEPEST else []:
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
