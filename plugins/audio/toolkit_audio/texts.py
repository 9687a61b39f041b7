"""Text files that people and programs write beside sounds."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """A file in UTF-8, with a byte order mark or without, or in UTF-16 with one. ValueError for another encoding."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("its encoding is neither UTF-8 nor UTF-16; save it as UTF-8") from error
