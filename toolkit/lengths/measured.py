"""What is measured of a batch of examples of unequal lengths, as if each had been alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from toolkit.batches import Batch
from toolkit.lengths.mask import cut, without_padding
from toolkit.likelihood import Distribution
from toolkit.objective import Bound
from toolkit.prior import Prior


def cost_of(prior: Prior, codes: Tensor, batch: Batch) -> Tensor:
    """Nats ``(batch,)`` of each example's own codes ``(batch, depth, *grid)``; NotImplementedError, saying why, where
    the prior has none."""
    if batch.mask is None:
        return -prior.log_prob(codes, batch.conditions)
    if not prior.takes_padding:
        raise NotImplementedError("it does not take examples of unequal lengths")
    mask = batch.mask[:, :: batch.mask.shape[1] // codes.shape[2]]
    return without_padding(prior.nats_by_position(codes, batch.conditions), mask).flatten(1).sum(1)


def apart(batch: Batch, bound: Bound) -> Iterator[tuple[Tensor, Bound, Mapping[str, Tensor]]]:
    """What metrics get: x, its bound and its conditions, of the whole batch or, where there is padding, of each example
    without it."""
    if batch.mask is None:
        yield batch.x, bound, batch.conditions
        return
    shared, longest = _Shared(bound.likelihood), batch.x.shape[2]
    per_code = longest // bound.quantized.z.shape[2]
    for row, length in enumerate(batch.mask.sum(1).tolist()):
        example, codes = slice(row, row + 1), length // per_code
        quantized = bound.quantized._replace(
            z=bound.quantized.z[example, :, :codes],
            codes=bound.quantized.codes[example, :, :codes],
            loss=bound.quantized.loss[example],
            kl=bound.quantized.kl[example],
        )
        yield (
            batch.x[example, :, :length],
            bound._replace(
                data_nats=bound.data_nats[example],
                code_nats=bound.code_nats[example],
                likelihood=OneOf(shared, row, length),
                quantized=quantized,
                single_sample_nats=None if bound.single_sample_nats is None else bound.single_sample_nats[example],
            ),
            {name: cut(value[example], length, longest) for name, value in batch.conditions.items()},
        )


@final
class _Shared:
    """A batch's distributions, with their mean and their samples, each computed once for all examples."""

    def __init__(self, batch: Distribution) -> None:
        self.batch = batch
        self.drawn: dict[tuple[torch.Generator | None, float], list[Tensor]] = {}

    @cached_property
    def mean(self) -> Tensor | None:
        return self.batch.mean

    def sample(
        self, number: int, generator: torch.Generator | None, temperature: float, progress: Callable[[int], None] | None
    ) -> Tensor:
        """The ``number``-th sample from a generator at a temperature."""
        drawn = self.drawn.setdefault((generator, temperature), [])
        while len(drawn) <= number:
            drawn.append(self.batch.sample(generator, temperature, progress))
        return drawn[number]


@final
class OneOf(Distribution):
    """The distribution over one example of a batch, ``(1, channels, length, …)``: its mean and samples."""

    def __init__(self, shared: _Shared, row: int, length: int) -> None:
        batch = shared.batch
        self.shared, self.row, self.length = shared, row, length
        self.asked = Counter[tuple[torch.Generator | None, float]]()
        self.shape = (batch.shape[0], length, *batch.shape[2:])
        self.mean_is_free, self.density = batch.mean_is_free, batch.density

    @property
    def mean(self) -> Tensor | None:
        mean = self.shared.mean
        return None if mean is None else mean[self.row : self.row + 1, :, : self.length]

    def log_prob(self, x: Tensor) -> Tensor:
        raise NotImplementedError("the bound has what its x costs")

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        number = self.asked[generator, temperature]
        self.asked[generator, temperature] += 1
        return self.shared.sample(number, generator, temperature, progress)[self.row : self.row + 1, :, : self.length]
