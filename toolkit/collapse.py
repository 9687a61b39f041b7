"""When a codebook has collapsed, and which of the model's own options may help."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from math import expm1
from typing import NamedTuple

from torch import Tensor

from toolkit.fit import title
from toolkit.nn.codebook_init import CodebookInit
from toolkit.quantizer import Quantizer
from toolkit.spec import CodeSpec

COLLAPSED = 0.1
"""Share of the entries that random codes would use, below which a codebook has collapsed."""

NAMED = 3
"""Depths that a message names one by one."""


class Collapse(NamedTuple):
    """A codebook of which almost no entry is used."""

    depth: int
    used: int
    size: int


def collapsed(counts: Tensor, code_spec: CodeSpec) -> list[Collapse]:
    """The depths whose codebook has collapsed, judged by ``toolkit.running_metrics.histogram`` over many examples."""
    collapses = []
    for depth, row in enumerate(counts.split(list(code_spec.codebook_sizes))):
        used, size = int((row > 0).sum()), len(row)
        if used < COLLAPSED * size * -expm1(-float(row.sum()) / size):
            collapses.append(Collapse(depth, used, size))
    return collapses


def warning(counts: Tensor, code_spec: CodeSpec, quantizer: Quantizer) -> str | None:
    """One sentence that says where the codes have collapsed and what to try; None where they have not."""
    collapses = collapsed(counts, code_spec)
    if not collapses:
        return None
    *others, last = remedies(quantizer)
    advice = f"{', '.join(others)} or {last}" if others else last
    return f"the codes have collapsed: {_depths(collapses, code_spec.depth)}; try {advice}"


def remedies(quantizer: Quantizer) -> list[str]:
    """What may help this quantizer or its parts, as words for the command line."""
    parts = [part for part in quantizer.modules() if isinstance(part, Quantizer)]
    return list(dict.fromkeys([*(word for part in parts for word in _options(part)), "more steps"]))


def _options(part: Quantizer) -> Iterator[str]:
    """The part's own options that may help and are not yet set to it, by their path in the configuration."""
    path = title(part).partition("=")[0] if "=" in title(part) else "quantizer"
    options = signature(type(part)).parameters
    for name, better in (("dead_code_threshold", "0.1"), ("entropy", "0.1"), ("init", "kmeans")):
        value = _value(part, name)
        if name in options and isinstance(value, int | float | str) and value in (0, "data", "random"):
            yield f"{path}.{name}={better}"
    yield from (f"a smaller {path}.{name}" for name in ("codebook_size", "bits", "levels") if name in options)


def _value(part: Quantizer, name: str) -> object:
    """An option's value, which the part or its ``CodebookInit`` keeps."""
    value = getattr(part, name, None)
    init = getattr(part, "init", None)
    return getattr(init, name, value) if isinstance(init, CodebookInit) else value


def _depths(collapses: list[Collapse], depth: int) -> str:
    first, *others = collapses[:NAMED]
    texts = [f"{first.used} of {first.size} entries {'is' if first.used == 1 else 'are'} used"]
    if depth > 1:
        texts[0] += f" at depth {first.depth}"
        texts += [f"{other.used} of {other.size} at depth {other.depth}" for other in others]
    more = len(collapses) - NAMED
    return ", ".join(texts) + (f", as few at {more} more" if more > 0 else "")
