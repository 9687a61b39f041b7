"""Phone alignments: ``.lab`` and TextGrid files, and labels over time."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit import ToolkitError
from toolkit.datasets.files import scan
from toolkit_audio import PACKAGE

SUFFIXES = (".lab", ".TextGrid")
SILENCE = "sil"
"""The phone of a TextGrid's interval without text."""
RATES = (100, 50, 25)
"""Labels per second: the first that divides the sample rate."""


class Span(NamedTuple):
    """A phone from its start to its end, in seconds."""

    start: float
    end: float
    phone: str


def label_rate(sample_rate: int) -> int:
    """Labels per second, a divisor of the sample rate."""
    return next((rate for rate in RATES if sample_rate % rate == 0), 1)


def read_alignment(path: Path) -> list[Span]:
    """Phones in order. ToolkitError where the file is neither ``start end phone`` by line nor a TextGrid."""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        spans = _textgrid(text) if path.suffix == ".TextGrid" else [_line(line) for line in text.splitlines() if line]
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be opened ({error.strerror})") from error
    except ValueError as error:
        raise ToolkitError(f"{path}: not an alignment of phones ({error})") from error
    if not spans or any(span.end < span.start for span in spans):
        raise ToolkitError(f"{path}: not an alignment of phones (it is empty, or a phone ends before it starts)")
    return sorted(spans)


def _line(line: str) -> Span:
    words = line.split()
    if len(words) != 3:
        raise ValueError(f"'{line[:40]}' is not start, end and phone")
    return Span(float(words[0]), float(words[1]), words[2])


def _textgrid(text: str) -> list[Span]:
    """The tier named phones, or phone; else the last tier of intervals."""
    spans = {}
    for tier in re.split(r"item \[\d+\]:", text)[1:]:
        name = re.search(r'name = "([^"]*)"', tier)
        intervals = re.findall(r'xmin = (\S+)\s+xmax = (\S+)\s+text = "((?:[^"]|"")*)"', tier)
        if name and intervals:
            spans[name[1].lower()] = [Span(float(a), float(b), phone.strip() or SILENCE) for a, b, phone in intervals]
    if not spans:
        raise ValueError("it has no interval tier in the long text format")
    return spans.get("phones") or spans.get("phone") or list(spans.values())[-1]


class PhoneLabels:
    """Labels over time for the files of a corpus that have an alignment; the classes are all phones that occur.

    ``folder`` has a file ``PATH.lab`` or ``PATH.TextGrid`` for a file ``PATH.wav`` of the corpus; ``classes`` maps
    phones to the class that they count as. ToolkitError if the folder has no alignment for these paths, or one that
    cannot be read.
    """

    def __init__(self, folder: Path, paths: Sequence[str], classes: Mapping[str, str]) -> None:
        self.folder, self.classes = folder, classes
        if not folder.is_dir():
            raise ToolkitError(f"dataset.phones={folder}: no such folder")
        self.files = {path: file for path in paths if (file := _beside(folder, path))}
        if not self.files:
            raise ToolkitError(
                f"dataset.phones={folder}: no .lab or .TextGrid has the path of a file, such as {paths[0]}"
            )
        said, failures = scan(
            folder, sorted(self.files.values()), _phones, list[str], package=PACKAGE, purpose="phones"
        )
        if failures:
            raise ToolkitError(next(iter(failures.values())))
        self.names = tuple(sorted({classes.get(phone, phone) for phones in said.values() for phone in phones}))
        self.index = {name: index for index, name in enumerate(self.names)}

    def labels(self, path: str, start: float, frames: int, rate: int) -> Tensor:
        """Labels ``int64 (frames,)`` at ``rate`` per second from ``start`` seconds on.

        A frame has the phone in its middle, or the label "none" if there is no phone.
        """
        none = len(self.names)
        if path not in self.files:
            return torch.full((frames,), none)
        spans = read_alignment(self.folder / self.files[path])
        indices = [self.index[self.classes.get(span.phone, span.phone)] for span in spans]
        begins = [span.start for span in spans]
        middles = [start + (frame + 0.5) / rate for frame in range(frames)]
        places = [bisect_right(begins, middle) - 1 for middle in middles]
        inside = (at >= 0 and middle < spans[at].end for at, middle in zip(places, middles, strict=True))
        return torch.tensor([indices[at] if said else none for at, said in zip(places, inside, strict=True)])


def _beside(folder: Path, path: str) -> str | None:
    stem = path.rpartition(".")[0]
    return next((stem + suffix for suffix in SUFFIXES if (folder / (stem + suffix)).is_file()), None)


def _phones(path: Path) -> list[str]:
    return sorted({span.phone for span in read_alignment(path)})


def read_phone_map(path: Path) -> dict[str, str]:
    """Phones to the classes that they count as, from a JSON object of names. ToolkitError for anything else."""
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ToolkitError(f"dataset.phone_map={path}: cannot be read ({error})") from error
    if not isinstance(classes, dict) or not all(isinstance(name, str) for name in classes.values()):
        raise ToolkitError(f"dataset.phone_map={path}: a JSON object of phone names to class names is needed")
    return classes
