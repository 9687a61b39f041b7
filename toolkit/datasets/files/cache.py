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
from typing import Any, TypeVar

from toolkit.datasets.files.policy import reason

T = TypeVar("T")

logger = logging.getLogger(__name__)

MANY = 1000
"""Files from which on a scan says that it has begun."""
THREADS = 8


def scan(
    root: Path,
    paths: Sequence[str],
    look: Callable[[Path], Any],
    unpack: Callable[[Any], T],
    *,
    package: str,
    purpose: str = "",
) -> tuple[dict[str, T], dict[str, str]]:
    """What ``look`` finds out about every file below a root: results by path, and reasons by path where it fails.

    ``look`` runs in threads and returns plain JSON: numbers, strings, lists, dictionaries, None. That is kept in the
    user's cache folder (``$XDG_CACHE_HOME``, else ``~/.cache``) under the package, the root and the purpose, and looked
    at again where a file's size or time has changed. The purpose says all that changes the answer, such as options that
    ``look`` is given. ``unpack`` makes of it what the caller wants; what it refuses of a damaged cache is looked at
    again. Whatever either raises is that file's failure; failures are not kept.
    """
    cache = _cache_file(root, package, purpose)
    known = _read_cache(cache)
    stamps = {path: _stamp(os.path.join(root, path)) for path in paths}  # a Path for each would take longer than all
    results = {path: result for path in paths for result in _remembered(known.get(path), stamps[path], unpack)}
    unknown = list(dict.fromkeys(path for path in paths if path not in results))
    if len(unknown) >= MANY:
        logger.info("%s: looking at %d files, once", root, len(unknown))
    failures: dict[str, str] = {}

    def attempt(path: str) -> tuple[Any, list[T], str]:
        try:
            answer = look(root / path)
            return answer, [unpack(answer)], ""
        except Exception as error:  # whatever a file makes a reader raise, the others are not to blame
            return None, [], reason(root / path, error)

    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        for path, (answer, result, failure) in zip(unknown, pool.map(attempt, unknown), strict=True):
            if failure:
                failures[path] = failure
            else:
                known[path] = [stamps[path], answer]
                results[path] = result[0]
    if len(unknown) > len(failures):
        _write_cache(cache, known)
    return {path: results[path] for path in paths if path in results}, failures


def _remembered(entry: Any, stamp: list[int] | None, unpack: Callable[[Any], T]) -> list[T]:
    """One result, or none where nothing is known of the file as it is now."""
    with suppress(Exception):
        remembered, answer = entry
        if remembered == stamp:
            return [unpack(answer)]
    return []


def _stamp(path: str) -> list[int] | None:
    """Size and time of change; None where there is no such file."""
    with suppress(OSError):
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    return None


def _cache_file(root: Path, package: str, purpose: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / package
    text = f"{root.resolve()}\n{purpose}" if purpose else str(root.resolve())
    return folder / f"{sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"


def _read_cache(cache: Path) -> dict[str, Any]:
    """Nothing, where nothing was kept or what was kept is damaged."""
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(cache: Path, known: dict[str, Any]) -> None:
    """Appears whole or not at all; where it cannot be kept, the next start looks again."""
    aside = cache.with_name(f".{cache.name}.{os.getpid()}")
    text = json.dumps(known, separators=(",", ":"))
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        aside.replace(cache)
