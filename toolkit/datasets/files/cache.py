"""A cache of what was read off many files, such as lengths, kept from one start to the next."""

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
"""Files from which on a scan is logged."""
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
    """Results of ``look`` for every file below a root, by path, and reasons, by path, where it fails.

    ``look`` runs in threads and returns plain JSON: numbers, strings, lists, dictionaries, None. It is cached in the
    user's cache folder (``$XDG_CACHE_HOME``, else ``~/.cache``) by package, root and purpose; a file is scanned again
    when its size or time has changed. The purpose must state all else that the answer depends on, such as options of
    ``look``. ``unpack`` converts the answer for the caller; where it fails on a cached answer, the file is scanned
    again. Whatever either raises is that file's failure; failures are not cached.
    """
    cache = _cache_file(root, package, purpose)
    known = _read_cache(cache)
    stamps = {
        path: _stamp(os.path.join(root, path)) for path in paths
    }  # a Path per file would take longer than all the rest
    results = {path: result for path in paths for result in _cached(known.get(path), stamps[path], unpack)}
    unknown = list(dict.fromkeys(path for path in paths if path not in results))
    if len(unknown) >= MANY:
        logger.info("%s: looking at %d files, once", root, len(unknown))
    failures: dict[str, str] = {}

    def attempt(path: str) -> tuple[Any, list[T], str]:
        try:
            answer = look(root / path)
            return answer, [unpack(answer)], ""
        except Exception as error:  # whatever one file makes a reader raise, the others are scanned
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


def _cached(entry: Any, stamp: list[int] | None, unpack: Callable[[Any], T]) -> list[T]:
    """One result, or an empty list where the file is not cached or has changed."""
    with suppress(Exception):
        cached, answer = entry
        if cached == stamp:
            return [unpack(answer)]
    return []


def _stamp(path: str) -> list[int] | None:
    """Size and modification time; None where the file does not exist."""
    with suppress(OSError):
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    return None


def _cache_file(root: Path, package: str, purpose: str) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / package
    text = f"{root.resolve()}\n{purpose}" if purpose else str(root.resolve())
    return folder / f"{sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"


def _read_cache(cache: Path) -> dict[str, Any]:
    """The cached entries; empty where there is no cache, or it is not what was written."""
    try:
        if not cache.is_file():  # a pipe would be waited for
            return {}
        check, _, text = cache.read_text(encoding="utf-8").partition("\n")
        known = json.loads(text) if check == _check(text) else None
    except (OSError, ValueError, RecursionError, MemoryError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(cache: Path, known: dict[str, Any]) -> None:
    """Writes the cache atomically; where that fails, the next start scans again."""
    partial = cache.with_name(f".{cache.name}.{os.getpid()}")
    text = json.dumps(known, separators=(",", ":"))
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(f"{_check(text)}\n{text}", encoding="utf-8")
        partial.replace(cache)
    except OSError:
        with suppress(OSError):
            partial.unlink()


def _check(text: str) -> str:
    """The first line of a cache: with a digit changed, the rest would be a cache, and wrong at each start."""
    return sha256(text.encode()).hexdigest()
