"""Any quantizer between two linear projections."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from torch import Tensor, nn

from toolkit.device import in_float32
from toolkit.nn import codebook as table
from toolkit.quantizer import Posterior, Quantized, Quantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.ranges import PositiveInt
from toolkit.spec import CodeGrid


@final
class ProjectedQuantizer(Quantizer):
    """A learned linear map at every position into the inner quantizer's space, and one back.

    Around ``vq`` with few dimensions it is the factorized codebook of ViT-VQGAN (Yu et al. 2021), which also normalizes
    the lookup. It also fits quantizers that fix their own channels, such as ``fsq``, to ``dim``. The maps are computed
    in at least float32.

    Args:
        inner: the quantizer between the projections, built for codebook_dim channels.
        codebook_dim: the dim that the inner quantizer gets.
        bias: whether the maps add one.
    """

    def __init__(
        self,
        dim: int,
        *,
        inner: Callable[[int], Quantizer] = VectorQuantizer,
        codebook_dim: PositiveInt = 8,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if codebook_dim < 1:
            raise ValueError(f"codebook_dim={codebook_dim}: at least 1")
        self.inner = inner(codebook_dim)
        if not self.inner.depth:
            raise ValueError(
                "a continuous bottleneck cannot be projected, as its samples start from the unit normal: choose it"
                " alone, with a smaller dim"
            )
        self.proj_in = nn.Linear(dim, self.inner.channels, bias=bias)
        self.proj_out = nn.Linear(self.inner.dim, dim, bias=bias)
        self.channels = self.dim = dim
        self.depth, self.codebook_sizes = self.inner.depth, self.inner.codebook_sizes
        self.has_posterior, self.local = self.inner.has_posterior, self.inner.local

    def forward(self, z: Tensor) -> Quantized:
        return self._project_out(self.inner(_map(self.proj_in, z)))

    def embed(self, codes: Tensor) -> Tensor:
        return _map(self.proj_out, self.inner.embed(codes))

    def code_grid(self, grid: tuple[int, ...]) -> CodeGrid:
        return self.inner.code_grid(grid)

    def sample(self, z: Tensor) -> Quantized:
        return self._project_out(self.inner.sample(_map(self.proj_in, z)))

    def posterior(self, z: Tensor) -> Posterior:
        return self.inner.posterior(_map(self.proj_in, z))

    def _project_out(self, quantized: Quantized) -> Quantized:
        return quantized._replace(z=_map(self.proj_out, quantized.z))


def _map(linear: nn.Linear, z: Tensor) -> Tensor:
    """A linear map of the channels at every position."""
    with in_float32(z.device):
        mapped: Tensor = linear(table.upcast(z).movedim(1, -1))
    return mapped.movedim(-1, 1)
