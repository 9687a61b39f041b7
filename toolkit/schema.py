"""A constructor's signature as a list of typed options, read from source: nothing is imported.

The bare ``*`` of a constructor is the border: before it what the composition gives, matched by name, after
it the options. An option is plain data (bool, int, float, str, None, Literal and list, tuple, dict of these)
or a nested part, annotated ``Callable[[int], Quantizer]`` with any interface, whose default is a registered
class.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from toolkit.errors import ToolkitError
from toolkit.modules import locate
from toolkit.registry import KINDS, Registration, find, registrations

MISSING: Final = "???"
"""The default of an option that must be given."""

INTERFACES = {target.partition(":")[2]: kind for kind, target in KINDS.items()}
_PLAIN = {"bool": bool, "int": int, "float": float, "str": str}
_DEEPEST = 16


class SchemaError(ToolkitError):
    """A component whose constructor cannot be read or breaks the rules, with its file and line."""


@dataclass(frozen=True)
class Option:
    """One option of a component."""

    name: str
    type: Any
    """A type in Python's own terms, such as ``tuple[int, ...]`` or ``Literal["a", "b"] | None``."""
    default: Any
    """``MISSING`` where the option must be given; of a nested part, a registered name."""
    annotation: str = ""
    nested: str | None = None
    """The kind of a nested part."""
    doc: str = ""

    @property
    def required(self) -> bool:
        return isinstance(self.default, str) and self.default == MISSING

    @property
    def text(self) -> bool:
        """Whether its values are plain text."""
        return self.type in (str, str | None)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a Literal or a bool; empty where any value of the type will do."""
        parts = [part for part in _members(self.type) if get_origin(part) is Literal]
        if parts:
            return get_args(parts[0])
        return (True, False) if bool in _members(self.type) else ()

    def convert(self, value: Any, where: str = "") -> Any:
        """A plain value as the constructor wants it: lists become tuples where it says so.

        ToolkitError, beginning with ``where``, if the value is of another type. A nested part's value is
        returned as it is.
        """
        if self.nested:
            return value
        try:
            return convert(self.type, value)
        except ValueError as error:
            raise ToolkitError(f"{where or self.name}: {error}") from None


@dataclass(frozen=True)
class Signature:
    """What a component's constructor asks for, and where that is written."""

    kind: str
    name: str
    given: tuple[str, ...]
    options: tuple[Option, ...]
    doc: str
    file: Path
    line: int

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return self.doc.strip().partition("\n")[0].rstrip(":")

    def option(self, name: str) -> Option | None:
        return next((option for option in self.options if option.name == name), None)


def signature(kind: str, name: str) -> Signature:
    """The signature of a registered name. SchemaError where its source is missing or breaks the rules."""
    return read(find(kind, name))


@cache
def read(registration: Registration) -> Signature:
    """The signature of the class behind a registration."""
    scope, found = _class(registration)
    try:
        return _read(registration, scope, found)
    except _Rule as rule:
        raise SchemaError(f"{registration.kind}={registration.name}: {rule} ({rule.place})") from None
    except SchemaError as error:
        raise SchemaError(f"{registration}: {error}") from None


def fields(cls: type) -> tuple[Option, ...]:
    """The fields of a dataclass as options, described by metadata's ``help`` or the string below each."""
    hints = get_type_hints(cls)
    notes: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        notes |= _field_notes(base)
    return tuple(
        Option(
            field.name,
            hints[field.name],
            _field_default(field),
            str(field.type),
            doc=field.metadata.get("help", notes.get(field.name, "")),
        )
        for field in dataclasses.fields(cls)
    )


def convert(wanted: Any, value: Any) -> Any:
    """A plain value as one of the type ``wanted``, an int as a float, too; ValueError where it is none."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        some = tuple(part for part in parts if part is not types.NoneType)
        return None if value is None else convert(Union[some], value)  # noqa: UP007
    if origin is Literal:
        return _one_of(parts, value)
    if origin in (list, tuple) and isinstance(value, list | tuple):
        return origin(_items(origin, parts, value))
    if origin is dict and isinstance(value, Mapping):
        return {convert(parts[0], key): convert(parts[1], item) for key, item in value.items()}
    if wanted is float and type(value) is int:
        return float(value)
    if origin is None and type(value) is wanted:
        return value
    raise ValueError(f"expects {spell(wanted)}, got {value!r}")


def spell(wanted: Any) -> str:
    """A type as a person writes it."""
    if get_origin(wanted) is Literal:
        return "one of " + ", ".join(map(str, get_args(wanted)))
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join(spell(part) for part in get_args(wanted))
    if wanted is types.NoneType:
        return "null"
    return str(wanted) if get_args(wanted) else str(wanted.__name__)


def _one_of(choices: tuple[Any, ...], value: Any) -> Any:
    for choice in choices:
        if str(choice) == str(value) and isinstance(value, str | type(choice)):
            return choice
    raise ValueError(f"expects one of {', '.join(map(str, choices))}, got {value!r}")


def _items(origin: Any, parts: tuple[Any, ...], value: list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    if origin is list or parts[1:] == (Ellipsis,):
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise ValueError(f"expects {len(parts)} values, got {list(value)!r}")
    return (convert(part, item) for part, item in zip(parts, value, strict=True))


def _members(wanted: Any) -> tuple[Any, ...]:
    return get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING if field.default is dataclasses.MISSING else field.default


def _field_notes(cls: type) -> dict[str, str]:
    """The string literal under each field."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    statements = _tree(Path(file)).body if file else []
    classes = (node for node in statements if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    notes = {}
    for field, note in pairwise(next((found.body for found in classes), [])):
        if isinstance(field, ast.AnnAssign) and isinstance(note, ast.Expr):
            notes[_name(field.target)] = " ".join(str(ast.literal_eval(note.value)).split())
    return notes


@dataclass(frozen=True)
class _Scope:
    """A module's source, where names are looked up."""

    module: str
    file: Path
    folder: Path | None

    def look(self, name: str, depth: int = 0) -> tuple[_Scope, ast.AST] | None:
        """The class, or the expression, that a name stands for, followed through imports."""
        for statement in _statements(_tree(self.file).body):
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return self, statement
            if isinstance(statement, ast.Assign) and name in map(_name, statement.targets):
                return self, statement.value
            if isinstance(statement, ast.AnnAssign) and _name(statement.target) == name and statement.value:
                return self, statement.value
            if isinstance(statement, ast.ImportFrom) and depth < _DEEPEST:
                for alias in statement.names:
                    if name == (alias.asname or alias.name):
                        return self._from(statement, alias.name, depth)
        return None

    def _from(self, statement: ast.ImportFrom, name: str, depth: int) -> tuple[_Scope, ast.AST] | None:
        scope = _scope(self._absolute(statement), self.folder)
        return scope.look(name, depth + 1) if scope else None

    def _absolute(self, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        parts = self.module.split(".")
        up = statement.level - (self.file.name == "__init__.py")
        return ".".join([*parts[: len(parts) - up], *filter(None, [statement.module])])


@cache
def _scope(module: str, folder: Path | None) -> _Scope | None:
    file = locate(module, folder) if module else None
    return _Scope(module, file, folder) if file and file.suffix == ".py" and file.is_file() else None


@cache
def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"), str(file))
    except SyntaxError as error:
        raise SchemaError(f"{file}:{error.lineno}: syntax error: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise SchemaError(f"{file}: cannot be read: {error}") from None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _statements([*statement.body, *statement.orelse])


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _class(registration: Registration) -> tuple[_Scope, ast.ClassDef]:
    module, _, name = registration.target.partition(":")
    try:
        scope = _scope(module, registration.folder)
        found = scope.look(name) if scope else None
    except SchemaError as error:
        raise SchemaError(f"{registration}: {error}") from None
    if scope is None:
        raise SchemaError(f"{registration}: there is no source of a module {module}")
    if found is None or not isinstance(found[1], ast.ClassDef):
        raise SchemaError(f"{registration}: {scope.file} defines no class {name}")
    return found[0], found[1]


def _read(registration: Registration, scope: _Scope, found: ast.ClassDef) -> Signature:
    doc = ast.get_docstring(found) or ""
    home, holder, function = _constructor(scope, found)
    given: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    if function:
        given = _given(home, function)
        told = _arguments(ast.get_docstring(holder) or "") | _arguments(doc)
        reader = _Reader(home, registration, told)
        options = tuple(reader.option(*pair) for pair in _keywords(function))
    return Signature(registration.kind, registration.name, given, options, doc, scope.file, found.lineno)


class _Rule(Exception):
    """A broken rule and the line where it is broken."""

    def __init__(self, scope: _Scope, node: ast.AST, text: str) -> None:
        super().__init__(text)
        self.place = f"{scope.file}:{getattr(node, 'lineno', 1)}"


def _constructor(
    scope: _Scope, found: ast.ClassDef, depth: int = 0
) -> tuple[_Scope, ast.ClassDef, ast.FunctionDef | None]:
    """The class's own ``__init__``, or the nearest inherited one that is no interface's, and its class."""
    for statement in found.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return scope, found, statement
    for base in found.bases if depth < _DEEPEST else []:
        parent = scope.look(_name(base)) if _name(base) not in INTERFACES else None
        if parent and isinstance(parent[1], ast.ClassDef) and parent[0].module.partition(".")[0] != "torch":
            inherited = _constructor(parent[0], parent[1], depth + 1)
            if inherited[2]:
                return inherited
    return scope, found, None


def _given(scope: _Scope, function: ast.FunctionDef) -> tuple[str, ...]:
    arguments = function.args
    for star, argument in (("*", arguments.vararg), ("**", arguments.kwarg)):
        if argument:
            raise _Rule(scope, argument, f"{star}{argument.arg}: a component names everything that it takes")
    if arguments.defaults:
        first = (arguments.posonlyargs + arguments.args)[-len(arguments.defaults)]
        text = f"{first.arg} has a default before the *: an option stands after it; what is given has none"
        raise _Rule(scope, first, text)
    return tuple(argument.arg for argument in (arguments.posonlyargs + arguments.args)[1:])


def _keywords(function: ast.FunctionDef) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    return zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)


def _arguments(doc: str) -> dict[str, str]:
    """The "Args:" section of a docstring, by name."""
    section = re.split(r"^\s*Args:\s*$", doc, maxsplit=1, flags=re.MULTILINE)
    found: dict[str, str] = {}
    name = ""
    for line in section[1].strip("\n").splitlines() if len(section) > 1 else []:
        if not line.strip() or not line.startswith(" "):
            break
        start = re.match(r" {4}(\w+):\s*(.*)", line)
        if start:
            name, found[start[1]] = start[1], start[2]
        elif name:
            found[name] += " " + line.strip()
    return found


@dataclass(frozen=True)
class _Reader:
    """Turns annotations and defaults of one constructor into options."""

    scope: _Scope
    registration: Registration
    docs: Mapping[str, str]

    def option(self, argument: ast.arg, default: ast.expr | None) -> Option:
        name = argument.arg
        if name == "name":
            raise _Rule(self.scope, argument, "an option cannot be called name: that is the component's")
        if argument.annotation is None:
            raise _Rule(self.scope, argument, f"{name}: an option needs a type")
        annotation = _unquoted(argument.annotation)
        written, doc = ast.unparse(annotation), self.docs.get(name, "")
        kind = self._part(annotation)
        if kind:
            part = self._registered(kind, name, default) if default else MISSING
            return Option(name, dict, part, written, kind, doc)
        wanted = self._type(self.scope, annotation)
        if wanted is None:
            raise _Rule(self.scope, argument, self._refusal(name, written))
        return Option(name, wanted, self._default(name, wanted, default), written, None, doc)

    def _refusal(self, name: str, written: str) -> str:
        if written.startswith("Callable"):
            return f"{name}: {written} names no interface, import it by its own name: {', '.join(INTERFACES)}"
        return f"{name}: {written} is no plain data; move it before the * if the composition gives it"

    def _part(self, annotation: ast.expr) -> str | None:
        """The kind of ``Callable[[int], Quantizer]``."""
        if not isinstance(annotation, ast.Subscript) or _last(annotation.value) != "Callable":
            return None
        parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else []
        return INTERFACES.get(_last(_unquoted(parts[-1]))) if len(parts) == 2 else None

    def _type(self, scope: _Scope, node: ast.expr, depth: int = 0) -> Any:
        """The type that an annotation says, None where it is no plain data."""
        node = _unquoted(node)
        if isinstance(node, ast.Name) and node.id in _PLAIN:
            return _PLAIN[node.id]
        if isinstance(node, ast.Name) and depth < _DEEPEST:
            alias = scope.look(node.id)
            named = alias and isinstance(alias[1], ast.expr)
            return self._type(alias[0], alias[1], depth + 1) if alias and named else None  # type: ignore[arg-type]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return self._optional(scope, [node.left, node.right])
        if isinstance(node, ast.Subscript):
            return self._generic(scope, node)
        return None

    def _optional(self, scope: _Scope, members: list[ast.expr]) -> Any:
        some = [node for node in members if not (isinstance(node, ast.Constant) and node.value is None)]
        inside = self._type(scope, some[0]) if len(some) == 1 and len(members) == 2 else None
        return inside and inside | None

    def _generic(self, scope: _Scope, node: ast.Subscript) -> Any:
        outer = _last(node.value)
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            return _literal(inside)
        if outer == "Optional":
            return self._optional(scope, [inside[0], ast.Constant(None)])
        endless = outer == "tuple" and isinstance(inside[-1], ast.Constant) and inside[-1].value is Ellipsis
        parts = [self._type(scope, part) for part in (inside[:-1] if endless else inside)]
        if any(part is None for part in parts) or outer not in ("list", "tuple", "dict"):
            return None
        if outer == "tuple":
            return tuple[(parts[0], ...)] if endless else tuple[tuple(parts)]  # type: ignore[valid-type,misc]
        if outer == "dict":
            return dict[parts[0], parts[1]] if len(parts) == 2 and parts[0] in (str, int) else None  # type: ignore[misc,valid-type]
        return list[parts[0]] if len(parts) == 1 else None  # type: ignore[misc,valid-type]

    def _default(self, name: str, wanted: Any, node: ast.expr | None) -> Any:
        if node is None:
            return MISSING
        try:
            return convert(wanted, self._value(self.scope, node))
        except ValueError as error:
            raise _Rule(self.scope, node, f"{name}: its default {ast.unparse(node)} {error}") from None

    def _value(self, scope: _Scope, node: ast.AST) -> Any:
        """A literal, or a constant of a module that stands for one."""
        found = scope.look(node.id) if isinstance(node, ast.Name) else (scope, node)
        if found is None or isinstance(found[1], ast.ClassDef):
            raise ValueError("is no literal that can be read")
        if isinstance(found[1], ast.Name):
            return self._value(*found)
        try:
            return ast.literal_eval(found[1])  # type: ignore[arg-type]
        except ValueError:
            raise ValueError("is no literal that can be read") from None

    def _registered(self, kind: str, name: str, default: ast.expr) -> str:
        """The registered name of the class that is a nested part's default."""
        found = self.scope.look(_name(default))
        if found and isinstance(found[1], ast.ClassDef):
            place = (found[0].file, found[1].name)
            for registration in registrations(kind):
                if _place(registration) == place:
                    return registration.name
        text = f"{name}: its default {ast.unparse(default)} is no registered {kind}"
        raise _Rule(self.scope, default, text)


def _place(registration: Registration) -> tuple[Path, str] | None:
    if not registration.target.count(":"):
        return None
    try:
        scope, found = _class(registration)
    except SchemaError:  # another plugin's fault, told to whoever selects it
        return None
    return scope.file, found.name


def _unquoted(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    return node


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else _name(node)


def _literal(choices: list[ast.expr]) -> Any:
    values = [choice.value for choice in choices if isinstance(choice, ast.Constant)]
    some = tuple(value for value in values if value is not None)
    if len(values) != len(choices) or not some or not all(isinstance(value, str | int) for value in some):
        return None
    chosen: Any = Literal[some]  # type: ignore[valid-type]
    return chosen if len(some) == len(values) else chosen | None
