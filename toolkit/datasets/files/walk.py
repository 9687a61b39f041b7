"""Finding files in a folder."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from toolkit.datasets.files.once import log_once
from toolkit.errors import ToolkitError

logger = logging.getLogger(__name__)

REASONS = 8
"""Most reasons that the line about files passed over names."""


def require_folder(root: str, contents: str, option: str = "dataset.root") -> Path:
    """The folder that an option names, with ``~`` expanded; ToolkitError where it does not exist, or none is named.

    ``contents`` completes the error message: "the images are".
    """
    if not root.strip():  # the current folder is what an unset variable of a shell would give
        raise ToolkitError(f"{option} is empty; {option}=FOLDER says where {contents}")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ToolkitError(f"{folder.absolute()}: no such folder; {option}=FOLDER says where {contents}")
    return folder


def find_files(
    root: Path,
    suffixes: tuple[str, ...],
    *,
    followlinks: bool = True,
    beside: tuple[str, ...] = (),
    within: Iterable[str] | None = None,
) -> list[str]:
    """Paths below a folder, with ``/`` between, of all files with one of the suffixes, sorted by their bytes.

    Suffixes are in lower case and match any case. Names that start with a dot are passed over. What else is, is logged
    in one line, counted by reason.

    Args:
        root: the folder.
        suffixes: of the files to list.
        followlinks: whether to enter links to folders. No folder is entered twice: not a link to one that is read
            anyway, nor one that leads back up.
        beside: suffixes of files that are not listed and not counted as passed over, because something else reads them.
        within: the folders directly below ``root`` to look into; None: all, and the root itself.
    """
    walk = _Walk(root, suffixes, beside)
    if within is None:
        walk.enter("")
    else:
        walk.enter_only(tuple(within))
    if followlinks:
        walk.follow()
    else:
        walk.passed["linked folders"] += len(walk.links)
    if line := walk.summary():
        log_once(logger, line)
    return sorted(walk.paths, key=os.fsencode)


def visible(names: Iterable[str]) -> list[str]:
    """Names that do not start with a dot."""
    return [name for name in names if not name.startswith(".")]


class _Walk:
    """The files and links below a folder, the folders that were entered, and how many names were passed over, and why.

    Folders themselves are entered before links, so that a file has the path without a link if it has one.
    """

    def __init__(self, root: Path, suffixes: tuple[str, ...], beside: tuple[str, ...]) -> None:
        self.root, self.suffixes, self.beside = os.fspath(root), suffixes, beside
        self.paths: list[str] = []
        self.links: list[str] = []
        self.passed: Counter[str] = Counter()
        self.entered = {_identity(os.fspath(folder)) for folder in root.resolve().parents} - {None}

    def enter(self, below: str) -> None:
        """Lists a folder, ``""`` or a path that ends with ``/``, and those in it; keeps links to folders for later."""
        folders = [below]
        while folders:
            folder = folders.pop()
            identity = _identity(os.path.join(self.root, folder))
            if identity in self.entered:
                self.passed["linked folders that lead to what is read already"] += 1
                continue
            try:
                with os.scandir(os.path.join(self.root, folder)) as entries:
                    folders += [f"{folder}{entry.name}/" for entry in entries if self._sort(folder, entry)]
            except OSError:
                self.passed["folders that cannot be opened"] += 1
            self.entered.add(identity)

    def _sort(self, folder: str, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is a folder to enter; any other is listed, kept, or counted."""
        if entry.name.startswith("."):
            self.passed["hidden"] += 1
        elif _is_folder(entry):
            if not entry.is_symlink():
                return True
            self.links.append(f"{folder}{entry.name}/")
        else:
            self._take(folder + entry.name, entry.name.lower())
        return False

    def _take(self, path: str, name: str) -> None:
        if name.endswith(self.suffixes):
            self.paths.append(path)
        elif not name.endswith(self.beside):
            self.passed[os.path.splitext(name)[1] or "without suffix"] += 1

    def follow(self) -> None:
        """Enters the links to folders, and those that are found there."""
        while self.links:
            links, self.links = sorted(self.links, key=os.fsencode), []
            for link in links:
                self.enter(link)

    def enter_only(self, names: tuple[str, ...]) -> None:
        """Lists some folders of the root, and counts what is beside them."""
        self.entered.add(_identity(self.root))
        for name in names:
            self.enter(f"{name}/")
        for entry in os.scandir(self.root):
            if entry.name in names:
                continue
            if entry.name.startswith("."):
                self.passed["hidden"] += 1
            elif _is_folder(entry):
                self.passed[f"the folder {entry.name}"] += 1
            else:
                self.passed[os.path.splitext(entry.name)[1].lower() or "without suffix"] += 1

    def summary(self) -> str:
        """What was passed over, in a line; empty if nothing was."""
        counts = sorted((+self.passed).items(), key=lambda item: (-item[1], item[0]))
        parts = [reason if reason.startswith("the folder ") else f"{count:,} {reason}" for reason, count in counts]
        if len(parts) > REASONS:
            parts[REASONS:] = [f"{sum(count for _, count in counts[REASONS:]):,} others"]
        if not parts:
            return ""
        return f"{self.root}: {len(self.paths):,} files; passed over: {', '.join(parts)}"


def _identity(folder: str) -> tuple[int, int] | None:
    """What is the same for a folder and all links to it; None where it cannot be opened."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
