"""Codes at several levels, each coarser one of which conditions the finer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import cast, final

import torch
from torch import Tensor, nn

from toolkit.device import in_float32
from toolkit.nn import codebook as table
from toolkit.nn.conv import CONV, conv, down, up
from toolkit.nn.parts import split_parts
from toolkit.nn.residual import residual_stack
from toolkit.nn.stages import broadcast, total, used_stages
from toolkit.quantizer import Quantized, Quantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.ranges import Fraction, NonNegativeInt, PositiveInt


@final
class HierarchyQuantizer(Quantizer):
    """A coarse level of codes for what is global, finer ones for the rest (VQ-VAE-2, Razavi et al. 2019,
    arXiv:1906.00446, algorithm 1).

    The latents are the finest level's; strided convolutions and residual blocks lead down to each coarser one. From the
    coarsest on, a level's latents and what the coarser levels decode to, brought up to its grid by the mirror of these
    layers, are mapped to its inner quantizer. The result is a linear map of both, and is what the next level is brought
    up from; the last is the decoder's. All this is learned from the decoder, past the codes. Losses and kl are summed
    over the levels in use, whose codes lie flat, the coarsest first; ``embed`` also takes those of the first levels
    alone.

    Without ``dropout`` nothing asks the coarser levels for what the finest, which is nearest to the decoder, can say
    itself, and it may learn to say all. Where examples have to do with the first levels, these learn the layout.

    Args:
        inner: the quantizer of a level, each level's its own; any channels.
        codebook_dim: the dim that the inner quantizers get.
        grid: the latents', which is the finest level.
        strides: from each level to the next coarser one, the finest first; as many as there are levels but one.
        hidden: channels of the layers between two levels.
        residual_blocks: number of residual blocks, down and up each.
        residual_hidden: channels between a block's two convolutions; null: hidden.
        dropout: share of the training examples that use only their first n levels, n uniform.
    """

    local = False

    def __init__(
        self,
        dim: int,
        *,
        inner: Callable[[int], Quantizer] = VectorQuantizer,
        codebook_dim: PositiveInt = 64,
        grid: tuple[PositiveInt, ...] = (8, 8),
        strides: tuple[PositiveInt, ...] = (2,),
        hidden: PositiveInt = 128,
        residual_blocks: NonNegativeInt = 2,
        residual_hidden: PositiveInt | None = None,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        rank = len(grid)
        if rank not in CONV:
            raise ValueError(f"grid={list(grid)}: 1 to 3 axes")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout}: between 0 and 1")
        self.grid, self.levels, self.dropout = grid, _levels(grid, strides), dropout
        self.channels = self.dim = dim
        self.stages = nn.ModuleList(inner(codebook_dim) for _ in self.levels)
        for level, stage in zip(self.levels, self._quantizers(), strict=True):
            _check(stage, level)
        first = self._quantizers()[0]
        self.depth, self.codebook_sizes = first.depth, first.codebook_sizes
        between = partial(residual_stack, rank, hidden, residual_hidden or hidden, residual_blocks)
        # Lists by level are from coarse to fine, as codes are; the first has nothing coarser.
        strided = list(reversed(strides))
        self.down = nn.ModuleList(
            nn.Sequential(down(rank, dim, hidden, stride), between(), conv(rank, hidden, dim, 1)) for stride in strided
        )
        self.up = nn.ModuleList(
            nn.Sequential(conv(rank, dim, hidden, 3), between(), up(rank, hidden, dim, stride)) for stride in strided
        )
        seen = [dim, *[2 * dim] * len(strided)]
        self.proj_in = nn.ModuleList(conv(rank, channels, first.channels, 1) for channels in seen)
        known = [0, *[dim] * len(strided)]
        self.proj_out = nn.ModuleList(conv(rank, first.dim + channels, dim, 1) for channels in known)

    def code_grid(self, grid: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The levels' grids, the coarsest first."""
        if grid != self.grid:
            raise ValueError(f"grid={list(self.grid)}: the latents' grid is {list(grid)}; give that, and strides of it")
        return self.levels

    def forward(self, z: Tensor) -> Quantized:
        return self._quantize(
            z, [stage.unchecked for stage in self._quantizers()], self.dropout if self.training else 0.0
        )

    def sample(self, z: Tensor) -> Quantized:
        """A sample from each level given those before it; its kl is exact given these."""
        return self._quantize(z, [stage.sample for stage in self._quantizers()], 0.0)

    def embed(self, codes: Tensor) -> Tensor:
        """What the levels decode to; where only the first have codes, the latents of the others are 0.

        ValueError where a level is not whole.
        """
        with in_float32(codes.device):
            given = split_parts(codes, self.levels)
            latents = [stage.embed(part) for stage, part in zip(self._quantizers(), given, strict=False)]
            for level in self.levels[len(latents) :]:
                latents.append(latents[0].new_zeros(len(codes), self._quantizers()[0].dim, *level))
            decoded = self._merge(0, latents[0], None)
            for number, of_level in enumerate(latents[1:], 1):
                decoded = self._merge(number, of_level, self.up[number - 1](decoded))
            return decoded

    def _quantize(self, z: Tensor, stages: Sequence[Callable[[Tensor], Quantized]], dropout: float) -> Quantized:
        with in_float32(z.device):
            given = [table.upcast(z)]
            for layer in reversed(self.down):
                given.insert(0, layer(given[0]))
            used = used_stages(z, len(self.levels), dropout)
            levels = [stages[0](self.proj_in[0](given[0]))]
            decoded = self._merge(0, levels[0].z, None)
            for number, stage in enumerate(stages[1:], 1):
                above = self.up[number - 1](decoded)
                levels.append(stage(self.proj_in[number](torch.cat([given[number], above], 1))))
                latents = levels[number].z
                decoded = self._merge(number, latents * broadcast(used > number, latents), above)
            return Quantized(
                decoded,
                torch.cat([level.codes.flatten(2) for level in levels], 2),
                total([level.loss for level in levels], used),
                total([level.kl for level in levels], used),
                _metrics(levels),
            )

    def _merge(self, number: int, latents: Tensor, above: Tensor | None) -> Tensor:
        """What a level decodes to, from its own latents and those brought up to it."""
        return cast(Tensor, self.proj_out[number](latents if above is None else torch.cat([latents, above], 1)))

    def _quantizers(self) -> list[Quantizer]:
        return cast(list[Quantizer], list(self.stages))


def _metrics(levels: Sequence[Quantized]) -> dict[str, Tensor]:
    """The inner quantizers' means over levels, and each level's own error, where they have one."""
    every = [level.metrics for level in levels]
    metrics = {name: torch.stack([one[name] for one in every]).mean(0) for name in every[0]}
    errors = [one["quantization_error"] for one in every if "quantization_error" in one]
    return metrics | {f"error_at_level_{number}": error for number, error in enumerate(errors, 1)}


def _levels(grid: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Their grids, the coarsest first."""
    if not strides or min(strides) < 2:
        raise ValueError(f"strides={list(strides)}: one or more, each at least 2")
    if any(size % prod(strides) for size in grid):
        raise ValueError(f"strides={list(strides)}: their product must divide each axis of {list(grid)}")
    shares = [prod(strides[:number]) for number in range(len(strides), -1, -1)]
    return tuple(tuple(size // share for size in grid) for share in shares)


def _check(stage: Quantizer, level: tuple[int, ...]) -> None:
    if not stage.depth:
        raise ValueError("a continuous bottleneck has no codes: choose an inner quantizer that has")
    if stage.code_grid(level) != level:
        raise ValueError("the inner quantizer's codes lie on a grid of their own: choose one whose codes do not")
