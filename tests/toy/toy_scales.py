"""A quantizer whose codes lie on several grids, from the coarsest to the latents' own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit import Quantized, Quantizer
from toolkit.nn import codebook as table
from toolkit.nn.lookup import nearest


class ScalesQuantizer(Quantizer):
    """A residual over scales (VAR, Tian et al. 2024, algorithms 1 and 2, without its convolutions).

    What the scales before leave is averaged down to a scale, looked up in one codebook, and interpolated up. For
    latents of two axes.

    Args:
        scales: length of both axes at each scale; the last is that of the latents.
        codebook_size: entries of the codebook that all scales share.
    """

    depth = 1
    local = False

    def __init__(self, dim: int, *, scales: tuple[int, ...] = (1, 2, 4), codebook_size: int = 16) -> None:
        super().__init__()
        self.channels = self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.scales = scales
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))

    def code_grid(self, grid: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        if grid != (self.scales[-1],) * 2:
            raise ValueError(f"scales={self.scales}: the last must be the latents' grid, which is {grid}")
        return tuple((scale, scale) for scale in self.scales)

    def forward(self, z: Tensor) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            z = table.upcast(z)
            e, codes, losses = torch.zeros_like(z), [], []
            for scale in self.scales:
                rows = table.flatten(F.adaptive_avg_pool2d(z - e, scale).detach())
                codes.append(nearest(rows, self.codebook).view(z.shape[0], 1, scale * scale))
                e = e + self._embed(codes[-1], scale)
                losses.append(table.distance(z.detach(), e) + 0.25 * table.distance(z, e.detach()))
            loss = torch.stack(losses).mean(0)
            flat = torch.cat(codes, 2)
            kl = table.uniform_kl(flat.to(z), len(self.codebook))
            error = table.distance(z, e).mean().detach()
            return Quantized(table.straight_through(z, e), flat, loss, kl, {"quantization_error": error})

    def embed(self, codes: Tensor) -> Tensor:
        parts = codes.split([scale * scale for scale in self.scales], 2)
        return torch.stack([self._embed(part, scale) for part, scale in zip(parts, self.scales, strict=True)]).sum(0)

    def _embed(self, codes: Tensor, scale: int) -> Tensor:
        """The codes ``(batch, 1, scale * scale)`` of a scale as latents."""
        entries = table.look_up(codes.unflatten(2, (scale, scale)), self.codebook)
        return F.interpolate(entries, (self.scales[-1],) * 2, mode="bilinear")
