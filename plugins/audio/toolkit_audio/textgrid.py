"""Praat's TextGrid, in its long and its short text format, and which of its tiers are phones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from toolkit_audio.spans import SILENCE, Span, merged

T = TypeVar("T", str, float)

TOKEN = re.compile(r'"([^"]*(?:""[^"]*)*)"|!.*|([^\s"]+)')
"""A text in quotes, a comment, or a word; only texts and words that are numbers count, all else explains them."""
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
PHONES = {"phones", "phone", "phonemes", "phoneme", "phons", "phon", "phns", "phn", "mau"}
"""Names of a tier of phones, in lower case: of the Montreal aligner, of Praat's users, of WebMAUS."""
SPEAKER = re.compile(r"(.+?)(?:\s+-\s+|\s*[:@/|_]\s*)([^\s:@/|_]+)")
"""A speaker, and what the tier is of: ``alice - phones``."""


class Tier(NamedTuple):
    """Intervals, in order; none for a tier of points."""

    name: str
    spans: list[Span]


def read_tiers(text: str) -> list[Tier]:
    """All tiers of a TextGrid. ValueError if it is none."""
    tokens = _tokens(text)
    if not _next(tokens, str).startswith("ooTextFile") or _next(tokens, str) != "TextGrid":
        raise ValueError("it is no TextGrid in Praat's long or short text format")
    for _ in range(2):  # from when, and until when
        _next(tokens, float)
    return [_tier(tokens) for _ in range(int(_next(tokens, float)))]


def phone_spans(tiers: Sequence[Tier]) -> list[Span]:
    """The phones of the one tier that is named as in ``PHONES``, or of one such tier for each speaker.

    ValueError, which names the tiers, if none is, or several are: words are never taken for phones.
    """
    tiers = [tier for tier in tiers if tier.spans]
    alone = [tier for tier in tiers if tier.name.strip().lower() in PHONES]
    spoken = {said[1]: tier for tier in tiers if (said := _speaker(tier.name))}
    count = sum(_speaker(tier.name) is not None for tier in tiers)
    if len(alone) == 1 and not spoken:
        return alone[0].spans
    if not alone and spoken and count == len(spoken):
        return merged([tier.spans for tier in spoken.values()])
    names = ", ".join(f"'{tier.name[:40]}'" for tier in tiers[:8]) or "none with intervals"
    several = "more than one tier of phones" if alone or spoken else "no tier of phones"
    raise ValueError(f"it has {several} among its tiers {names}; call it phones, or SPEAKER - phones")


def _speaker(name: str) -> re.Match[str] | None:
    """The speaker and the last word of a tier's name, if that word means phones."""
    match = SPEAKER.fullmatch(name.strip())
    return match if match and match[2].lower() in PHONES else None


def _tier(tokens: Iterator[str | float]) -> Tier:
    kind, name = _next(tokens, str), _next(tokens, str)
    for _ in range(2):
        _next(tokens, float)
    count = int(_next(tokens, float))
    if kind == "IntervalTier":
        return Tier(name, [_span(tokens) for _ in range(count)])
    for _ in range(count):
        _next(tokens, float)
        _next(tokens, str)
    return Tier(name, [])


def _span(tokens: Iterator[str | float]) -> Span:
    return Span(_next(tokens, float), _next(tokens, float), _next(tokens, str).strip() or SILENCE)


def _next(tokens: Iterator[str | float], kind: type[T]) -> T:
    token = next(tokens, None)
    if not isinstance(token, kind):
        raise ValueError(f"as a TextGrid, it has {token!r} in place of a {'text' if kind is str else 'number'}")
    return token


def _tokens(text: str) -> Iterator[str | float]:
    for match in TOKEN.finditer(text):
        if match[1] is not None:
            yield match[1].replace('""', '"')
        elif match[2] and NUMBER.fullmatch(match[2]):
            yield float(match[2])
