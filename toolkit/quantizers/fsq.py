"""A fixed lattice: every channel rounded to a few levels."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal, NamedTuple, final, get_args

import torch
from torch import Tensor
from typing_extensions import Doc

from toolkit.nn import codebook as table
from toolkit.nn import signs
from toolkit.nn.lattice import fixed
from toolkit.quantizer import Quantized, Quantizer
from toolkit.ranges import Fraction, PositiveInt

MARGIN = 1e-3
"""How far bounded latents reach beyond the outermost levels, as a share, so that rounding can give those, too."""

EXACT = 2**24
"""Up to which all whole numbers are exact in float32."""

FARTHEST = 0.25
"""The most of it, in levels: from 1/2 on, rounding would give a level that does not exist."""

EVEN = 0.8
"""Slope of the even bound: ``tanh(0.8 z)`` is ``2 sigmoid(1.6 z) - 1``."""

_Bound = Literal["tanh", "even"]
_Spacing = Literal["zero", "symmetric", "middles"]

Bound = Annotated[
    _Bound,
    Doc(
        "what keeps latents finite: tanh(z), or even, 2 sigmoid(1.6 z) - 1, under which normal latents take all values"
        " about equally often (iFSQ, arXiv:2601.17124)."
    ),
]
Spacing = Annotated[
    _Spacing,
    Doc(
        "where levels lie. zero: at whole numbers, so that one is 0, and an even number of levels reaches farther below"
        " than above; symmetric: evenly from -1 to 1, both included (arXiv:2411.19842); middles: in the middle of equal"
        " parts of [-1, 1], so that none is met less often for being outermost (arXiv:2602.17133)."
    ),
]


class _Steps(NamedTuple):
    """How bounded latents become whole numbers, 0 at the middle level, and these values; each broadcasts over z."""

    shift: Tensor
    """What is added before the bound."""
    reach: Tensor
    """What the bound's values are multiplied by."""
    offset: Tensor
    """How far the middle of the range lies above the middle level."""
    unit: Tensor
    """Levels from 0 to 1."""
    gap: Tensor | None = None
    """How far the middle level lies above 0, in levels, where it does."""

    def values(self, steps: Tensor) -> Tensor:
        return (steps if self.gap is None else steps + self.gap) / self.unit


@final
class FSQQuantizer(Quantizer):
    """Each channel is bounded and rounded to one of its levels; nothing is learned (FSQ, Mentzer et al. 2023).

    A channel of L levels becomes ``round(tanh(z + shift) * reach - offset)``, where reach is a little above
    ``(L - 1) / 2``, offset is 0 for odd L and 1/2 for even L, and shift makes 0 stay 0. Divided by ``L // 2`` the
    values are in [-1, 1]. One code numbers all combinations; the first channel's level changes fastest. Computed in
    at least float32: in bfloat16 neighboring levels are confused.

    The other spacings have no shift: ``symmetric`` has reach ``(L - 1) / 2`` and levels ``2 i / (L - 1) - 1``,
    ``middles`` has reach ``L / 2`` and levels ``(2 i + 1) / L - 1``.

    Ignores the dim of the configuration: its latents have one channel per entry of ``levels``, before and after.

    Args:
        levels: of each channel, at least 3, and 2 where no level is at zero; the paper advises 5 or more. The
            codebook's size is their product.
        noise: share of the numbers to which training adds noise in place of rounding: uniform, as wide as a level, and
            left out where it would leave the range. Its gradient is exact. 1 is finite scalar perturbation (VP-VAE,
            arXiv:2602.17133), 1/2 what stable-codec trains with (arXiv:2411.19842).
    """

    depth = 1

    def __init__(
        self,
        *,
        levels: tuple[PositiveInt, ...] = (8, 5, 5, 5),
        bound: Bound = "tanh",
        spacing: Spacing = "zero",
        noise: Fraction = 0.0,
    ) -> None:
        super().__init__()
        _check(levels, bound, spacing, noise)
        self.channels = self.dim = len(levels)
        self.codebook_sizes = (prod(levels),)
        self.bound, self.spacing, self.noise = bound, spacing, noise
        self.levels: Tensor
        self.strides: Tensor
        self.radius: Tensor
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self._strides = [prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("strides", torch.tensor(self._strides), persistent=False)
        self.register_buffer("radius", (self.levels // 2).to(torch.get_default_dtype()), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        z = table.upcast(z)
        steps, radius = self._steps(z), _along(self.radius, z)
        bounded = self._bound(z, steps)
        rounded = bounded.detach().round()
        if self.spacing == "middles":  # its range ends half a level beyond the outermost ones
            rounded = torch.minimum(rounded.clamp(min=-radius), _along(self.levels, z) - 1 - radius)
        codes = self._codes(rounded + radius)
        quantized = fixed(steps.values(bounded), steps.values(rounded), codes, self.codebook_sizes[0])
        if not (self.training and self.noise):
            return quantized
        noisy = steps.values(self._moved(bounded, steps))
        return quantized._replace(z=torch.where(torch.rand_like(noisy) < self.noise, noisy, quantized.z))

    def embed(self, codes: Tensor) -> Tensor:
        radius, digits = _along(self.radius, codes), codes // _along(self.strides, codes) % _along(self.levels, codes)
        steps = self._steps(self.radius.new_zeros((1, self.channels, *[1] * (codes.dim() - 2))))
        return steps.values(digits - radius)

    def _codes(self, digits: Tensor) -> Tensor:
        """Digits ``(batch, channels, *grid)`` as codes: summed as floats where these are exact, which is faster."""
        exact = self.codebook_sizes[0] <= EXACT
        digits = digits if exact else digits.long()
        first, *others = digits.unbind(1)
        for stride, digit in zip(self._strides[1:], others, strict=True):
            first = first.add(digit, alpha=stride)
        return first.long().unsqueeze(1)

    def _steps(self, z: Tensor) -> _Steps:
        levels, radius = _along(self.levels, z), _along(self.radius, z)
        outermost, offset = (levels - 1).to(z) / 2, (1 - levels % 2) / 2
        if self.spacing == "zero":
            reach = outermost + (outermost * MARGIN).clamp(max=FARTHEST)
            return _Steps((offset / reach).atanh(), reach, offset, radius)
        reach = outermost if self.spacing == "symmetric" else outermost + 0.5
        return _Steps(torch.zeros_like(offset), reach, offset, reach, offset)

    def _bound(self, z: Tensor, steps: _Steps) -> Tensor:
        scaled = z * EVEN if self.bound == "even" else z
        return (scaled + steps.shift).tanh() * steps.reach - steps.offset

    def _moved(self, bounded: Tensor, steps: _Steps) -> Tensor:
        """Bounded latents with noise, where these stay in the bound's range."""
        noisy = bounded + torch.rand_like(bounded) - 0.5
        return torch.where((noisy + steps.offset).abs() < steps.reach, noisy, bounded)


def _check(levels: tuple[int, ...], bound: str, spacing: str, noise: float) -> None:
    for name, value, known in (("bound", bound, _Bound), ("spacing", spacing, _Spacing)):
        if value not in get_args(known):
            raise ValueError(f"{name}={value}: one of {', '.join(get_args(known))}")
    if not 0 <= noise <= 1:
        raise ValueError(f"noise={noise}: between 0 and 1")
    least = 3 if spacing == "zero" else 2
    if not levels or min(levels) < least:
        other = " (2: lfq or bsq, or another spacing than zero)" if least == 3 else ""
        raise ValueError(f"levels={list(levels)}: at least one channel, of at least {least} levels each{other}")
    if prod(levels) > 2**signs.LARGEST:
        raise ValueError(
            f"levels={list(levels)}: {prod(levels)} codes, at most {2**signs.LARGEST}; choose quantizer=product of"
            " several fsq"
        )


def _along(numbers: Tensor, z: Tensor) -> Tensor:
    """One number per channel, broadcast against ``(batch, channel, *grid)``."""
    return numbers.view(-1, *[1] * (z.dim() - 2))
