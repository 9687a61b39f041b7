"""Strided convolutions down to a single position."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from toolkit.encoder import Encoder
from toolkit.nn.conv import CONV, conv
from toolkit.nn.residual import residual_stack
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit.spec import DataSpec


@final
class PoolEncoder(Encoder):
    """All of the data to one position, so that codes are global (van den Oord et al. 2017, section 4.2).

    Works on one to three axes. Ordered data is scaled; unordered data, such as codes, is embedded, with a table per
    channel. Convolutions of stride 2, each after residual blocks, halve the axes down to length 1, so a code may depend
    on absolute positions. Longer data than configured is averaged.

    Args:
        hidden: channels of all layers but the last.
        residual_blocks: residual blocks before each halving.
    """

    def __init__(
        self, data: DataSpec, dim: int, *, hidden: PositiveInt = 128, residual_blocks: NonNegativeInt = 1
    ) -> None:
        super().__init__()
        if data.rank not in CONV:
            raise ValueError(f"works on 1 to 3 axes, but this data has {data.rank}")
        self.data = data
        self.tables: nn.ModuleList | None = None
        if data.ordered:
            self.proj_in = conv(data.rank, data.channels, hidden, 3)
        else:
            assert data.levels is not None
            self.tables = nn.ModuleList(nn.Embedding(data.levels, hidden) for _ in range(data.channels))
        layers: list[nn.Module] = []
        for _ in range((max(data.axes) - 1).bit_length()):
            halve = CONV[data.rank](hidden, hidden, 3, stride=2, padding=1)
            layers += [residual_stack(data.rank, hidden, hidden, residual_blocks), halve]
        self.down = nn.Sequential(*layers, nn.ReLU())
        self.out = conv(data.rank, hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, *axes)`` to ``(batch, dim, 1, …)``."""
        if self.tables is None:
            h = self.proj_in(self.data.scale(x))
        else:
            rows = [table(x[:, i].long()) for i, table in enumerate(self.tables)]
            h = sum(rows[1:], start=rows[0]).movedim(-1, 1)
        h = self.down(h)
        z: Tensor = self.out(h.mean(tuple(range(2, h.dim())), keepdim=True))
        return z
