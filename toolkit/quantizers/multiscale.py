"""A residual over scales: codes on several grids, from coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.device import in_float32
from toolkit.nn import codebook as table
from toolkit.nn.conv import CONV, conv
from toolkit.nn.parts import split_parts
from toolkit.nn.resize import Resize, Upsampling
from toolkit.nn.stages import broadcast, total, used_stages
from toolkit.nn.tables import Assigned, TableQuantizer
from toolkit.quantizer import Quantized, Quantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.ranges import Fraction, NonNegativeInt, PositiveInt

CONVOLVED = 0.5
"""Share of a scale's latents that is convolved; the rest is taken as it is."""


@final
class MultiscaleQuantizer(Quantizer):
    """Quantizes what the coarser scales left, averaged down to each scale (VAR, Tian et al. 2024, arXiv:2404.02905).

    A scale's codes are interpolated up to the latents' grid, pass half of themselves through a 3-wide convolution, and
    add up; the first scales alone are a lower rate, which ``embed`` takes. Along one axis, without convolutions and
    with tables of their own, these are the strides of SNAC (Siuzdak et al. 2024, arXiv:2410.14411). The codes lie flat,
    a scale after the other.

    The decoder's gradient passes to the latents as of a single quantizer, and to what the inner one learns from it,
    such as the ``proj_out`` of ``projected``, divided by the scales in use. Losses are means over scales, each at its
    scale; kl is summed. The convolutions learn from the distance of the sum to the latents alone, which is part of the
    loss.

    A shared table is initialized at, and revives entries at, what coarser scales without error would leave; another
    shared quantizer is given one scale after the other. So ``projected`` around this is the better order, unless
    tables are not shared; then the coarsest start at few latents, of which a batch has one for each position.

    Args:
        inner: the quantizer of a scale; input and output must have the latents' channels (else wrap it in projected).
        grid: the latents', which is the last scale.
        divisors: what divides the grid at the scales before the last, from coarse to fine.
        scales: the grids of these scales, in place of divisors.
        shared: whether all scales share one inner quantizer, as in VAR.
        convolutions: how many there are, neighboring scales sharing one; 0 leaves them out.
        dropout: share of the training examples that use only their first n scales, n uniform.
    """

    local = False

    def __init__(
        self,
        dim: int,
        *,
        inner: Callable[[int], Quantizer] = VectorQuantizer,
        grid: tuple[PositiveInt, ...] = (8, 8),
        divisors: tuple[PositiveInt, ...] = (8, 4, 2),
        scales: tuple[tuple[PositiveInt, ...], ...] | None = None,
        shared: bool = True,
        upsampling: Upsampling = "cubic",
        convolutions: NonNegativeInt = 4,
        dropout: Fraction = 0.0,
    ) -> None:
        super().__init__()
        if len(grid) not in CONV:
            raise ValueError(f"grid={list(grid)}: 1 to 3 axes")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout}: between 0 and 1")
        self.grid, self.dropout = grid, dropout
        self.scales = (*(_divided(grid, divisors) if scales is None else _checked_scales(grid, scales)), grid)
        self.stages = nn.ModuleList(inner(dim) for _ in range(1 if shared else len(self.scales)))
        for scale, stage in zip(self.scales, self._quantizers(), strict=True):
            _check(stage, dim, scale)
        self.channels = self.dim = dim
        self.depth, self.codebook_sizes = self._quantizers()[0].depth, self._quantizers()[0].codebook_sizes
        self.down = nn.ModuleList(Resize(grid, scale) for scale in self.scales)
        self.up = nn.ModuleList(Resize(scale, grid, upsampling) for scale in self.scales)
        self.convolutions = nn.ModuleList(
            _Convolved(len(grid), dim) for _ in range(min(convolutions, len(self.scales)))
        )

    def code_grid(self, grid: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The scales."""
        if grid != self.grid:
            raise ValueError(f"grid={list(self.grid)}: the latents' grid is {list(grid)}; give that, and scales of it")
        return self.scales

    def forward(self, z: Tensor) -> Quantized:
        with in_float32(z.device):
            z = table.upcast(z)
            shared = self._quantizers()[0]
            if len(self.stages) == 1 and isinstance(shared, TableQuantizer):
                steps = self._of_one_table(z, shared)
            else:
                steps = self._chain(z, [stage.unchecked for stage in self._quantizers()])
            return self._sum(z, steps, used_stages(z, len(self.scales), self.dropout if self.training else 0.0))

    def embed(self, codes: Tensor) -> Tensor:
        """The sum of the scales' latents; codes ``(batch, d, positions)`` of the first scales alone are fine, too.

        ValueError where a scale is not whole.
        """
        with in_float32(codes.device):
            given = zip(self._quantizers(), split_parts(codes, self.scales), strict=False)
            latents = [stage.embed(part) for stage, part in given]
            return torch.stack([self._spread(number, part) for number, part in enumerate(latents)]).sum(0)

    def sample(self, z: Tensor) -> Quantized:
        """A sample from each scale given those before it; its kl is exact given these."""
        with in_float32(z.device):
            z = table.upcast(z)
            steps = self._chain(z, [stage.sample for stage in self._quantizers()])
            return self._sum(z, steps, used_stages(z, len(self.scales), 0.0))

    def _chain(self, z: Tensor, stages: Sequence[Callable[[Tensor], Quantized]]) -> list[_Step]:
        """Each stage applied to the residual of those before it, at its scale."""
        steps: list[_Step] = []
        residual = z
        for number, stage in enumerate(stages):
            given = self.down[number](residual)
            quantized = stage(given)
            steps.append(_Step(given, quantized, self._spread(number, quantized.z.detach())))
            # Detached, so that each stage's loss reaches the encoder; see residual.
            residual = residual - steps[-1].latents.detach()
        return steps

    def _of_one_table(self, z: Tensor, shared: TableQuantizer) -> list[_Step]:
        """The same of a shared table, which learns in the end, of all scales together."""
        batches: list[Assigned] = []

        def assign(given: Tensor) -> Quantized:
            quantized, assigned = shared.assign([shared], given)
            batches.append(assigned)
            return quantized

        if shared.training:
            shared.refresh([shared], self._left_without_error(z.detach()))
        steps = self._chain(z, [assign] * len(self.scales))
        if shared.training:
            rows, entries = ([batch[field] for batch in batches] for field in (0, 1))
            shared.learn([shared], Assigned(torch.cat(rows, 1), torch.cat(entries, 1)))
        return steps

    def _left_without_error(self, z: Tensor) -> Tensor:
        """What each scale would be given if the coarser ones had no error, ``(batch, dim, positions)``."""
        given, known = [], torch.zeros_like(z)
        for down, up in zip(self.down, self.up, strict=True):
            given.append(down(z - known).flatten(2))
            known = up(down(z))
        return torch.cat(given, 2)

    def _sum(self, z: Tensor, steps: list[_Step], used: Tensor) -> Quantized:
        e = total([step.latents for step in steps], used)
        # Past the table the gradient is that of z, as of a single quantizer. Where an inner quantizer learns from the
        # decoder, it does so through the difference to what it was given, whose gradient to z is 0 where the inner
        # one's is straight-through. Of these the mean, so that the gradient to z lies between that of z and an inner
        # one's: their sum subtracts that of z once a scale, and turns it around. The convolutions have no part in it.
        differences = [self._spread(n, step.quantized.z - step.given, frozen=True) for n, step in enumerate(steps)]
        learned = total(differences, used) / broadcast(used, z)
        quantized = [step.quantized for step in steps]
        loss = total([one.loss for one in quantized], used) / used
        if self.convolutions:
            loss = loss + table.distance(z.detach(), e)
        return Quantized(
            table.straight_through(z + learned, e),
            torch.cat([one.codes.flatten(2) for one in quantized], 2),
            loss,
            total([one.kl for one in quantized], used),
            _metrics(z, steps) | {"quantization_error": table.distance(z, e).mean().detach()},
        )

    def _spread(self, number: int, latents: Tensor, frozen: bool = False) -> Tensor:
        """A scale's latents on the whole grid; ``frozen``: with no gradient to the convolutions."""
        spread: Tensor = self.up[number](latents)
        if not self.convolutions:
            return spread
        convolved = self.convolutions[number * len(self.convolutions) // len(self.scales)]
        return cast(Tensor, convolved(spread, frozen))

    def _quantizers(self) -> list[Quantizer]:
        """One for each scale."""
        stages = cast(list[Quantizer], list(self.stages))
        return stages * len(self.scales) if len(stages) == 1 else stages


class _Step(NamedTuple):
    """A scale of a batch."""

    given: Tensor
    """What the coarser scales left, at the scale."""
    quantized: Quantized
    latents: Tensor
    """What it adds to the sum, on the whole grid, with a gradient to the convolutions."""


@final
class _Convolved(nn.Module):
    """A part of the latents as it is, the rest through a convolution."""

    def __init__(self, rank: int, dim: int) -> None:
        super().__init__()
        self.conv = conv(rank, dim, dim, 3)

    def forward(self, latents: Tensor, frozen: bool) -> Tensor:
        weight, bias = cast(Tensor, self.conv.weight), cast(Tensor, self.conv.bias)
        if frozen:
            weight, bias = weight.detach(), bias.detach()
        convolve = (F.conv1d, F.conv2d, F.conv3d)[latents.dim() - 3]
        return (1 - CONVOLVED) * latents + CONVOLVED * convolve(latents, weight, bias, padding=1)


def _metrics(z: Tensor, steps: list[_Step]) -> dict[str, Tensor]:
    """The inner quantizers' means over scales, and the error that the first n scales leave, for every n."""
    inner = [step.quantized.metrics for step in steps]
    metrics = {name: torch.stack([one[name] for one in inner]).mean(0) for name in inner[0]}
    known = torch.zeros_like(z)
    for number, step in enumerate(steps, 1):
        known = known + step.latents.detach()
        metrics[f"error_after_scale_{number}"] = table.distance(z, known).mean().detach()
    return metrics


def _divided(grid: tuple[int, ...], divisors: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    for divisor in divisors:
        if divisor < 2 or any(size % divisor for size in grid):
            raise ValueError(f"divisors={list(divisors)}: each at least 2, and a divisor of each axis of {list(grid)}")
    if list(divisors) != sorted(divisors, reverse=True):
        raise ValueError(f"divisors={list(divisors)}: from the largest, of the coarsest scale, to the smallest")
    return tuple(tuple(size // divisor for size in grid) for divisor in divisors)


def _checked_scales(grid: tuple[int, ...], scales: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    for scale in scales:
        if len(scale) != len(grid) or any(not 0 < size <= most for size, most in zip(scale, grid, strict=True)):
            raise ValueError(f"scales: {list(scale)} is no grid of {len(grid)} axes that is at most {list(grid)}")
    return scales


def _check(stage: Quantizer, dim: int, scale: tuple[int, ...]) -> None:
    if stage.channels != dim or stage.dim != dim:
        raise ValueError(
            f"the inner quantizer takes {stage.channels} channels and gives {stage.dim}, but the latents have {dim}:"
            " choose quantizer.inner.name=projected, which maps between them"
        )
    if not stage.depth:
        raise ValueError("a continuous bottleneck has no codes: choose an inner quantizer that has")
    if stage.code_grid(scale) != scale:
        raise ValueError("the inner quantizer's codes lie on a grid of their own: choose one whose codes do not")
