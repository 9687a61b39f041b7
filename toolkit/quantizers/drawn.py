"""What quantizers share whose entries start at latents, and start again where they win too few."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from toolkit.distributed import ranks
from toolkit.nn.kmeans import draw_rows, kmeans
from toolkit.quantizers.table import TableQuantizer

INITS = ("data", "kmeans", "random")


class DrawnQuantizer(TableQuantizer):
    """A table whose entries start at the first training batch.

    That they did is part of the state, as the buffer ``initialised``. The forward pass asks a plain bool that mirrors
    it, so that no graph branches on data, and that a step draws nothing which it throws away: compiled, the first
    training step is a graph of its own.
    """

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: int,
        commitment: float,
        init: Literal["data", "kmeans", "random"],
        restart: float,
        gradient: Literal["straight_through", "rotation"],
        normalise: bool,
        entropy: float,
        entropy_temperature: float,
    ) -> None:
        super().__init__(
            dim,
            codebook_size=codebook_size,
            commitment=commitment,
            gradient=gradient,
            normalise=normalise,
            entropy=entropy,
            entropy_temperature=entropy_temperature,
        )
        if init not in INITS:
            raise ValueError(f"init={init}: one of {', '.join(INITS)}")
        self.init, self.restart = init, restart
        self.initialised: Tensor
        self.register_buffer("initialised", torch.tensor(False))
        self._begun = False
        self.register_load_state_dict_post_hook(_mirror)

    @abstractmethod
    def place(self, where: Tensor, entries: Tensor, fair: float) -> None:
        """Puts entries ``(codebook_size, dim)`` in the table ``where`` ``(codebook_size,)`` says so.

        fair: latents per step and entry if all won alike.
        """

    def begin(self, rows: Tensor) -> None:
        if self._begun:
            return
        with torch.no_grad():
            every = torch.ones_like(self.codebook[:, 0], dtype=torch.bool)
            self.place(every, self._first(rows), self._fair(rows))
            self.initialised.fill_(True)
        self._begun = _is_real(rows)

    def start_again(self, counts: Tensor, rows: Tensor) -> None:
        """Places entries that win less than ``restart`` times the fair share at latents of the batch.

        On every rank in every step, whether or not there are such entries: ranks wait for one another.
        """
        fair = self._fair(rows)
        self.place(counts < self.restart * fair, draw_rows(rows, len(self.codebook)), fair)

    def _first(self, rows: Tensor) -> Tensor:
        if self.init == "random":
            return self.codebook
        drawn = draw_rows(rows, len(self.codebook))
        return kmeans(rows, drawn) if self.init == "kmeans" else drawn

    def _fair(self, rows: Tensor) -> float:
        return len(rows) * ranks() / len(self.codebook)


def _mirror(quantizer: nn.Module, missing: Any) -> None:
    """After a state is loaded."""
    assert isinstance(quantizer, DrawnQuantizer)
    if _is_real(quantizer.initialised):
        quantizer._begun = bool(quantizer.initialised)


def _is_real(t: Tensor) -> bool:
    """Whether it has numbers: not so on a meta device, nor where only shapes are pushed through."""
    return torch.compiler.is_compiling() or not (t.is_meta or isinstance(t, FakeTensor))


def random_entries(codebook_size: int, dim: int) -> Tensor:
    """Entries ``(codebook_size, dim)`` around the origin, for as long as there is no data."""
    return torch.empty(codebook_size, dim).uniform_(-1, 1) / max(1, codebook_size)
