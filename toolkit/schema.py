"""A constructor's signature as a list of typed options, read from source: nothing is imported.

The bare ``*`` of a constructor separates what the composition gives, matched by name, from the options
after it. An option is plain data (bool, int, float, str, None, Literal and list, tuple, dict of these)
or a nested part, annotated ``Callable[[int], Quantizer]`` with any interface, whose default is a registered
class. Its numbers are finite, and in the ``Range`` of its type, if that has one (``toolkit.ranges``). Its meaning is in
the class's docstring, under "Args:", or else in the annotation, which several classes may share: ``Depth =
Annotated[PositiveInt, Doc("how many blocks")]``.
"""

from __future__ import annotations

import ast
import dataclasses
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from toolkit import annotated, signatures
from toolkit.errors import ToolkitError
from toolkit.ranges import BITS_64, Range, range_of, refusal
from toolkit.registry import Registration, find, registrations
from toolkit.signatures import RuleError, Scope, SourceError

MISSING: Final = "???"
"""The default of an option that must be given."""


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
    nested: str | None = None
    """The kind of a nested part."""
    doc: str = ""
    range: Range | None = None
    """Of every number in it."""

    @property
    def wanted(self) -> str:
        """Its type and range, as the user writes them."""
        return f"{spell(self.type)}, {self.range}" if self.range else spell(self.type)

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
        """A plain value as the constructor takes it: lists become tuples where the type says so.

        ToolkitError, beginning with ``where``, if the value is of another type, or has a number that is out of range,
        NaN or infinite. A nested part's value is returned as it is.
        """
        if self.nested:
            return value
        try:
            converted = convert(self.type, value)
        except ValueError as error:
            raise ToolkitError(f"{where or self.name}: {error}") from None
        reason = refusal(converted, self.range)
        if reason:
            raise ToolkitError(f"{where or self.name}={value}: {reason}")
        return converted


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
    try:
        return _read(registration)
    except RuleError as error:
        raise SchemaError(f"{registration.kind}={registration.name}: {error} ({error.place})") from None
    except SourceError as error:
        raise SchemaError(f"{registration}: {error}") from None


def fields(cls: type) -> tuple[Option, ...]:
    """The fields of a dataclass as options, described by metadata's ``help`` or the string below each."""
    return _fields(cls)


@cache
def _fields(cls: type) -> tuple[Option, ...]:
    hints, ranged = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    notes: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        notes |= _field_notes(base)
    return tuple(
        Option(
            field.name,
            hints[field.name],
            _field_default(field),
            doc=field.metadata.get("help", notes.get(field.name, "")),
            range=range_of(ranged[field.name]),
        )
        for field in dataclasses.fields(cls)
    )


def convert(wanted: Any, value: Any) -> Any:
    """A plain value as the type ``wanted``, an int also as a float; ValueError for any other value."""
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
    if wanted is float and type(value) is int and abs(value) < BITS_64:
        return float(value)
    if origin is None and type(value) is wanted:
        return value
    raise ValueError(f"expects {spell(wanted)}, got {value!r}")


def spell(wanted: Any) -> str:
    """A type as the user writes it."""
    if get_origin(wanted) is Literal:
        return "one of " + _listed(get_args(wanted))
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join(spell(part) for part in get_args(wanted))
    if wanted is types.NoneType:
        return "null"
    return str(wanted) if get_args(wanted) else str(wanted.__name__)


def spell_value(value: Any, number: Callable[[float], str] = str) -> str:
    """A value as the user writes it; ``number`` says how floats are written."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(spell_value(item, number) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {spell_value(item, number)}" for key, item in value.items()) + "}"
    return number(value) if isinstance(value, float) else str(value)


def _one_of(choices: tuple[Any, ...], value: Any) -> Any:
    for choice in choices:
        if str(choice) == str(value) and isinstance(value, str | type(choice)):
            return choice
    raise ValueError(f"expects one of {_listed(choices)}, got {value!r}")


def _listed(choices: tuple[Any, ...]) -> str:
    return ", ".join(map(spell_value, choices))


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
    statements = signatures.parse(Path(file)).body if file else []
    bodies = (node.body for node in statements if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    notes = {}
    for field, note in pairwise(next(bodies, [])):
        if isinstance(field, ast.AnnAssign) and isinstance(note, ast.Expr):
            notes[signatures.name_of(field.target)] = " ".join(str(ast.literal_eval(note.value)).split())
    return notes


def _read(registration: Registration) -> Signature:
    scope, cls = signatures.class_of(registration)
    home, owner, function = signatures.constructor(scope, cls)
    given: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    if function:
        given = signatures.given(home, function)
        docs = signatures.arguments_section(owner) | signatures.arguments_section(cls)
        options = tuple(_option(home, *pair, docs) for pair in signatures.keywords(function))
    doc = ast.get_docstring(cls) or ""
    return Signature(registration.kind, registration.name, given, options, doc, scope.file, cls.lineno)


def _option(scope: Scope, argument: ast.arg, default: ast.expr | None, docs: Mapping[str, str]) -> Option:
    name = argument.arg
    if name == "name":
        raise RuleError(scope, argument, "an option cannot be called name: that is the component's")
    if argument.annotation is None:
        raise RuleError(scope, argument, f"{name}: an option needs a type")
    home, node, doc = annotated.annotation(scope, argument.annotation)
    doc = docs.get(name, doc)
    kind = annotated.part_kind(node)
    if kind:
        part = _registered(scope, kind, name, default) if default else MISSING
        return Option(name, dict, part, kind, doc)
    wanted = annotated.plain_type(home, node)
    if wanted is None:
        raise RuleError(scope, argument, _refusal(name, argument.annotation))
    allowed = annotated.range_of(scope, argument.annotation)
    return Option(name, wanted, _default(scope, name, wanted, default, allowed), None, doc, allowed)


def _refusal(name: str, node: ast.expr) -> str:
    written = ast.unparse(annotated.unquoted(node))
    if written.startswith("Callable"):
        interfaces = ", ".join(signatures.INTERFACES)
        return f"{name}: {written} does not name an interface, imported by its own name: {interfaces}"
    return f"{name}: {written} is not plain data; move it before the * if the composition gives it"


def _default(scope: Scope, name: str, wanted: Any, node: ast.expr | None, allowed: Range | None) -> Any:
    if node is None:
        return MISSING
    try:
        value = convert(wanted, annotated.literal(scope, node))
    except ValueError as error:
        raise RuleError(scope, node, f"{name}: its default {ast.unparse(node)} {error}") from None
    reason = refusal(value, allowed)
    if reason:
        raise RuleError(scope, node, f"{name}: its default {ast.unparse(node)} {reason}")
    return value


def _registered(scope: Scope, kind: str, name: str, default: ast.expr) -> str:
    """The registered name of the class that is a nested part's default."""
    definition = scope.look(signatures.name_of(default))
    if definition and isinstance(definition[1], ast.ClassDef):
        place = (definition[0].file, definition[1].name)
        for registration in registrations(kind):
            if _place(registration) == place:
                return registration.name
    text = f"{name}: its default {ast.unparse(default)} is not a registered {kind}"
    raise RuleError(scope, default, text)


def _place(registration: Registration) -> tuple[Path, str] | None:
    if not registration.target.count(":"):
        return None
    try:
        scope, cls = signatures.class_of(registration)
    except SourceError:  # another plugin's mistake, reported when that is selected
        return None
    return scope.file, cls.name
