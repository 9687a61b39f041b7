"""What is known of many files without decoding them, remembered from one start to the next."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from toolkit import ToolkitError

logger = logging.getLogger(__name__)

MANY = 2000
"""Files from which on a scan says that it has begun."""


def scan(
    root: Path, paths: Sequence[str], look: Callable[[Path], Any], purpose: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """``look`` at every file below root: what it said by path, and by path why it could not.

    What it said, which must be plain JSON, is kept in the user's cache folder under the root and the ``purpose``, and
    asked for again where a file's size or time has changed. A ``ToolkitError`` of ``look`` is the reason, and not kept.
    """
    memory = _place(root, purpose)
    known = _remembered(memory)
    stamps = {path: _stamp(os.path.join(root, path)) for path in paths}  # a Path for each would take longer than all
    unknown = [path for path in paths if known.get(path, [None])[0] != stamps[path]]
    if len(unknown) >= MANY:
        logger.info("%s: looking at %d files, once", root, len(unknown))
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=8) as pool:
        for path, (said, failure) in zip(unknown, pool.map(lambda path: _try(look, root / path), unknown), strict=True):
            if failure:
                failures[path] = failure
            else:
                known[path] = [stamps[path], said]
    if len(unknown) > len(failures):
        _remember(memory, known)
    return {path: known[path][1] for path in paths if path not in failures}, failures


def _try(look: Callable[[Path], Any], path: Path) -> tuple[Any, str]:
    try:
        return look(path), ""
    except ToolkitError as error:
        return None, str(error)


def _stamp(path: str) -> list[int] | None:
    with suppress(OSError):
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    return None


def _place(root: Path, purpose: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = sha256(f"{root.resolve()}\n{purpose}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache / "discrete-toolkit-audio" / f"{key}.json"


def _remembered(memory: Path) -> dict[str, Any]:
    """Nothing, where nothing was kept or what was kept is damaged."""
    try:
        held = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(held, dict) and all(isinstance(said, list) and len(said) == 2 for said in held.values())
    return held if whole else {}


def _remember(memory: Path, known: dict[str, Any]) -> None:
    """Appears whole or not at all; where it cannot be kept, the next start looks again."""
    aside = memory.with_name(f".{memory.name}.{os.getpid()}")
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(known), encoding="utf-8")
        aside.replace(memory)
