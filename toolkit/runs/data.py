"""``data.json``: the files that a run's data came from, so that it is never continued on others unnoticed.

A file is known by name, size and time, and by the split and label that it counts as. Names, sizes, splits and labels
decide whether data has changed. Times decide where all else is the same: a copy of a data set may have other times for
all its files, and then some of them are compared by content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from toolkit.dataset import SourceFile
from toolkit.errors import ToolkitError
from toolkit.runs.formats import FORMAT, format_of
from toolkit.runs.plain import read_text
from toolkit.writing import write_text

NAME = "data.json"
LARGEST = 1 << 28
"""Bytes of the file: a million files have some 80 MB."""
SAMPLED = 16
"""Files of which the content is known, too."""
END = 1 << 16
"""Bytes of a content that are compared, at its beginning and at its end."""


class Entry(NamedTuple):
    """What is known of a file."""

    size: int
    time: int
    """Of its last change, in nanoseconds."""
    split: str
    label: str


@dataclass(frozen=True)
class DataRecord:
    """The files by name, and hashes of the contents of some."""

    files: Mapping[str, Entry]
    sample: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """A hash of all of it."""
        return hashlib.sha256(json.dumps(self._rows()).encode()).hexdigest()

    def _rows(self) -> list[object]:
        return [[[name, *entry] for name, entry in self.files.items()], sorted(self.sample.items())]

    def write(self, folder: Path) -> None:
        """Writes it into a folder, unless it is there."""
        if _written_digest(folder / NAME) != self.digest:
            files, sample = self._rows()
            folder.mkdir(parents=True, exist_ok=True)
            values = {"format": FORMAT, "sha256": self.digest, "sample": sample, "files": files}
            write_text(folder / NAME, json.dumps(values))


def record(files: Iterable[SourceFile]) -> DataRecord | None:
    """What is known of a dataset's files now; None where there are none. Those that are gone meanwhile are left out."""
    entries, paths = dict[str, Entry](), dict[str, str]()
    for name, path, split, label in files:
        with suppress(OSError):
            status = os.stat(path)
            entries[name], paths[name] = Entry(status.st_size, status.st_mtime_ns, split, label), path
    names = sorted(entries)
    chosen = {names[i * len(names) // SAMPLED] for i in range(SAMPLED)} if names else set()
    sample = {name: _content(paths[name]) for name in sorted(chosen)}
    return DataRecord({name: entries[name] for name in names}, sample) if names else None


def read_record(folder: Path) -> DataRecord | None:
    """The record in a folder; None where there is none. ToolkitError where it is not what was written."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        values = json.loads(read_text(path, LARGEST))
        format_of(values.get("format"), path)
        files = {str(row[0]): Entry(int(row[1]), int(row[2]), str(row[3]), str(row[4])) for row in values["files"]}
        found = DataRecord(files, {str(name): str(content) for name, content in values["sample"]})
        if found.digest != values["sha256"]:
            raise ValueError("it is not what was written")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as e:
        raise ToolkitError(f"{path} is damaged ({e}): whether the data has changed is not known") from e
    return found


class Changes(NamedTuple):
    """What is different between two records."""

    data: list[str]
    """Of the data, in words; empty: it is the same."""
    times: bool
    """Whether files have other times: those of a copy, where the data is the same."""


def compare(old: DataRecord, new: DataRecord) -> Changes:
    """What came, went and changed since the old record."""
    if old.digest == new.digest:
        return Changes([], False)
    came = {name for name in new.files if name not in old.files}
    gone = {name for name in old.files if name not in new.files}
    renamed = _renamed(old, new, gone, came)
    both = [name for name in old.files if name in new.files]
    moved = {name for name in both if old.files[name][2:] != new.files[name][2:]}
    other = {name for name in both if old.files[name].size != new.files[name].size}
    other |= {name for name, content in old.sample.items() if new.sample.get(name, content) != content}
    later = {name for name in both if old.files[name].time != new.files[name].time} - other
    if not _is_copy(old, new, len(both), later):
        other |= later
    words = [*renamed, *_counted(came, "new"), *_counted(gone, "gone"), *_counted(other, "changed")]
    return Changes([*words, *_counted(moved, "of another split or label")], bool(later))


def _is_copy(old: DataRecord, new: DataRecord, both: int, later: set[str]) -> bool:
    """Whether other times come from copying: then all files have others, and those compared have the old contents."""
    same = any(new.sample.get(name) == content for name, content in old.sample.items())
    return same and len(later) == both


def _renamed(old: DataRecord, new: DataRecord, gone: set[str], came: set[str]) -> list[str]:
    """Labels that are called otherwise now: their files are there under another one, and leave the sets."""
    before, after = _by_label(old, gone), _by_label(new, came)
    words = []
    for label, names in before.items():
        sizes = sorted((Path(name).name, old.files[name].size) for name in names)
        for other, others in after.items():
            if sizes == sorted((Path(name).name, new.files[name].size) for name in others):
                words.append(f"{label} is called {other} now ({len(names)} files)")
                gone -= names
                came -= others
                del after[other]
                break
    return words


def _by_label(files: DataRecord, names: set[str]) -> dict[str, set[str]]:
    labels: dict[str, set[str]] = {}
    for name in names:
        if label := files.files[name].label:
            labels.setdefault(label, set()).add(name)
    return dict(sorted(labels.items()))


def _counted(names: set[str], what: str) -> list[str]:
    """How many files, and the first of them."""
    if not names:
        return []
    first = min(names)
    return [f"{len(names)} {'file is' if len(names) == 1 else 'files are'} {what} ({first}{', …' * (len(names) > 1)})"]


def _content(path: str) -> str:
    """A hash of a file's ends; empty where it cannot be read."""
    with suppress(OSError), open(path, "rb") as file:
        digest = hashlib.sha256(file.read(END))
        file.seek(max(END, os.fstat(file.fileno()).st_size - END))
        digest.update(file.read(END))
        return digest.hexdigest()
    return ""


def _written_digest(path: Path) -> str | None:
    try:
        found = read_record(path.parent)
    except ToolkitError:
        return None
    return None if found is None else found.digest
