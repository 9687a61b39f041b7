"""Folders of new runs: each is created by one command alone, and is not left empty."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from toolkit.errors import ToolkitError

MOST = 1000
"""Runs that may start within one second."""


def create_folder(parent: Path) -> Path:
    """Creates a folder named by date and time that no other command has, whenever that was started."""
    for number in range(1, MOST):
        suffix = f"_{number}" if number > 1 else ""
        folder = parent / f"{datetime.now():%Y-%m-%d_%H-%M-%S}{suffix}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except (FileExistsError, FileNotFoundError):  # another command may also have removed the parent just now
            continue
        except OSError as e:
            raise ToolkitError(f"the run's folder cannot be created: {e}") from e
        return folder
    raise ToolkitError(f"the run's folder cannot be created: {parent} is no folder, or is full")


def remove_empty(folder: Path) -> None:
    """Removes the folders that were created for a run that cannot start."""
    outputs = Path("outputs").resolve()
    own = [path for path in folder.resolve().parents if path == outputs or outputs in path.parents]
    with suppress(OSError):
        for path in (folder, *own):
            path.rmdir()
