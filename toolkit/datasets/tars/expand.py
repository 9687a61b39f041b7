"""Names of many tar files as one word: ``train-{000..099}.tar``."""

from __future__ import annotations

import re

MOST = 1_000_000
"""Files that a word may stand for."""
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand(word: str) -> list[str]:
    """The names that a word stands for; ValueError where they are too many."""
    found = _RANGE.search(word)
    if found is None:
        return [word]
    first, last = int(found[1]), int(found[2])
    if last < first or last - first >= MOST:
        raise ValueError(f"shards: {found[0]} counts up, over at most {MOST} files")
    width = len(found[1]) if found[1].startswith("0") else 0
    before, after = word[: found.start()], word[found.end() :]
    return [f"{before}{number:0{width}d}{rest}" for number in range(first, last + 1) for rest in expand(after)]
