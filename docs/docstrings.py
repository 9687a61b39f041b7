"""Docstrings as the reference shows them: an extension of griffe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))
from generated import as_markdown


class Docstrings(griffe.Extension):
    """Blocks and lists in Markdown's way."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
