"""What is measured of one example of a padded batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from toolkit.lengths.measured import OneOf, _Shared
from toolkit.likelihood import Distribution


class Noise(Distribution):
    """Of two examples."""

    shape = (1, 5)

    def __init__(self) -> None:
        self.drawn: list[Tensor] = []

    @property
    def mean(self) -> Tensor:
        return torch.zeros(2, 1, 5)

    def log_prob(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        self.drawn.append(temperature * torch.randn(2, 1, 5, generator=generator))
        return self.drawn[-1]


def test_a_batch_is_sampled_once_for_all_its_examples() -> None:
    """And anew where one asks again, from another generator, or at another temperature."""
    batch, generator = Noise(), torch.Generator().manual_seed(0)
    shared = _Shared(batch)
    first, second = OneOf(shared, 0, 5), OneOf(shared, 1, 3)
    for number in range(2):
        assert torch.equal(first.sample(generator), batch.drawn[number][:1])
        assert torch.equal(second.sample(generator), batch.drawn[number][1:, :, :3])
    assert len(batch.drawn) == 2
    assert not torch.equal(*batch.drawn)
    for one in (first, second):
        one.sample(generator, 0.5)
        one.sample()
    assert len(batch.drawn) == 4
