"""A video's class, by where it lies."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from toolkit.datasets.files import folder_split


def class_of(path: str, labels: Literal["folder", "file", "none"]) -> str:
    """A video's class by its path below root; empty: none."""
    parts = PurePosixPath(path).parts[1 if folder_split(path) else 0 :]
    if labels == "folder":
        return parts[0] if len(parts) > 1 else ""
    stem = PurePosixPath(path).stem
    return (re.sub(r"[\s_.-]*\d+$", "", stem) or stem) if labels == "file" else ""
