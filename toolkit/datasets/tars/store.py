"""A folder of shards, on this machine or behind a URL."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from toolkit.errors import ToolkitError


class Store:
    """Files of a folder, by name, as bytes. A URL is opened through fsspec, in each process anew."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/") if "://" in root else str(Path(root).expanduser())
        self.remote = "://" in root
        self._opened: dict[str, int] = {}
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
        content: bytes = self._files().cat_file(self.path(name))
        return content

    def stretch(self, name: str, start: int, size: int) -> bytes:
        """Some bytes of a file, fewer where it ends before."""
        if self.remote:
            content: bytes = self._files().cat_file(self.path(name), start=start, end=start + size)
            if len(content) > size:
                raise OSError(
                    "the server sends whole files where a part is asked for: dataset=shard_stream reads those"
                )
            return content
        if name not in self._opened:
            self._opened[name] = os.open(self.path(name), os.O_RDONLY)
        return os.pread(self._opened[name], size, start)

    def open(self, name: str) -> BinaryIO:
        """A file to read from."""
        if not self.remote:
            return Path(self.path(name)).open("rb")
        file: BinaryIO = self._files().open(self.path(name), "rb")
        return file

    def list(self, suffix: str) -> list[str]:
        """Names of the files with a suffix, sorted. A server of plain files cannot list them: ToolkitError."""
        if not self.remote:
            return sorted(name for name in os.listdir(self.root) if name.endswith(suffix))
        found = self._files().ls(self.root, detail=False)
        return sorted(name for path in found if (name := path.rstrip("/").rpartition("/")[2]).endswith(suffix))

    def _files(self) -> Any:
        """fsspec's file system, of this process: a connection does not survive a fork."""
        if self._system is None or self._system[0] != os.getpid():
            try:
                from fsspec.core import url_to_fs

                self._system = os.getpid(), url_to_fs(self.root)[0]
            except (ImportError, ValueError) as e:
                raise ToolkitError(f"{self.root} cannot be opened: {e}; pip install 'discrete-toolkit[remote]'") from e
        return self._system[1]
