"""The Hub's own cache, ``models--owner--name/snapshots/COMMIT``: its files are links into a store of contents.

A run has no links that lead out of its folder; so what is opened is a copy with real files, made of links that lead
nowhere but into the store.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.hub.cache import is_commit
from toolkit.hub.files import RemoteFile, Wanted, wanted_of
from toolkit.hub.reference import Reference

DEEPEST = 32
"""Folders inside one another."""


def copy_stored(cache: Path, reference: Reference, wanted: Wanted) -> tuple[str, Callable[[Path], None]]:
    """The commit that is there for a reference, and what copies its wanted files into a folder.

    ToolkitError where there is none, where it is not whole, or where a link leads elsewhere.
    """
    home = Path(os.path.realpath(cache)) / f"models--{reference.owner}--{reference.name}"
    snapshot = _snapshot(home, reference)
    if snapshot is None:
        raise ToolkitError(
            f"HF_HUB_OFFLINE is set, and no copy of it is here or in {cache}: unset it once to download it"
        )
    stores = (snapshot, home / "blobs", home.parent / "blobs")
    there = {path.relative_to(snapshot).as_posix(): _content(path, stores) for path in _entries(snapshot, DEEPEST)}
    files = wanted_of({name: RemoteFile(content.stat().st_size) for name, content in there.items()}, wanted)

    def copy(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there[name], folder / name)

    return snapshot.name, copy


def _snapshot(home: Path, reference: Reference) -> Path | None:
    """The folder of the commit that a branch or tag was, or of the commit itself."""
    wanted = reference.revision or "main"
    try:
        noted = (home / "refs" / wanted).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        noted = wanted
    snapshot = home / "snapshots" / noted
    return snapshot if is_commit(noted) and snapshot.is_dir() and not snapshot.is_symlink() else None


def _entries(folder: Path, left: int) -> Iterator[Path]:
    if not left:
        raise ToolkitError(f"{folder}: its folders are nested at most {DEEPEST} deep")
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _entries(path, left - 1)
        else:
            yield path


def _content(path: Path, stores: tuple[Path, ...]) -> Path:
    """The file that an entry is, or links to."""
    content = Path(os.path.realpath(path))
    if not any(store in content.parents for store in stores):
        raise ToolkitError(f"{path} is a link to {content}, which is outside of the Hub's cache")
    if not content.is_file():
        raise ToolkitError(f"{path} is no file, or a link to one that is gone: download it again")
    return content
