"""The gated PixelCNN sees exactly the past, whatever the rank."""

from __future__ import annotations

from math import prod

import pytest
import torch

from toolkit.causal.pixelcnn import PixelCNN
from toolkit.testing.causal import reach


@pytest.mark.parametrize("grid", [(12,), (6, 6), (3, 4, 4)], ids=str)
def test_every_position_sees_all_earlier_ones(grid: tuple[int, ...]) -> None:
    """There is no blind spot, so long as there are layers enough."""
    trunk = PixelCNN(len(grid), layers=max(grid), hidden=4, kernel_size=3).double()
    for position in range(prod(grid)):
        assert torch.equal(reach(trunk, grid, position), torch.arange(prod(grid)) < position)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_a_layer_sees_half_a_kernel_further(kernel_size: int) -> None:
    trunk, length = PixelCNN(1, layers=2, hidden=4, kernel_size=kernel_size).double(), 20
    seen = reach(trunk, (length,), length - 1).nonzero().flatten()
    assert length - 1 - seen.amin() == 1 + 2 * (kernel_size // 2)


@pytest.mark.parametrize(
    ("rank", "options", "message"),
    [
        (4, {}, "1 to 3 axes"),
        (0, {}, "1 to 3 axes"),
        (2, {"kernel_size": 4}, "kernel_size=4"),
        (2, {"layers": 0}, "layers=0"),
    ],
)
def test_what_it_cannot_be_is_refused(rank: int, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelCNN(rank, **options)
