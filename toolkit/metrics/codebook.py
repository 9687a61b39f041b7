"""Usage of codebooks, and distances of their entries."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from toolkit import collapse
from toolkit.device import double
from toolkit.fit import device_of
from toolkit.metric import Direction, Metric
from toolkit.objective import Bound
from toolkit.plots.codebook import DepthUse, plot_codebooks
from toolkit.quantizer import Quantizer
from toolkit.running_metrics import codebook_use, histogram
from toolkit.spec import CodeSpec

LARGEST = 16384
"""Most entries of a codebook for which the nearest pair is computed."""

TILE = 1 << 20
"""Distances in memory at once."""


@final
class CodebookMetric(Metric):
    """``usage`` (share of entries used) and ``perplexity`` (exp of the entropy of their histogram), means over depths;
    ``dead_entries``, the number never used, over all depths; ``nearest_pair``, the smallest distance between two
    entries of one codebook; ``quantization_error``, the mean of ``|z - z_q|^2`` over positions, where the quantizer
    reports it. Where the codes' grid has parts, such as scales, also ``usage_part_1`` and ``perplexity_part_1`` of the
    first, and of every other.

    Codebooks of more than 16384 entries, and those of a quantizer that is not ``local``, have no nearest pair. Warns
    where codes have collapsed onto few entries, and plots how often each entry is used.
    """

    directions: ClassVar[Mapping[str, Direction]] = {
        "usage": "max",
        "perplexity": "max",
        "dead_entries": "min",
        "quantization_error": "min",
    }

    def __init__(self, code_spec: CodeSpec, quantizer: Quantizer) -> None:
        self.code_spec, self.quantizer = code_spec, quantizer
        self._sizes = [prod(part) for part in code_spec.parts]
        self._by_part = torch.zeros(len(self._sizes) or 1, sum(code_spec.codebook_sizes), dtype=torch.double)
        self._error, self._examples = 0.0, 0.0

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        if not self.code_spec.depth:
            return
        codes = output.quantized.codes
        parts = codes.split(self._sizes, 2) if self.code_spec.parts else [codes]
        self._by_part += torch.stack([histogram(part, self.code_spec) for part in parts]).cpu().double()
        error = output.quantized.metrics.get("quantization_error")
        if error is not None:
            examples = len(x) * (codes.shape[2] / self.code_spec.grid[0])  # a shorter one counts less
            self._error += float(error) * examples
            self._examples += examples

    def compute(self) -> dict[str, float]:
        if not self.code_spec.depth:
            return {}
        perplexity, usage = codebook_use(self._counts, self.code_spec)
        pairs = [pair for pair in self._nearest_pairs() if pair is not None]
        error = self._quantization_error
        return {
            "usage": float(usage),
            "perplexity": float(perplexity),
            "dead_entries": float((self._counts == 0).sum()),
            **({"nearest_pair": min(pairs)} if pairs else {}),
            **({} if error is None else {"quantization_error": error}),
            **self._use_by_part(),
        }

    def state(self) -> tuple[Tensor, float, float]:
        return self._by_part, self._error, self._examples

    def merge(self, state: tuple[Tensor, float, float]) -> None:
        counts, error, examples = state
        self._by_part += counts
        self._error += error
        self._examples += examples

    def warnings(self) -> list[str]:
        """Names the codebooks that are hardly used, and what to try; or says that there were too few codes to tell."""
        warning = collapse.warning(self._counts, self.code_spec, self.quantizer)
        return [*([] if warning is None else [warning]), *self._few()]

    def _few(self) -> list[str]:
        sizes = self.code_spec.codebook_sizes
        counts = [int(row.sum()) for row in self._counts.split(list(sizes))] if sizes else []
        largest, count = max(zip(sizes, counts, strict=True), default=(0, 0))
        if not 0 < count < largest:
            return []
        return [
            f"few codes were counted: {count:,} for a codebook of {largest:,} entries, so that usage, perplexity and"
            " dead entries say how few these are; measure more examples"
        ]

    def histograms(self) -> dict[str, Tensor]:
        """How often each entry of each depth's codebook was taken: ``codes_1`` and so on."""
        rows = self._counts.split(list(self.code_spec.codebook_sizes)) if self.code_spec.depth else ()
        return {f"codes_{depth}": row.clone() for depth, row in enumerate(rows, 1)}

    def plot(self, folder: Path) -> list[Path]:
        """How often each entry is used, most used first: a panel per depth."""
        if not self.code_spec.depth or not self._counts.any():
            return []
        rows = self._counts.split(list(self.code_spec.codebook_sizes))
        uses = [_use(row, pair) for row, pair in zip(rows, self._nearest_pairs(), strict=True)]
        path = folder / "codebook.png"
        plot_codebooks(path, uses, self._quantization_error)
        return [path]

    @property
    def _counts(self) -> Tensor:
        """Of all parts together."""
        return self._by_part.sum(0)

    def _use_by_part(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for number, counts in enumerate(self._by_part if self.code_spec.parts else (), 1):
            perplexity, usage = codebook_use(counts, self.code_spec)
            values |= {f"usage_part_{number}": float(usage), f"perplexity_part_{number}": float(perplexity)}
        return values

    @property
    def _quantization_error(self) -> float | None:
        return self._error / self._examples if self._examples else None

    def _nearest_pairs(self) -> list[float | None]:
        sizes = self.code_spec.codebook_sizes
        if not self.quantizer.local:  # a code alone, without its neighbors, has no latent
            return [None] * len(sizes)
        return [nearest_pair(entries(self.quantizer, d)) if size <= LARGEST else None for d, size in enumerate(sizes)]


@torch.no_grad()
def entries(quantizer: Quantizer, depth: int) -> Tensor:
    """A depth's codebook ``(codebook_size, dim)``: the latents of its codes, those of other depths being 0."""
    size = quantizer.codebook_sizes[depth]
    codes = torch.zeros(size, quantizer.depth, 1, dtype=torch.int64, device=device_of(quantizer))
    codes[:, depth, 0] = torch.arange(size, device=codes.device)
    return quantizer.embed(codes).flatten(1)


@torch.no_grad()
def nearest_pair(table: Tensor) -> float | None:
    """The smallest distance between two rows of a table ``(n, dim)``; None where there is only one.

    Each row's neighbor is found by expanding the square, a tile of distances at a time; its distance is then computed
    directly, so that equal rows have distance 0.
    """
    table = double(table)
    table = table - table[:1]  # a common offset would cost digits
    norms = table.square().sum(1)
    squares = []
    rows = max(1, TILE // len(table))
    for start in range(0, len(table) - 1, rows):
        tile, others = table[start : start + rows], table[start:]
        distances = torch.addmm(norms[start:], tile, others.T, alpha=-2)
        distances.diagonal().fill_(torch.inf)
        squares.append((tile - others[distances.argmin(1)]).square().sum(1).min())
    return float(torch.stack(squares).min().sqrt()) if squares else None


def _use(counts: Tensor, pair: float | None) -> DepthUse:
    perplexity, usage = codebook_use(counts, CodeSpec((), (len(counts),)))
    shares = (counts / counts.sum()).sort(descending=True).values
    return DepthUse(shares.tolist(), float(usage), float(perplexity), pair, int(counts.sum()))
