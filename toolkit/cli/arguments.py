"""``key=value`` words into a dataclass of options, for the commands that compose nothing.

Values are taken literally, without quoting. A field's metadata may have ``help`` and ``key``, its spelling on the
command line where that has a dot, such as ``prefix.file``; a string below the field is also help. A list ``files``,
``runs`` or ``hub`` takes the words without ``=``, a ``dict[str, str]`` dotted keys.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from toolkit import schema
from toolkit.errors import ToolkitError
from toolkit.ranges import BITS_64, LARGEST
from toolkit.registry import did_you_mean
from toolkit.schema import Option

T = TypeVar("T")
PATHS = ("files", "runs", "hub")
"""Lists that take the words without ``=``."""


def parse(command: str, cls: type[T], args: Sequence[str]) -> T:
    """The words as an instance of ``cls``. ToolkitError for a wrong one; ``--help`` prints and exits."""
    options = keyed(cls)
    if any(arg in ("-h", "--help") for arg in args):
        print(help_text(command, cls))
        raise SystemExit(0)
    values: dict[str, Any] = {}
    for word in args:
        _take(word, options, values)
    for key, option in options.items():
        if option.required and option.name not in values:
            raise ToolkitError(f"no {key} given: add {_usage(key, option)}")
    return cls(**values)


def keyed(cls: type) -> dict[str, Option]:
    """A dataclass's fields by their spelling on the command line."""
    spelling = {field.name: field.metadata.get("key", field.name) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return {spelling[option.name]: option for option in schema.fields(cls)}


def help_text(command: str, cls: type) -> str:
    """What the command does and what it takes."""
    options = keyed(cls)
    usage = " ".join(
        _usage(key, option) for key, option in options.items() if option.required or takes_words(key, option)
    )
    rows = [(_example(key, option), option.doc) for key, option in options.items()]
    width = max((len(left) for left, _ in rows), default=0)
    lines = [f"  {left:<{width}}  {doc}".rstrip() for left, doc in rows]
    return "\n".join([f"toolkit {command} {usage} [KEY=VALUE …]", "", cleandoc(cls.__doc__ or ""), "", *lines])


def takes_words(key: str, option: Option) -> bool:
    return key in PATHS and get_origin(option.type) is list


def _usage(key: str, option: Option) -> str:
    return f"{key.upper()}…" if takes_words(key, option) else f"{key}={_metavar(option)}"


def _example(key: str, option: Option) -> str:
    if takes_words(key, option) or option.required:
        return _usage(key, option)
    if _is_dict(option.type):
        return f"{key}.KEY=VALUE"
    return f"{key}={schema.spell_value(option.default)}"


def _metavar(option: Option) -> str:
    if option.choices:
        return "|".join(map(schema.spell_value, option.choices))
    return "PATH" if Path in (option.type, *get_args(option.type)) or option.name == "run" else "VALUE"


def _take(word: str, options: dict[str, Option], values: dict[str, Any]) -> None:
    key, separator, text = word.partition("=")
    head, _, subkey = key.partition(".")
    paths = next((name for name, option in options.items() if takes_words(name, option)), None)
    if separator and key in options and key != paths:
        values[options[key].name] = _in_range(_value(options[key].type, text, key), key)
    elif separator and subkey and head in options and _is_dict(options[head].type):
        values.setdefault(options[head].name, {})[subkey] = text
    elif paths and (not separator or Path(word).exists()) and not word.startswith("--"):
        values.setdefault(paths, []).append(_value(_items(options[paths].type), word, paths))
    else:
        raise ToolkitError(_unknown(word, key, options))


AT_LEAST = {"n": 1, "examples": 1, "frames": 1, "batch_size": 1, "seed": 0, "workers": 0, "port": 0}
"""The smallest values of options that several commands share."""
AT_MOST = {"seed": BITS_64 - 1, "workers": 256, "port": 65535}
"""The largest ones, where they are not those of counts."""


def _in_range(value: Any, key: str) -> Any:
    if value is not None and value < AT_LEAST.get(key, value):
        raise ToolkitError(f"{key}={value}: must be at least {AT_LEAST[key]}")
    most = AT_MOST.get(key, LARGEST)
    if isinstance(value, int) and value > most:
        raise ToolkitError(f"{key}={value}: must be at most {most}")
    return value


def _unknown(word: str, key: str, options: dict[str, Option]) -> str:
    if "=" not in word and "run" in options and Path(word).is_dir():
        return f"{word}: write run={word}"
    if "=" not in word and key in options:
        return f"{word}: write {_usage(key, options[key])}"
    known = [f"{name}.KEY" if _is_dict(option.type) else name for name, option in options.items()]
    return f"{word}: no option {key}{did_you_mean(key, options)}; options: {', '.join(known)}"


def _is_dict(wanted: Any) -> bool:
    return get_origin(wanted) is dict


def _items(wanted: Any) -> Any:
    return get_args(wanted)[0] if get_args(wanted) else str


def _value(wanted: Any, text: str, key: str) -> Any:
    try:
        return _read(wanted, text)
    except ValueError:
        raise ToolkitError(f"{key}={text}: expects {_spell(wanted)}") from None


def _spell(wanted: Any) -> str:
    return "a list, written [a,b]" if get_origin(wanted) in (list, tuple) else schema.spell(wanted)


def _read(wanted: Any, text: str) -> Any:
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType):
        some = [part for part in get_args(wanted) if part is not types.NoneType]
        return None if text in ("", "null") else _read(some[0], text)
    if origin is Literal:
        return schema.convert(wanted, text)
    if origin in (list, tuple):
        return origin(_read(_items(wanted), part) for part in _parts(text))
    if wanted is bool:
        return {"true": True, "false": False}.get(text) if text in ("true", "false") else _refuse()
    if wanted is float and math.isnan(float(text)):
        return _refuse()
    return wanted(text)


def _refuse() -> None:
    raise ValueError


def _parts(text: str) -> list[str]:
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    return [part.strip() for part in inside.split(",")] if inside.strip() else []
