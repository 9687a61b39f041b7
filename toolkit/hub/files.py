"""Which files of a repository are wanted, and whether they are what may be downloaded."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.part_names import names_of

MOST = 10_000
"""Files of a repository that are wanted."""
LARGEST = 1 << 36
"""Bytes of them together: 64 GiB."""
LARGEST_TEXT = 1 << 28
"""Bytes of a file that does not hold tensors."""
SAFE = re.compile(r"[\w.+ (),=@#~-]+(?:/[\w.+ (),=@#~-]+)*")
"""Names that stay inside a folder on any system."""
CHECKPOINT = ("model.safetensors", "state.safetensors", "state.json")


@dataclass(frozen=True)
class RemoteFile:
    """What a repository says of a file; None where it does not say it."""

    size: int | None
    sha256: str | None = None
    """Of its content, where it is stored as a large file."""
    blob: str | None = None
    """Git's hash of its content, where it is not."""


@dataclass(frozen=True)
class Wanted:
    """A choice of files. ``kind`` is a folder of the cache, as other choices of the same state have other files."""

    kind: str
    choose: Callable[[Collection[str]], list[str]]
    """Of a repository's names those that are wanted. ToolkitError where what is needed is not among them."""


_RECORD = r"config(?:-\d+)?\.yaml|[\w-]+\.json"
_PARTS = r"(?:model|state)-\d{5}-of-\d{5}\.safetensors"
_STEPS = rf"step-\d{{1,20}}/(?:{'|'.join(map(re.escape, CHECKPOINT))}|{_PARTS})"
_TEXTS = r"metrics\.jsonl|log\.txt|README\.md|(?:LICEN[CS]E|NOTICE|COPYING)[\w.-]*"
_OF_A_RUN = re.compile(
    rf"(?:base/){{0,8}}(?:{_RECORD}|{_TEXTS}|autoencoder/{_STEPS}|priors/[\w.-]+/(?:{_RECORD}|{_STEPS})"
    r"|codes/[\w.-]+\.safetensors)",
    re.ASCII,
)
_TENSORS = re.compile(r".*\.safetensors")
_PICKLES = re.compile(r".*\.(?:pt|pth|th|ckpt|bin)")
_BESIDE = re.compile(rf"(?:.*/)?(?:[\w.-]+\.json|[\w.-]+\.ya?ml|{_TEXTS})", re.ASCII)


def _run_files(names: Collection[str]) -> list[str]:
    chosen = sorted(name for name in names if _OF_A_RUN.fullmatch(name))
    if "config.yaml" not in chosen:
        raise ToolkitError("it holds no run (no config.yaml); weights of others are for toolkit adopt")
    steps: dict[str, set[str]] = defaultdict(set)
    for folder, _, name in (path.rpartition("/") for path in chosen if "/step-" in path):
        steps[folder].add(name)
    for folder, there in steps.items():
        for name in CHECKPOINT:
            for part in names_of(name, there):
                if part not in there:
                    raise ToolkitError(f"it is not whole: {folder}/{part} is not there")
    return chosen


def _published_files(names: Collection[str]) -> list[str]:
    """Weights as tensors, or as pickles where it has no others, and the texts beside them."""
    weights = [name for name in names if _TENSORS.fullmatch(name)] or [n for n in names if _PICKLES.fullmatch(n)]
    if not weights:
        raise ToolkitError("it holds no weights")
    return sorted({*weights, *(name for name in names if _BESIDE.fullmatch(name))})


RUN = Wanted("runs", _run_files)
"""The files of a run, as ``toolkit push`` writes them."""
PUBLISHED = Wanted("weights", _published_files)
"""Weights that others have published."""


def wanted_of(listed: Mapping[str, RemoteFile], wanted: Wanted) -> dict[str, RemoteFile]:
    """The files to download. ToolkitError for names that lead elsewhere, for too many files and for too large ones."""
    for name in listed:
        if not SAFE.fullmatch(name) or any(set(part) <= {"."} for part in name.split("/")) or len(name) > 1000:
            raise ToolkitError(f"it names a file {name[:200]!r}, which leads out of its folder: nothing is downloaded")
    chosen = {name: listed[name] for name in wanted.choose(listed)}
    if len(chosen) > MOST:
        raise ToolkitError(f"it has {len(chosen):,} files: at most {MOST:,} are downloaded")
    for name, file in chosen.items():
        if not _holds_tensors(name) and (file.size or 0) > LARGEST_TEXT:
            raise ToolkitError(f"its {name} has {in_words(file.size or 0)}: at most {in_words(LARGEST_TEXT)} are read")
    total = size_of(chosen.values())
    if total > LARGEST:
        raise ToolkitError(f"its files have {in_words(total)}: at most {in_words(LARGEST)} are downloaded")
    return chosen


def size_of(files: Iterable[RemoteFile]) -> int:
    return sum(file.size or 0 for file in files)


def check_downloaded(folder: Path, files: Mapping[str, RemoteFile]) -> None:
    """ToolkitError where a file is not there, cut short, or not what the repository says."""
    for name, file in files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ToolkitError(f"{name} did not arrive")
        if file.size is not None and path.stat().st_size != file.size:
            raise ToolkitError(f"{name} arrived with {path.stat().st_size:,} of {file.size:,} bytes")
        if not _is_content(path, file):
            raise ToolkitError(f"{name} arrived damaged")


def in_words(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 1 << 27 else f"{size / 2**20:,.1f} MiB"


def _holds_tensors(name: str) -> bool:
    return bool(_TENSORS.fullmatch(name) or _PICKLES.fullmatch(name))


def _is_content(path: Path, file: RemoteFile) -> bool:
    if file.sha256 is not None:
        digest = sha256()
        with path.open("rb") as content:
            while part := content.read(1 << 22):
                digest.update(part)
        return digest.hexdigest() == file.sha256
    if file.blob is None:
        return True
    content_of_text = path.read_bytes()
    header = f"blob {len(content_of_text)}\0".encode()
    return sha1(header + content_of_text, usedforsecurity=False).hexdigest() == file.blob
