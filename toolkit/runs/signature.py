"""Hashes in texts that people may read and edit: whoever changes one, or a disk that does, is told of."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from toolkit.runs.plain import LARGEST_YAML, read_text

FIRST = "# sha256: "
KEY = "sha256"


def signed(text: str) -> str:
    """The text of a YAML file, behind a comment that has its hash: what cuts the file short leaves it there."""
    return f"{FIRST}{sha256(text.encode()).hexdigest()}\n{text}"


def edited(path: Path) -> list[str]:
    """A notice where a signed YAML file is not as it was written; one without a signature is taken to be."""
    try:
        text = read_text(path, LARGEST_YAML)
    except (OSError, ValueError):  # who reads it says so
        return []
    first, _, rest = text.partition("\n")
    if not first.startswith(FIRST) or text == signed(rest):
        return []
    return [f"{path} is not as it was written: it was edited, or is damaged"]


def with_hash(values: dict[str, Any]) -> dict[str, Any]:
    """The contents of a JSON file, with their hash."""
    return {**values, KEY: _hash(values)}


def without_hash(values: Any) -> Any:
    """The same without it; ValueError where it is not theirs. Contents without a hash are taken as they are."""
    if not isinstance(values, dict) or KEY not in values:
        return values
    rest = {key: value for key, value in values.items() if key != KEY}
    if values[KEY] != _hash(rest):
        raise ValueError("it is not what was written")
    return rest


def _hash(values: dict[str, Any]) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
