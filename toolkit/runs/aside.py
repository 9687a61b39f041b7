"""Names to write under, for files that then appear whole: each process has its own."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from hashlib import sha256
from pathlib import Path


def aside(path: Path) -> Path:
    """A name beside a file that no other process writes under.

    What processes of this machine that are gone have left under theirs is removed.
    """
    for other in path.parent.glob(f"{_stem(path)}.*.partial"):
        number = other.name.split(".")[-2]
        if number.isdecimal() and not _lives(int(number)):
            with suppress(OSError):
                other.unlink()
    return path.with_name(f"{_stem(path)}.{os.getpid()}.partial")


def _stem(path: Path) -> str:
    """Of the file and the machine, whose processes have their numbers; short, however long the file's name is."""
    text = f"{path.name}/{socket.gethostname()}"
    return f".{sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return number != os.getpid()
