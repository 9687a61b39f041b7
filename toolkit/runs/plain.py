"""Plain data from untrusted text files: dicts, lists, text and numbers, neither too large nor too deep."""

from __future__ import annotations

import json
from pathlib import Path
from stat import S_ISREG
from typing import Any

import yaml
from yaml.events import AliasEvent

LARGEST = 1 << 22
"""Bytes of a text file that is read whole."""
LARGEST_YAML = 1 << 17
"""The same for YAML: as much takes a second to parse."""
DEEPEST = 32
"""Dicts and lists inside one another."""


def read_json(path: Path) -> Any:
    """OSError where a file cannot be read, ValueError where it is not plain data or too large."""
    try:
        return _plain(json.loads(read_text(path, LARGEST)))
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e


def read_yaml(path: Path) -> Any:
    """The same for YAML, without tags, which would create objects, and without aliases, which can expand beyond any
    memory."""
    try:
        return _plain(yaml.load(read_text(path, LARGEST_YAML), _Loader))
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e
    except yaml.YAMLError as e:
        raise ValueError(" ".join(str(e).split())) from e


def write_yaml(values: dict[str, Any]) -> str:
    """The text, which ``read_yaml`` parses back."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def read_text(path: Path, largest: int) -> str:
    """The text of a regular file of at most ``largest`` bytes; others, such as pipes, may never end or block."""
    status = path.stat()
    if not S_ISREG(status.st_mode):
        raise ValueError("it is not a file")
    if status.st_size > largest:
        raise ValueError(f"it has {status.st_size} bytes, at most {largest} are read")
    return path.read_text(encoding="utf-8")


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(AliasEvent):
            raise ValueError(f"line {self.peek_event().start_mark.line + 1}: aliases are not read")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _plain(value: Any, left: int = DEEPEST) -> Any:
    """The value; ValueError where it is not plain."""
    if not left:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise ValueError(f"{key!r} is not a valid key")
            _plain(item, left - 1)
    elif isinstance(value, list):
        for item in value:
            _plain(item, left - 1)
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError("it holds an integer of more than 64 bits")
    elif value is not None and not isinstance(value, str | float):
        raise ValueError(f"it holds a {type(value).__name__}")
    return value
