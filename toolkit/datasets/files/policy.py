"""How datasets treat files that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from toolkit.errors import ToolkitError

T = TypeVar("T")

logger = logging.getLogger(__name__)

NAMED = 3
"""Most files that a log names."""


class ErrorPolicy:
    """Files below a root that cannot be used stop the run, or are skipped, logged and counted, by ``on_error``.

    ``skipped`` has their paths, in this process only: each worker of a loader skips a broken file by itself.
    """

    def __init__(self, root: Path, on_error: Literal["skip", "stop"]) -> None:
        self.root, self.on_error = root, on_error
        self.skipped: set[str] = set()

    def add(self, failures: Mapping[str, str]) -> None:
        """Adds reasons by path, each of which names its file. ToolkitError with the first if ``on_error`` is stop."""
        if not failures:
            return
        if self.on_error == "stop":
            more = f" (and {len(failures) - 1} more files)" if len(failures) > 1 else ""
            raise ToolkitError(
                f"{next(iter(failures.values()))}{more}\ndataset.on_error=skip skips files that cannot be used"
            )
        self.skipped |= set(failures)
        for why in list(failures.values())[:NAMED]:
            logger.warning("%s: skipped", why)
        logger.warning("%s: %d files skipped so far, as they cannot be used", self.root, len(self.skipped))

    def keep(self, paths: Iterable[str], look: Callable[[str], T]) -> dict[str, T]:
        """Results of ``look`` for every path that is not skipped; where it raises, the file is a failure."""
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
        """The example of a split by ``load``, or the next one whose file can be used.

        ``size`` is the split's; ``path`` gives the file of an example. IndexError where the split has no such example,
        ToolkitError where none of its files can be used.
        """
        if not 0 <= index < size:
            raise IndexError(f"{split} has {size} examples, no example {index}")
        for position in range(index, index + size):
            file = path(position % size)
            if file in self.skipped:
                continue
            try:
                return load(position % size)
            except Exception as error:
                self.add({file: reason(self.root / file, error)})
        raise ToolkitError(f"{self.root}: no file of the {split} split can be read")

    def place(self, index: int, size: int, path: Callable[[int], str]) -> int:
        """Which example ``example`` gives for an index, as far as is known by now which files cannot be used."""
        places = (position % size for position in range(index, index + size))
        return next((place for place in places if path(place) not in self.skipped), index)


def reason(path: Path, error: Exception) -> str:
    """Why a file cannot be used, with its name, in a line; a ToolkitError has both already."""
    why = str(error) if isinstance(error, ToolkitError) else f"{path}: {type(error).__name__}: {error}"
    return why.replace("\n", " ")
