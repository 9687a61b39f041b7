"""Annotations and defaults read from source: types, ranges, docs and values. Nothing is imported."""

from __future__ import annotations

import ast
from typing import Any, Literal, NamedTuple

from toolkit.ranges import Range
from toolkit.signatures import DEEPEST, INTERFACES, RuleError, Scope, name_of

_PLAIN = {"bool": bool, "int": int, "float": float, "str": str}


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
    for _ in range(DEEPEST):
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
    if depth > DEEPEST:
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
    if depth > DEEPEST:
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


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else name_of(node)
