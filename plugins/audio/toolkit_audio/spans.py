"""Phones in time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

SILENCE = "sil"
"""The phone of a TextGrid's interval without text."""
SILENCES = {"", "sil", "sp", "pau", "silence", "pause", "h#", "#h", "#", "_", "<p:>", "<sil>", "<eps>", "(...)", "epi"}
"""What aligners and corpora call silence, in lower case."""


class Span(NamedTuple):
    """A phone from its start to its end, in seconds."""

    start: float
    end: float
    phone: str


def is_silence(phone: str) -> bool:
    return phone.lower() in SILENCES


def merged(speakers: Sequence[Sequence[Span]]) -> list[Span]:
    """What is heard of several speakers in one sound: where one speaks, that phone; where two do, there is no span."""
    times = sorted({time for spans in speakers for span in spans for time in (span.start, span.end)})
    begins = [[span.start for span in spans] for spans in speakers]
    heard = []
    for start, end in pairwise(times):
        middle = (start + end) / 2
        places = (bisect_right(starts, middle) - 1 for starts in begins)
        spans = [spans[at] for spans, at in zip(speakers, places, strict=True) if at >= 0 and middle < spans[at].end]
        said = [span.phone for span in spans if not is_silence(span.phone)]
        if spans and len(said) < 2:
            heard.append(Span(start, end, said[0] if said else SILENCE))
    return heard
