"""Alignments of phones: files of phones and their times, and the unit of those times."""

from __future__ import annotations

import re
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from toolkit import ToolkitError
from toolkit_audio.spans import SILENCE, Span
from toolkit_audio.textgrid import phone_spans, read_tiers
from toolkit_audio.texts import read_text

__all__ = ["SILENCE", "SUFFIXES", "Alignment", "Span", "label_rate", "read_alignment", "seconds_per_unit"]

SUFFIXES = (".textgrid", ".phn", ".lab")
"""In lower case, the preferred first: a ``.lab`` beside a TextGrid is the transcript that an aligner was given."""
RATES = (100, 50, 25)
"""Labels per second: the first that divides the sample rate."""
HTK = 1e-7
"""Seconds of HTK's unit."""
TOLERANCE = 0.03
"""Seconds that an alignment and its sound may end apart: aligners label steps of 10 ms whose windows of 25 ms lie in
the sound, so that the last step may end up to 25 ms before it; times are rounded besides."""
OVERLAP = 1e-3
"""What phones may overlap by, as their times are rounded."""


class Alignment(NamedTuple):
    """Phones in order, in the unit of the file."""

    spans: list[Span]
    whole: bool
    """Whether all times are whole numbers, as in HTK's and in TIMIT's files."""

    @property
    def end(self) -> float:
        return self.spans[-1].end


def label_rate(sample_rate: int) -> int:
    """Labels per second, a divisor of the sample rate."""
    return next((rate for rate in RATES if sample_rate % rate == 0), 1)


def read_alignment(path: Path) -> Alignment:
    """Phones of a TextGrid, or of a file of ``start end phone`` by line; the phones of several speakers are one line.

    ToolkitError where the file is neither, times are no numbers, or phones overlap.
    """
    try:
        text = read_text(path)
        alignment = _textgrid(text) if path.suffix.lower() == ".textgrid" else _lines(text)
        _check(alignment)
    except OSError as error:
        raise ToolkitError(f"{path}: cannot be opened ({error.strerror})") from error
    except (ValueError, OverflowError) as error:
        raise ToolkitError(f"{path}: not an alignment of phones ({error})") from error
    return alignment


def seconds_per_unit(end: float, whole: bool, seconds: float, rate: int) -> float | None:
    """The unit of an alignment's times: that in which it ends where its sound of ``seconds`` at ``rate`` ends.

    Whole numbers may be seconds, units of 100 ns (HTK), or the sound's samples (TIMIT). None if no unit fits.
    """
    units = (1.0, HTK, 1 / rate) if whole else (1.0,)
    return next((unit for unit in units if abs(end * unit - seconds) <= TOLERANCE), None)


def _textgrid(text: str) -> Alignment:
    return Alignment(sorted(phone_spans(read_tiers(text))), whole=False)


def _lines(text: str) -> Alignment:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    for words in lines:
        if len(words) < 3:
            raise ValueError(f"'{' '.join(words)[:40]}' is not start, end and phone")
    whole = all(re.fullmatch(r"\d+", word) for words in lines for word in words[:2])
    for words in lines:
        if len(words) > 3 and not whole:  # HTK may add scores and words
            raise ValueError(f"'{' '.join(words)[:40]}' is not start, end and phone")
    return Alignment(sorted(Span(float(words[0]), float(words[1]), words[2]) for words in lines), whole)


def _check(alignment: Alignment) -> None:
    spans = alignment.spans
    if not spans:
        raise ValueError("it is empty")
    for start, end, phone in spans:
        if not (isfinite(start) and isfinite(end)):
            raise ValueError(f"'{phone[:40]}' is from {start} to {end}")
        if not 0 <= start <= end:
            raise ValueError(
                f"'{phone[:40]}' is from {start:g} to {end:g}: it ends before it starts, or starts before 0"
            )
    for before, after in pairwise(spans):
        if before.end - after.start > OVERLAP:
            raise ValueError(f"'{before.phone[:40]}' and '{after.phone[:40]}' overlap at {after.start:g}")
