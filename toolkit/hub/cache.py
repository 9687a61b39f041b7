"""Copies of what was downloaded: a folder per repository and commit, complete or not there, never written to again."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from toolkit.errors import ToolkitError
from toolkit.hub.files import RUN, Wanted
from toolkit.hub.reference import Reference, is_reference, parse
from toolkit.writing import write_text

_COMMIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""Names of the folders of commits: forty digits, or the name that a folder in the Hub's layout has."""


def home() -> Path:
    """The user's cache folder (``$XDG_CACHE_HOME``, else ``~/.cache``), and in it ours."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "discrete-toolkit" / "hub"


def is_commit(name: object) -> bool:
    """Whether it may name a folder here."""
    return isinstance(name, str) and bool(_COMMIT.fullmatch(name))


def place(wanted: Wanted, reference: Reference, commit: str) -> Path:
    """Where the copy of a commit is, or would be."""
    return home() / wanted.kind / reference.owner / reference.name / commit


def origin(path: Path) -> Reference | None:
    """What a folder here, or one inside it, is a copy of; None for any other folder."""
    inside, root = Path(os.path.realpath(path)), Path(os.path.realpath(home()))
    if root not in inside.parents:
        return None
    parts = inside.relative_to(root).parts
    return Reference(parts[1], parts[2], parts[3]) if len(parts) > 3 and is_commit(parts[3]) else None


def completed(folder: Path, fill: Callable[[Path], None]) -> Path:
    """The folder, which ``fill`` writes where it is not there yet; of several processes one does, the others wait.

    What ``fill`` has left in its folder when it failed is there the next time.
    """
    if folder.is_dir():
        return folder
    from filelock import FileLock  # huggingface_hub needs it, too

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        if not folder.is_dir():
            partial = folder.with_name(f".{folder.name}.partial")
            fill(partial)
            shutil.rmtree(partial / ".cache", ignore_errors=True)  # what huggingface_hub keeps beside what it writes
            os.replace(partial, folder)
    return folder


def remember(reference: Reference, commit: str) -> None:
    """Notes which commit a branch, a tag or the newest state was, when the Hub was last asked."""
    path = _note(reference)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, commit)


def remembered(reference: Reference) -> str | None:
    """The commit that a reference names, or named when the Hub was last asked."""
    if reference.is_pinned:
        return reference.revision
    try:
        commit = _note(reference).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def here(word: str, wanted: Wanted = RUN) -> Path | None:
    """The copy of what a reference names, or named last; None where there is none. Asks no network."""
    reference = parse(word)
    commit = remembered(reference)
    folder = place(wanted, reference, commit) if commit else None
    return folder if folder and folder.is_dir() else None


def copies() -> list[str]:
    """References to the runs of which a copy is here."""
    found = sorted((home() / RUN.kind).glob("*/*"))
    return [str(Reference(path.parent.name, path.name)) for path in found if path.is_dir()]


def pinned(word: str) -> str:
    """The reference with the commit of the copy that is here; as it is, where there is none."""
    folder = here(word)
    return str(parse(word).at(folder.name)) if folder else word


def refuse_training(folder: str | Path) -> None:
    """ToolkitError for a run of the Hub, or a copy of one: it stays what its reference names."""
    reference = parse(str(folder)) if is_reference(folder) else origin(Path(folder))
    if reference:
        raise ToolkitError(
            f"run={reference}: a run of the Hub is not trained further: it would not be what its name says any more\n"
            f"init={reference} starts a run of yours from its weights; toolkit pull {reference} out=RUN makes it yours"
        )


def _note(reference: Reference) -> Path:
    return home() / "revisions" / reference.owner / reference.name / quote(reference.revision or "main", safe="")
