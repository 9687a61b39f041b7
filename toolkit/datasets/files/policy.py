"""What becomes of files that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from toolkit.errors import ToolkitError

T = TypeVar("T")

logger = logging.getLogger(__name__)

NAMED = 3
"""Files that cannot be used, named in a message."""


class ErrorPolicy:
    """Files below a root that cannot be used stop the run, or are skipped, named and counted, as ``on_error`` says.

    ``skipped`` holds their paths, of this process alone: each of a loader's workers meets a broken file for itself.
    """

    def __init__(self, root: Path, on_error: Literal["skip", "stop"]) -> None:
        self.root, self.on_error = root, on_error
        self.skipped: set[str] = set()

    def add(self, failures: Mapping[str, str]) -> None:
        """Reasons, each of which names its file, by path. ToolkitError with the first where ``on_error`` is stop."""
        if not failures:
            return
        if self.on_error == "stop":
            more = f" (and {len(failures) - 1} more files)" if len(failures) > 1 else ""
            raise ToolkitError(
                f"{next(iter(failures.values()))}{more}\ndataset.on_error=skip passes over files that cannot be used"
            )
        self.skipped |= set(failures)
        for why in list(failures.values())[:NAMED]:
            logger.warning("%s: skipped", why)
        logger.warning("%s: %d files skipped so far, as they cannot be used", self.root, len(self.skipped))

    def keep(self, paths: Iterable[str], look: Callable[[str], T]) -> dict[str, T]:
        """What ``look`` says of every path that is not skipped; a file at which it raises is a failure."""
        results, failures = {}, {}
        for path in paths:
            if path not in self.skipped:
                try:
                    results[path] = look(path)
                except Exception as error:
                    failures[path] = reason(self.root / path, error)
        self.add(failures)
        return results

    def example(self, split: str, index: int, size: int, path: Callable[[int], str], load: Callable[[int], T]) -> T:
        """What ``load`` makes of an example of the split, or of the next whose file can be used.

        ``size`` is the split's, and ``path`` says in which file an example is. IndexError where the split has no such
        example, ToolkitError where none of its files can be used.
        """
        if not 0 <= index < size:
            raise IndexError(f"{split} has {size} examples, there is no {index}")
        for place in range(index, index + size):
            file = path(place % size)
            if file in self.skipped:
                continue
            try:
                return load(place % size)
            except Exception as error:
                self.add({file: reason(self.root / file, error)})
        raise ToolkitError(f"{self.root}: not one file of the {split} split can be read")


def reason(path: Path, error: Exception) -> str:
    """Why a file cannot be used, with its name; a ToolkitError says so itself."""
    return str(error) if isinstance(error, ToolkitError) else f"{path}: {type(error).__name__}: {error}"
