"""Phone labels over time, for the sounds of a corpus that have an alignment."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toolkit import ToolkitError
from toolkit.datasets.files import folder_split, scan
from toolkit_audio import PACKAGE
from toolkit_audio.alignment import SUFFIXES, read_alignment, seconds_per_unit
from toolkit_audio.reading import Header


class Summary(NamedTuple):
    """What of an alignment is remembered from one start to the next."""

    phones: tuple[str, ...]
    end: float
    whole: bool


class PhoneLabels:
    """Labels over time for the files of a corpus that have an alignment; the classes are all phones that occur.

    ``folder`` has a file ``PATH.TextGrid``, ``PATH.phn`` or ``PATH.lab`` for a file ``PATH.wav`` of the corpus, with
    the folder of its split or without; ``sounds`` has the rate and length of the corpus's files by path, and
    ``classes`` maps phones to the class that they count as. ``failures`` has, by path, why the alignment of a file
    cannot be used: it cannot be read, or does not end where its sound ends. ToolkitError if the folder
    has none for the paths.
    """

    def __init__(self, folder: Path, sounds: Mapping[str, Header], classes: Mapping[str, str]) -> None:
        self.folder, self.classes = folder, classes
        self.files = _beside(folder, sounds)
        if not self.files:
            example = next(iter(sounds))
            raise ToolkitError(
                f"dataset.phones={folder}: no .TextGrid, .phn or .lab has the path of a file, such as {example}"
            )
        files = sorted(set(self.files.values()))
        known, unread = scan(folder, files, _look, _unpacked, package=PACKAGE, purpose="phones, end and unit")
        self.units: dict[str, float] = {}
        self.failures: dict[str, str] = {}
        for path, file in self.files.items():
            if file in unread:
                self.failures[path] = unread[file]
            elif unit := seconds_per_unit(known[file].end, known[file].whole, *_seconds(sounds[path])):
                self.units[path] = unit
            else:
                self.failures[path] = _refusal(folder / file, known[file], sounds[path])
        said = {phone for path in self.units for phone in known[self.files[path]].phones}
        self.names = tuple(sorted({classes.get(phone, phone) for phone in said}))
        self.index = {name: index for index, name in enumerate(self.names)}

    def labels(self, path: str, start: float, frames: int, rate: int) -> Tensor:
        """Labels ``int64 (frames,)`` at ``rate`` per second from ``start`` seconds on.

        A frame has the phone in its middle, or the label "none" if there is no phone.
        """
        none = len(self.names)
        if path not in self.units:
            return torch.full((frames,), none)
        spans, unit = read_alignment(self.folder / self.files[path]).spans, self.units[path]
        indices = [self.index[self.classes.get(span.phone, span.phone)] for span in spans]
        begins = [span.start * unit for span in spans]
        middles = [start + (frame + 0.5) / rate for frame in range(frames)]
        places = [bisect_right(begins, middle) - 1 for middle in middles]
        inside = (at >= 0 and middle < spans[at].end * unit for at, middle in zip(places, middles, strict=True))
        return torch.tensor([indices[at] if said else none for at, said in zip(places, inside, strict=True)])


def read_phone_map(path: Path) -> dict[str, str]:
    """Phones to the classes that they count as, from a JSON object of names. ToolkitError for anything else."""
    try:
        classes = json.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else None
    except RecursionError as error:
        raise ToolkitError(f"dataset.phone_map={path}: is nested too deep for a JSON object of names") from error
    except (OSError, ValueError) as error:
        raise ToolkitError(f"dataset.phone_map={path}: cannot be read ({error})") from error
    if not isinstance(classes, dict) or not all(isinstance(name, str) for name in classes.values()):
        raise ToolkitError(
            f"dataset.phone_map={path}: a file with a JSON object of phone names to class names is needed"
        )
    return classes


def _beside(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """Alignments below the folder, by the path of their sound."""
    listed = cache(lambda parent: _alignments(folder, parent))
    return {path: file for path in paths if (file := _own(path, listed))}


def _own(path: str, listed: Callable[[str], dict[str, str]]) -> str | None:
    """The alignment of a sound."""
    for place in (path, path.partition("/")[2] if folder_split(path) else path):
        parent, _, name = place.rpartition("/")
        if file := listed(parent).get(name.rpartition(".")[0]):
            return f"{parent}/{file}" if parent else file
    return None


def _alignments(folder: Path, parent: str) -> dict[str, str]:
    """The alignments in a folder, by name without suffix; of several for a name, the one that is preferred."""
    try:
        names = sorted(os.listdir(folder / parent))
    except OSError:
        return {}
    ranked = [
        (SUFFIXES.index(suffix), name) for name in names if (suffix := os.path.splitext(name)[1].lower()) in SUFFIXES
    ]
    ranked = [(rank, name) for rank, name in ranked if (folder / parent / name).is_file()]
    return {os.path.splitext(name)[0]: name for _, name in sorted(ranked, reverse=True)}


def _look(path: Path) -> list[Any]:
    alignment = read_alignment(path)
    return [sorted({span.phone for span in alignment.spans}), alignment.end, alignment.whole]


def _unpacked(answer: list[Any]) -> Summary:
    phones, end, whole = answer
    return Summary(tuple(phones), float(end), bool(whole))


def _seconds(sound: Header) -> tuple[float, int]:
    return sound.samples / sound.rate, sound.rate


def _refusal(path: Path, known: Summary, sound: Header) -> str:
    unit = "in seconds, in 100 ns as of HTK, and in samples as of TIMIT" if known.whole else "in seconds"
    seconds, _ = _seconds(sound)
    return f"{path}: ends at {known.end:.10g} {unit}; its sound ends at {seconds:.4g} s: it is of another sound, or cut"
