"""Objects as a notebook shows them: tables, and pictures and sounds inside the cell."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

SOUNDS = {".wav": "audio/wav"}
"""Files of an example that a cell plays, by suffix."""
PLAYED = 8
"""Sounds in a cell, at most."""


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows of text, which is escaped, as HTML."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def heading(text: str) -> str:
    return f"<p><b>{escape(text)}</b></p>"


def picture(path: Path, caption: str = "") -> str:
    """A PNG file inside the cell; nothing where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    uri, words = _uri("image/png", content), escape(caption)
    return f'<img src="{uri}" alt="{words}" style="max-width:100%"><p>{words}</p>'


def drawn(draw: Callable[[Path], None], caption: str = "") -> str:
    """What ``draw`` writes to a PNG file."""
    with tempfile.TemporaryDirectory() as folder:
        draw(path := Path(folder, "sheet.png"))
        return picture(path, caption)


def players(write: Iterable[Callable[[Path], None]], suffix: str) -> str:
    """What each of some functions writes to a file, to be played; nothing where files of the suffix are no sounds."""
    if suffix not in SOUNDS:
        return ""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"sound{suffix}")
        for each in list(write)[:PLAYED]:
            each(path)
            parts.append(f'<audio controls preload="metadata" src="{_uri(SOUNDS[suffix], path.read_bytes())}"></audio>')
    return "".join(parts)


class Figures(dict[str, Any]):
    """Figures by name, with rows of them below ``priors``; a notebook shows them as tables."""

    def _repr_html_(self) -> str:
        plain = [(name, number(value)) for name, value in self.items() if not isinstance(value, Mapping)]
        parts = [table(("metric", "value"), plain)]
        priors = self.get("priors")
        if isinstance(priors, Mapping) and priors:
            columns = list(dict.fromkeys(str(name) for row in priors.values() for name in row))
            rows = [(name, *(number(row.get(column, "")) for column in columns)) for name, row in priors.items()]
            parts.append(table(("prior", *columns), rows))
        return "".join(parts)


def number(value: object) -> str:
    """A figure in few characters; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e5 else f"{value:,.0f}"


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
