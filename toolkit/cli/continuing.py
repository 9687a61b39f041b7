"""How a run that was stopped goes on: the line that continues it, and from where. Nothing here imports torch."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from toolkit.errors import ToolkitError

MACHINE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
)
"""Of errors that are the machine's, whatever is trained."""


def continues(folder: Path) -> str:
    """The command that continues a run, and what it then does."""
    if not (folder / "config.yaml").is_file():
        return "nothing was written yet: start it again"
    checkpoint = _newest(folder)
    what = (
        f"continues from {checkpoint.relative_to(folder)}" if checkpoint else "starts again: it has no checkpoint yet"
    )
    return f"toolkit train run={quote(str(folder))} {what}"


@contextmanager
def machine_errors(folder: Path) -> Iterator[None]:
    """Says of an error of the system, or with a file of the run, what it is and how the run goes on."""
    try:
        yield
    except OSError as e:
        inside = e.filename is not None and Path(str(e.filename)).is_relative_to(folder)
        if e.errno not in MACHINE and not inside:
            raise
        where = f"{e.filename}: " if e.filename is not None else ""
        raise ToolkitError(f"{where}{e.strerror or e}: the training has ended\n{continues(folder)}") from e


def _newest(folder: Path) -> Path | None:
    """The checkpoint that was written last, of any stage."""
    paths = [*folder.glob("autoencoder/step-*"), *folder.glob("priors/*/step-*")]
    return max(
        (path for path in paths if path.name[5:].isdecimal()), key=lambda path: path.stat().st_mtime, default=None
    )
