"""Failures of the system in words: of a disk, of memory, and of the limits that it sets. They are nobody's bug."""

from __future__ import annotations

import errno
import os
import re

_WHY = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "your quota of the disk is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "the system does not permit this",
    errno.ENOENT: "no such file or folder",
    errno.ENOTDIR: "a folder was expected",
    errno.EISDIR: "a file was expected, this is a folder",
    errno.ELOOP: "a link that does not lead to a file",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the network disk has lost it",
    errno.EMFILE: "this process has too many files open; `ulimit -n` says how many it may have",
    errno.ENFILE: "the system has too many files open",
    errno.ENOMEM: "no memory is left",
    errno.ENAMETOOLONG: "the name is too long: most disks take 255 bytes for a file's or a folder's",
}
"""What the system reports of files, by errno."""

MOST = 200
"""Characters that are shown of a message of others."""

NO_PROCESSES = "trainer.workers=0 (where nothing is trained, workers=0)"

_LOADING = (
    (
        re.compile(r"too many open files|items of ancdata|unable to open shared memory object", re.IGNORECASE),
        "the processes that load data have too many files open: raise the limit with `ulimit -n 4096`, or give"
        f" {NO_PROCESSES}",
    ),
    (
        re.compile(r"bus error|shared memory|</torch_|no space left on device", re.IGNORECASE),
        "the processes that load data have no room left in /dev/shm: give it more (docker run --shm-size=2g), or"
        f" {NO_PROCESSES}",
    ),
    (
        re.compile(r"DataLoader worker \(pid.*exited unexpectedly with exit code (?P<what>-?\d+)"),
        f"a process that loads data ended with status {{what}}; with {NO_PROCESSES} what ended it shows",
    ),
    (
        re.compile(r"DataLoader worker \(pid.*(killed by signal: Killed|exited unexpectedly)"),
        "a process that loads data was killed, which is what the system does when memory runs out: trainer.workers=N"
        f" with fewer of them, or {NO_PROCESSES}, takes less",
    ),
    (
        re.compile(r"DataLoader worker \(pid.*killed by signal: (?P<what>[\w ]+)"),
        f"a process that loads data was ended by a signal ({{what}}); {NO_PROCESSES} loads without such processes",
    ),
)
"""What PyTorch raises where processes that load data have failed, and what it means."""
_OF_LOADING = ("DataLoader worker", "</torch_", "Communication with the workers", "items of ancdata")
"""Words that such an error has."""

_MEMORY = re.compile(
    r"(?:can't|cannot|unable to) allocate|not enough memory|out of memory|storage size calculation overflowed"
    r"|std::bad_alloc|numel: integer multiplication overflow",
    re.IGNORECASE,
)
"""What PyTorch raises where memory runs out, or a tensor is larger than any memory."""


def explain(error: BaseException) -> str | None:
    """A failure of the system in a sentence, with the file; None for any other error."""
    if isinstance(error, ConnectionError):
        return None
    if isinstance(error, OSError) and error.errno in _WHY:
        named = error.filename if isinstance(error.filename, str | bytes) else None
        return f"{os.fsdecode(named)}: {_WHY[error.errno]}" if named else f"{_WHY[error.errno]} ({error})"
    if isinstance(error, OSError | RuntimeError) and any(words in str(error) for words in _OF_LOADING):
        return _of_loading(str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _MEMORY.search(str(error))):
        where = str(error).strip().splitlines()[:1]
        why = f" ({where[0][:MOST]})" if where else ""
        return f"memory ran out: fewer examples at once, shorter ones, or a smaller model take less{why}"
    return None


def _of_loading(message: str) -> str | None:
    for pattern, text in _LOADING:
        if match := pattern.search(message):
            return text.format(**match.groupdict())
    return None
