"""A folder of shards, on this machine or behind a URL."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from toolkit.errors import ToolkitError


class Store:
    """Files of a folder, by name, as bytes. A URL is opened through fsspec, in each process anew."""

    def __init__(self, root: str) -> None:
        self._opened: dict[str, int] = {}
        self.root = root.rstrip("/") if "://" in root else str(Path(root).expanduser())
        self.remote = "://" in root
        self._system: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}, "_system": None}

    def __del__(self) -> None:
        for descriptor in self._opened.values():
            with suppress(OSError):
                os.close(descriptor)

    def path(self, name: str) -> str:
        """Where a file is."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        """A whole file. FileNotFoundError where there is none."""
        if not self.remote:
            return Path(self.path(name)).read_bytes()
        with _as_oserror():
            content: bytes = self._files().cat_file(self.path(name))
            return content

    def stretches(self, wanted: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Stretches of files, by name, first byte and size; of a URL all at once. OSError where one cannot be read."""
        if not self.remote:
            found = [os.pread(self._descriptor(name), size, start) for name, start, size in wanted]
        else:
            paths = [self.path(name) for name, _, _ in wanted]
            ends = [start + size for _, start, size in wanted]
            with _as_oserror():
                found = self._files().cat_ranges(paths, [start for _, start, _ in wanted], ends, on_error="raise")
        for content, (name, _, size) in zip(found, wanted, strict=True):
            if len(content) > size:
                raise OSError(f"{name}: the server sends all of it for a part: take one that knows ranges")
            if len(content) < size:
                raise OSError(f"{name}: it is cut short")
        return found

    def _descriptor(self, name: str) -> int:
        if name not in self._opened:
            self._opened[name] = os.open(self.path(name), os.O_RDONLY)
        return self._opened[name]

    def open(self, name: str) -> BinaryIO:
        """A file to read from."""
        if not self.remote:
            return Path(self.path(name)).open("rb")
        with _as_oserror():
            file: BinaryIO = self._files().open(self.path(name), "rb")
            return file

    def names(self, suffix: str) -> list[str]:
        """Names of the files with a suffix, sorted. A server of plain files cannot list them: ToolkitError."""
        if not self.remote:
            return sorted(name for name in os.listdir(self.root) if name.endswith(suffix))
        found = self._files().ls(self.root, detail=False)
        return sorted(name for path in found if (name := path.rstrip("/").rpartition("/")[2]).endswith(suffix))

    def _files(self) -> Any:
        """fsspec's file system, of this process: a connection does not survive a fork."""
        if self._system is None or self._system[0] != os.getpid():
            try:
                from fsspec.core import url_to_fs  # type: ignore[import-untyped]

                self._system = os.getpid(), url_to_fs(self.root)[0]
            except (ImportError, ValueError) as e:
                raise ToolkitError(f"{self.root} cannot be opened: {e}; pip install 'discrete-toolkit[remote]'") from e
        return self._system[1]


@contextmanager
def _as_oserror() -> Iterator[None]:
    """What the libraries of stores raise, as one kind of error."""
    try:
        yield
    except (OSError, ToolkitError):
        raise
    except Exception as e:
        raise OSError(f"{type(e).__name__}: {e}") from e
