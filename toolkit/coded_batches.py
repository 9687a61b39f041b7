"""Training batches of data as batches of its codes, encoded as they come."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from math import prod

import torch

from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch, TrainBatches
from toolkit.device import in_float32
from toolkit.errors import NotFiniteError
from toolkit.quantizer import checks_deferred
from toolkit.stream_batches import Place, StreamBatches


class CodedBatches(Iterator[Batch]):
    """The codes of each batch, drawn where there is a posterior, as files of codes are; the autoencoder stays as it is.

    What is random in the data's training examples is random in their codes, and nothing needs to be counted: the data
    may be a stream. ``waited`` and ``place`` are the data's; ``positions`` are those of codes.
    """

    def __init__(self, batches: TrainBatches | StreamBatches, autoencoder: Autoencoder) -> None:
        self._batches, self._autoencoder = batches, autoencoder.eval()
        self.device, self._share = batches.device, 1.0
        self._finite = torch.ones((), dtype=torch.bool, device=batches.device)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        with torch.no_grad(), in_float32(self.device), checks_deferred() as finite:
            codes = self._autoencoder.masked(batch.mask).sample(batch.x).codes
        if finite:
            self._finite &= torch.stack(finite).all()
        coded, self._share = copy(batch), prod(codes.shape[2:]) / prod(batch.x.shape[2:])
        coded.x, coded.positions = codes, batch.positions * self._share
        if batch.mask is not None:  # lengths are whole numbers of codes
            coded.mask = batch.mask[:, :: batch.mask.shape[1] // codes.shape[2]]
        return coded

    def check(self) -> None:
        """NotFiniteError where the latents of a batch, of any until now, were NaN or infinite. It waits for the device,
        which ``__next__`` does not."""
        if not self._finite:
            raise NotFiniteError(
                "the latents of training examples became NaN or infinite: check the data for such values"
            )

    @property
    def waited(self) -> float:
        return self._batches.waited

    @property
    def positions(self) -> float:
        return self._batches.positions * self._share

    @property
    def place(self) -> Place | None:
        return self._batches.place
