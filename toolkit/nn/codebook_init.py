"""Where the entries of a codebook start, and where dead ones are revived."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, final, get_args

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from typing_extensions import Doc

from toolkit.lengths.ranks import rows_of_ranks
from toolkit.nn.kmeans import kmeans, sample_rows
from toolkit.ranges import NonNegative

_Init = Literal["data", "kmeans", "random"]

Init = Annotated[
    _Init, Doc("where entries start: at latents of the first training batch, at their k-means, or at random.")
]
DeadCodeThreshold = Annotated[
    NonNegative,
    Doc(
        "share of latents / codebook_size, in a moving average, below which an entry is revived at a latent of the"
        " batch; 0 revives none."
    ),
]


class NewEntries(NamedTuple):
    """Entries to set in a codebook."""

    where: Tensor
    """``(…, codebook_size)``, bool: which to set."""
    entries: Tensor
    """``(…, codebook_size, dim)``."""
    expected_count: float
    """Latents per step and entry at uniform use: where counts start."""


@final
class CodebookInit:
    """Chooses initial and revived entries; the quantizer has the codebook, and sets them.

    Whether entries are initialized is part of the quantizer's state, as its buffer ``initialized``. The forward pass
    reads ``begun`` instead, a plain bool that mirrors it, so that no graph branches on data and no step samples rows
    that it throws away; compiled, the first training step is a graph of its own. The quantizer must register ``mirror``
    as its ``load_state_dict`` post hook.
    """

    def __init__(self, init: Init, dead_code_threshold: DeadCodeThreshold) -> None:
        if init not in get_args(_Init):
            raise ValueError(f"init={init}: one of {', '.join(get_args(_Init))}")
        self.init, self.dead_code_threshold = init, dead_code_threshold
        self.begun = False

    @torch.no_grad()
    def begin(self, rows: Tensor, codebook: Tensor, initialized: Tensor) -> NewEntries:
        """All entries of a codebook ``(…, codebook_size, dim)``, from the first batch's latents, rows ``(…, n, dim)``;
        sets ``initialized``.
        """
        everywhere = torch.ones_like(codebook[..., 0], dtype=torch.bool)
        first = NewEntries(everywhere, self._first(rows, codebook), _expected_count(rows, codebook.shape[-2]))
        initialized.fill_(True)
        self.begun = _has_numbers(rows)
        return first

    @torch.no_grad()
    def revive(self, rows: Tensor, counts: Tensor) -> NewEntries:
        """Latents of the batch for entries whose counts are below ``dead_code_threshold`` times the expected count.

        rows ``(…, n, dim)``, counts ``(…, codebook_size)``.

        Samples on every rank in every step, needed or not, since it is a collective operation.
        """
        expected = _expected_count(rows, counts.shape[-1])
        dead = counts < self.dead_code_threshold * expected
        return NewEntries(dead, sample_rows(rows, counts.shape[-1]), expected)

    def mirror(self, quantizer: nn.Module, missing: object) -> None:
        """Copies ``initialized`` to ``begun`` after a state is loaded."""
        initialized = quantizer.get_buffer("initialized")
        if _has_numbers(initialized):
            self.begun = bool(initialized)

    def _first(self, rows: Tensor, codebook: Tensor) -> Tensor:
        if self.init == "random":
            return codebook
        sampled = sample_rows(rows, codebook.shape[-2])
        return kmeans(rows, sampled) if self.init == "kmeans" else sampled


def random_entries(codebook_size: int, dim: int) -> Tensor:
    """Entries ``(codebook_size, dim)``, uniform around the origin."""
    return torch.empty(codebook_size, dim).uniform_(-1, 1) / max(1, codebook_size)


def _expected_count(rows: Tensor, codebook_size: int) -> float:
    return sum(rows_of_ranks(rows.shape[-2])) / codebook_size


def _has_numbers(t: Tensor) -> bool:
    """Whether values can be read: not on a meta device, nor of a fake tensor."""
    return torch.compiler.is_compiling() or not (t.is_meta or isinstance(t, FakeTensor))
