"""Finding files in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from toolkit.errors import ToolkitError


def require_folder(root: str, contents: str) -> Path:
    """The folder ``dataset.root``, with ``~`` expanded; ToolkitError where it does not exist.

    ``contents`` completes the error message: "the images are".
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ToolkitError(f"{folder.absolute()}: no such folder; dataset.root=FOLDER says where {contents}")
    return folder


def find_files(root: Path, suffixes: tuple[str, ...], *, followlinks: bool = True) -> list[str]:
    """Paths below a folder, with ``/`` between, of all files with one of the suffixes, sorted by their bytes.

    Suffixes are in lower case and match any case. Names that start with a dot are ignored. ``followlinks``: whether to
    enter links to folders.
    """
    paths = []
    for parent, folders, names in os.walk(root, followlinks=followlinks):
        folders[:] = visible(folders)
        below = (Path(parent).relative_to(root) / "_").as_posix()[:-1]
        paths += [below + name for name in visible(names) if name.lower().endswith(suffixes)]
    return sorted(paths, key=os.fsencode)


def visible(names: Iterable[str]) -> list[str]:
    """Names that do not start with a dot."""
    return [name for name in names if not name.startswith(".")]
