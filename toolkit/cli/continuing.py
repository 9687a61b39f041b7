"""How a run that was stopped goes on: the line that continues it, and from where. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from shlex import quote


def continues(folder: Path) -> str:
    """The command that continues a run, and what it then does."""
    if not (folder / "config.yaml").is_file():
        return "nothing was written yet: start it again"
    checkpoint = _newest(folder)
    what = (
        f"continues from {checkpoint.relative_to(folder)}" if checkpoint else "starts again: it has no checkpoint yet"
    )
    return f"toolkit train run={quote(str(folder))} {what}"


def _newest(folder: Path) -> Path | None:
    """The checkpoint that was written last, of any stage."""
    paths = [*folder.glob("autoencoder/step-*"), *folder.glob("priors/*/step-*")]
    return max(
        (path for path in paths if path.name[5:].isdecimal()), key=lambda path: path.stat().st_mtime, default=None
    )
