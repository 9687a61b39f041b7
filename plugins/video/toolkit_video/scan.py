"""When frames are shown in many files, found out once and remembered from one start to the next."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from toolkit import ToolkitError
from toolkit_video.reading import Timeline, read_timeline

logger = logging.getLogger(__name__)

MANY = 500
"""Files from which on a scan says that it has begun."""
PARTS = 7
"""Of a timeline, as it is remembered."""


def scan(root: Path, paths: list[str]) -> tuple[dict[str, Timeline], dict[str, str]]:
    """The timelines of files below root, by path, and by path why there is none.

    They are kept in the user's cache folder, and found out again where a file's size or time has changed. Failures are
    not kept.
    """
    memory = _place(root)
    known = _remembered(memory)
    stamps = {path: _stamp(root / path) for path in paths}
    unknown = [path for path in paths if known.get(path, [None])[0] != stamps[path]]
    if len(unknown) >= MANY:
        logger.info("%s: looking at %d files, once", root, len(unknown))
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        for path, found in zip(unknown, pool.map(lambda path: _look(root / path), unknown), strict=True):
            if isinstance(found, Timeline):
                known[path] = [stamps[path], _packed(found)]
            else:
                failures[path] = found
    if len(unknown) > len(failures):
        _remember(memory, known)
    return {path: _unpacked(known[path][1]) for path in paths if path not in failures}, failures


def _look(path: Path) -> Timeline | str:
    try:
        return read_timeline(path)
    except ToolkitError as error:
        return str(error)


def _packed(timeline: Timeline) -> list[Any]:
    """As plain JSON; the steps between the frames are shorter than the ticks."""
    base, rate, ticks, keys, counted = timeline
    return [base.numerator, base.denominator, rate, int(ticks[0]), np.diff(ticks).tolist(), keys.tolist(), counted]


def _unpacked(held: list[Any]) -> Timeline:
    numerator, denominator, rate, first, steps, keys, counted = held
    ticks = np.cumsum(np.array([first, *steps], np.int64))
    return Timeline(Fraction(numerator, denominator), rate, ticks, np.array(keys, np.int64), counted)


def _stamp(path: Path) -> list[int] | None:
    with suppress(OSError):
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    return None


def _place(root: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache / "discrete-toolkit-video" / f"{key}.json"


def _remembered(memory: Path) -> dict[str, Any]:
    """Nothing, where nothing was kept or what was kept is damaged."""
    try:
        held = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) and all(map(_whole, held.values())) else {}


def _whole(said: Any) -> bool:
    """Whether it is a stamp and a packed timeline."""
    return isinstance(said, list) and len(said) == 2 and isinstance(said[1], list) and len(said[1]) == PARTS


def _remember(memory: Path, known: dict[str, Any]) -> None:
    """Appears whole or not at all; where it cannot be kept, the next start looks again."""
    aside = memory.with_name(f".{memory.name}.{os.getpid()}")
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(known, separators=(",", ":")), encoding="utf-8")
        aside.replace(memory)
