"""Quotes words of the command line for Hydra's grammar.

The user writes ``dataset.root=/my data/(new)``; Hydra would read the value as an expression. Where the schema
says that a value is plain text, it is quoted here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from toolkit import registry
from toolkit.cli.config.groups import kind_of, listed
from toolkit.errors import ToolkitError
from toolkit.registry import LISTS
from toolkit.schema import Option, signature

TEXT = ("init", "name", "run", "out", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
FREE = ("prior_dataset.", "extra.")
"""What the keys begin with that are the dataset's, or the user's own."""
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_NAMES = re.compile(r"\w+(,\w+)*")
_SWEEP = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\(.*\)")


def prepare(words: Sequence[str], multirun: bool = False) -> list[str]:
    """Overrides for Hydra: text quoted, ``quantizer.inner=x`` or with ``.name`` as ``quantizer/inner=x``, null as ~."""
    renamed = [_as_group(word) for word in words]
    return [_prepared(word, renamed, multirun) for word in renamed]


def key_of(word: str) -> str:
    """The dotted key of an override, without Hydra's prefixes."""
    return word.partition("=")[0].lstrip("+~").partition("@")[0].replace("/", ".")


def text(value: str) -> str:
    """A value quoted so that Hydra's grammar returns it unchanged."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", r"\'")
    return f"'{escaped}'"


def _as_group(word: str) -> str:
    key, separator, value = word.partition("=")
    group = key.removesuffix(".name").replace(".", "/")
    names = _NAMES.fullmatch(value) and "." in key and value != "null"
    named = separator and (key.endswith(".name") or names) and kind_of(group.lstrip("+"))
    return f"{group}={value}" if named else word


def _prepared(word: str, words: Sequence[str], multirun: bool) -> str:
    key, separator, value = word.partition("=")
    if value == "null" and key in LISTS:
        return f"{key}=[]"
    if value == "null" and (kind_of(key) or key in ("experiment", "extra")):
        return f"~{key}"
    if key.startswith(FREE):  # keys that no YAML can list
        key = f"++{key}"
    if not separator or not _is_text(key_of(word), words) or _given_as_is(key, value, words):
        return f"{key}{separator}{value}"
    return f"{key}={_sweep_values(value) if multirun else _one(value)}"


def _one(value: str) -> str:
    return value if _QUOTED.fullmatch(value) else text(value)


def _sweep_values(value: str) -> str:
    """With -m a comma separates values, unless the user quoted it."""
    if _SWEEP.fullmatch(value):
        return value
    parts = re.findall(rf"(?:{_QUOTED.pattern}|[^,])+", value)
    return ",".join(_one(part) for part in parts)


def _given_as_is(key: str, value: str, words: Sequence[str]) -> bool:
    options = _options(key_of(key), words)
    return value == "" or (value == "null" and not any(option.type is str for option in options))


def _is_text(key: str, words: Sequence[str]) -> bool:
    options = _options(key, words)
    return key in TEXT or (bool(options) and all(option.text for option in options))


def _options(key: str, words: Sequence[str]) -> list[Option]:
    """The options that a key may mean: of the part that the words choose, else of any of its kind."""
    path, _, leaf = key.replace("prior_dataset.", "dataset.").rpartition(".")
    kind, names = _parts(path, words)
    options = [_option(kind, name, leaf) for name in names]
    return [option for option in options if option]


def _parts(path: str, words: Sequence[str]) -> tuple[str, Sequence[str]]:
    if part := listed(path):
        return part[0], [part[1]]
    kind = kind_of(path.replace(".", "/")) or ""
    chosen = [word.partition("=")[2] for word in words if word.lstrip("+").startswith(f"{path.replace('.', '/')}=")]
    known = registry.names(kind) if kind else ()
    return kind, [name for name in chosen if name in known] or known


def _option(kind: str, name: str, leaf: str) -> Option | None:
    try:
        return signature(kind, name).option(leaf)
    except ToolkitError:  # reported when the part is composed
        return None
