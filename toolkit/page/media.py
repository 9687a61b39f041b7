"""The pictures, sounds and films of a run as parts of a page."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from toolkit.runs.folder import Run

BUDGET = 14 << 20
"""Bytes of all media of a page; base64 makes a third more of them, so that a page has at most 20 MB."""
STEPS = 40
"""Pictures of one stage, at most: the first, the last, and others evenly between."""
FILES = 200
"""Other media, at most."""

KINDS = {
    ".png": ("picture", "image/png", (b"\x89PNG",)),
    ".gif": ("picture", "image/gif", (b"GIF8",)),
    ".wav": ("sound", "audio/wav", (b"RIFF",)),
    ".flac": ("sound", "audio/flac", (b"fLaC",)),
    ".ogg": ("sound", "audio/ogg", (b"OggS",)),
    ".mp3": ("sound", "audio/mpeg", (b"ID3", b"\xff\xfb", b"\xff\xf3")),
    ".mp4": ("film", "video/mp4", ()),
    ".webm": ("film", "video/webm", (b"\x1aE\xdf\xa3",)),
}
"""By suffix: what it is, its type, and how its files begin."""

DEVELOPED = re.compile(r"(?P<stage>autoencoder|prior-[\w.-]+)-(?P<step>\d{8})\.png")
"""Pictures that training has plotted."""


class Medium(NamedTuple):
    """One file, inside the page."""

    kind: str
    """``picture``, ``sound`` or ``film``."""
    name: str
    uri: str
    step: int | None = None


class Media(NamedTuple):
    """All that a page shows of a run."""

    stages: dict[str, list[Medium]]
    """Pictures of each stage, by step."""
    draws: dict[str, list[Medium]]
    """Others, by the folder that they are in; the name of the run's own is empty."""
    left_out: list[str]
    """Sentences."""


def media_of(run: Run, budget: int = BUDGET) -> Media:
    """What is in a run's folder of samples, as far as the budget of bytes goes."""
    stages: dict[str, list[tuple[int, Path]]] = {}
    others: list[Path] = []
    for path in _files(run.samples):
        match = DEVELOPED.fullmatch(path.name)
        if match and path.parent == run.samples:
            stages.setdefault(match["stage"], []).append((int(match["step"]), path))
        else:
            others.append(path)
    store = _Store(budget)
    chosen = {stage: _spread(sorted(pictures)) for stage, pictures in stages.items()}
    shown = {
        stage: [medium for step, path in reversed(pictures) if (medium := store.take(path, f"step {step:,}", step))]
        for stage, pictures in chosen.items()
    }
    draws: dict[str, list[Medium]] = {}
    for path in others[:FILES]:
        folder = path.parent.relative_to(run.samples).as_posix()
        if medium := store.take(path, path.name, None):
            draws.setdefault("" if folder == "." else folder, []).append(medium)
    if len(others) > FILES:
        store.left_out.append(f"{len(others) - FILES} more files of {run.samples.name}/")
    return Media({stage: pictures[::-1] for stage, pictures in shown.items() if pictures}, draws, store.left_out)


class _Store:
    """Reads files as long as the budget lasts."""

    def __init__(self, budget: int) -> None:
        self.left, self.left_out = budget, list[str]()

    def take(self, path: Path, name: str, step: int | None) -> Medium | None:
        kind, mime, starts = KINDS[path.suffix.lower()]
        try:
            size = path.stat().st_size
            if size > self.left:
                self.left_out.append(f"{path.name}, {size / 1e6:.1f} MB: the page would be larger than 20 MB")
                return None
            content = path.read_bytes()
        except OSError as e:
            self.left_out.append(f"{path.name}: {e.strerror or e}")
            return None
        if starts and not content.startswith(starts):
            self.left_out.append(f"{path.name}: no {path.suffix[1:]} file")
            return None
        self.left -= len(content)
        return Medium(kind, name, f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}", step)


def _files(folder: Path) -> Iterator[Path]:
    """Regular files that a page can show, in the order of their names."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in KINDS and path.is_file() and not path.is_symlink() and not hidden:
            yield path


def _spread(pictures: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    if len(pictures) <= STEPS:
        return list(pictures)
    return [pictures[round(i * (len(pictures) - 1) / (STEPS - 1))] for i in range(STEPS)]
