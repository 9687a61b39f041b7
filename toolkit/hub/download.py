"""From a reference to a folder here: downloaded once, checked, and then opened without asking the network again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.hub.cache import completed, here, home, is_commit, place, remember
from toolkit.hub.files import PUBLISHED, RemoteFile, Wanted, check_downloaded, in_words, size_of, wanted_of
from toolkit.hub.package import as_quiet, constants, endpoint, explained, package
from toolkit.hub.reference import Reference, parse
from toolkit.hub.stored import copy_stored

LIBRARY = "discrete-toolkit"


def local_copy(reference: str, wanted: Wanted = PUBLISHED) -> Path:
    """The folder of a repository's wanted files, as real files; downloaded where it is not here yet.

    A commit that is here asks no network. For a branch, a tag or none the Hub is asked what they are now; with
    ``HF_HUB_OFFLINE=1`` the copy that is here is taken, or that of the Hub's own cache. The folder is never written to
    again: write elsewhere. ToolkitError, naming the repository, where it is not there, not permitted, not reached, too
    large, not whole, or names files outside of its folder.
    """
    known = parse(reference)
    folder = here(reference, wanted) if known.is_pinned else None
    if folder:
        return folder
    hub = package(known)
    with explained(known):
        if constants().HF_HUB_OFFLINE:
            return here(reference, wanted) or _from_the_hubs_cache(known, wanted)
        commit, listed = _listed(hub, known)
        files = wanted_of(listed, wanted)
        folder = completed(place(wanted, known, commit), partial(_download, hub, known.at(commit), files))
        if not known.is_pinned:
            remember(known, commit)
    return folder


def _listed(hub: Any, reference: Reference) -> tuple[str, dict[str, RemoteFile]]:
    """The commit that a reference names now, and its files."""
    api = hub.HfApi(endpoint=endpoint(), library_name=LIBRARY)
    info = api.model_info(reference.repository, revision=reference.revision, files_metadata=True)
    if not is_commit(info.sha):
        raise ToolkitError(f"{endpoint()} names no commit of it")
    return info.sha, {file.rfilename: _remote(file) for file in info.siblings or ()}


def _remote(file: Any) -> RemoteFile:
    large = getattr(file, "lfs", None)
    size = large.size if large else file.size
    known = size if isinstance(size, int) and size >= 0 else None
    return RemoteFile(known, large.sha256, None) if large else RemoteFile(known, None, file.blob_id)


def _download(hub: Any, reference: Reference, files: Mapping[str, RemoteFile], folder: Path) -> None:
    free, needed = shutil.disk_usage(home()).free, size_of(files.values())
    if needed > free:
        raise ToolkitError(f"it takes {in_words(needed)}, and {home()} has {in_words(free)} left")
    with as_quiet():
        hub.snapshot_download(
            reference.repository,
            revision=reference.revision,
            local_dir=folder,
            allow_patterns=list(map(_literally, files)),
            endpoint=endpoint(),
            library_name=LIBRARY,
        )
    try:
        check_downloaded(folder, files)
    except ToolkitError as e:
        shutil.rmtree(folder, ignore_errors=True)
        raise ToolkitError(f"{e}: try again") from e


def _literally(name: str) -> str:
    """A name as a pattern that nothing else matches."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _from_the_hubs_cache(reference: Reference, wanted: Wanted) -> Path:
    """A copy of what huggingface_hub has in its own cache, where files are links."""
    cache = Path(constants().HF_HUB_CACHE)
    commit, copy = copy_stored(cache, reference, wanted)
    return completed(place(wanted, reference, commit), copy)
