"""Residual blocks of any rank."""

from __future__ import annotations

from torch import Tensor, nn

from toolkit.nn.conv import conv


class ResidualBlock(nn.Module):
    """ReLU, 3-wide convolution, ReLU, 1-wide convolution, added to the input (van den Oord et al. 2017, 4.1)."""

    def __init__(self, rank: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.wide = conv(rank, channels, hidden, 3)
        self.narrow = conv(rank, hidden, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, *grid)``."""
        change: Tensor = self.narrow(self.wide(h.relu()).relu())
        return h + change


def residual_stack(rank: int, channels: int, hidden: int, blocks: int) -> nn.Sequential:
    """``blocks`` residual blocks and the ReLU that ends them."""
    return nn.Sequential(*(ResidualBlock(rank, channels, hidden) for _ in range(blocks)), nn.ReLU())
