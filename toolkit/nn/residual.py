"""Residual blocks of any rank."""

from __future__ import annotations

from torch import Tensor, nn

from toolkit.nn.context import reads
from toolkit.nn.conv import conv


class ResidualBlock(nn.Module):
    """ReLU, 3-wide convolution, ReLU, 1-wide convolution, added to the input (van den Oord et al. 2017, 4.1).

    ``wide`` maps to the hidden channels, ``narrow`` back; both keep the grid.
    """

    def __init__(self, wide: nn.Module, narrow: nn.Module) -> None:
        super().__init__()
        self.wide = wide
        self.narrow = narrow

    def reads(self, first: int, last: int) -> tuple[int, int]:
        """As toolkit.nn.context has it; the input itself is among what ``wide`` reads."""
        return reads([self.wide, self.narrow], first, last)

    def forward(self, h: Tensor) -> Tensor:
        """h ``(batch, channels, *grid)``."""
        change: Tensor = self.narrow(self.wide(h.relu()).relu())
        return h + change


def residual_stack(rank: int, channels: int, hidden: int, blocks: int) -> nn.Sequential:
    """``blocks`` residual blocks and a final ReLU."""
    layers = [ResidualBlock(conv(rank, channels, hidden, 3), conv(rank, hidden, channels, 1)) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.ReLU())
