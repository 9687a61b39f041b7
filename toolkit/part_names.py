"""The names of files that lie in parts, as the field has them: ``model-00001-of-00002.safetensors``."""

from __future__ import annotations

import re
from collections.abc import Collection

PART = re.compile(r"([\w-]+)-(\d{5})-of-(\d{5})(\.\w+)", re.ASCII)


def part_name(file: str, number: int, count: int) -> str:
    """The name of one of a file's parts, counted from 1."""
    stem, dot, suffix = file.rpartition(".")
    return f"{stem}-{number:05d}-of-{count:05d}{dot}{suffix}"


def whole_name(name: str) -> str:
    """The file of which this is a part; another name as it is."""
    found = PART.fullmatch(name)
    return f"{found[1]}{found[4]}" if found else name


def names_of(file: str, there: Collection[str]) -> list[str]:
    """Of what a file consists, to judge by what is there: itself, or its parts in order, with those that are not."""
    parts = [found for name in there if (found := PART.fullmatch(name)) and whole_name(name) == file]
    if file in there or not parts:
        return [file]
    count = max(int(part[3]) for part in parts)
    return [part_name(file, number, count) for number in range(1, count + 1)]
