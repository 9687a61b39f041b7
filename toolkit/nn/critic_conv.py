"""Convolutions of discriminators: strided, leaky, and normalized by group or by spectral norm."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Annotated, Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.device import in_float32
from toolkit.nn.conv import CONV
from toolkit.spec import DataSpec

Norm = Annotated[
    Literal["group", "spectral", "none"],
    Doc(
        "group: of the activations, within an example (Wu & He 2018); spectral: of the weights, by their largest"
        " singular value (Miyato et al. 2018)."
    ),
]
LEAK = 0.2
"""Slope of the leaky ReLUs below 0, that of Radford et al. 2016."""
GROUPS, GROUP = 32, 4
"""Groups at most, and channels in each at least, where the width allows."""
BEGINNING = 15
"""Power iterations at the start of a spectral norm."""

_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def check_data(data: DataSpec) -> None:
    """ValueError unless convolutions can judge the data."""
    if not data.ordered:
        raise ValueError("tells data from reconstructions by their numbers, but this data is unordered: choose elbo")
    if data.rank not in CONV:
        raise ValueError(f"convolves one to three axes, and this data has {data.rank}: {data.axes}")


def halved(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The positions after a ``halving``: of an axis of fewer than four as many as before."""
    return tuple(length // 2 if length >= 4 else length for length in axes)


def halving(inputs: int, outputs: int, axes: tuple[int, ...], norm: str) -> nn.Module:
    """A layer with a kernel of 4 and a stride of 2 along each axis that is long enough, else of 3 and 1."""
    kernels = tuple(4 if length >= 4 else 3 for length in axes)
    return layer(inputs, outputs, kernels, tuple(kernel // 2 for kernel in kernels), norm)


def layer(inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...], norm: str) -> nn.Module:
    """Convolution, norm and leaky ReLU. The padding is 1 for a kernel of 3 or 4, and 0 for one of 1."""
    parts = [plain(inputs, outputs, kernel, stride, norm)]
    if norm == "group":
        groups = 1 if outputs % GROUP else gcd(GROUPS, outputs // GROUP)
        parts.append(nn.GroupNorm(groups, outputs))
    return nn.Sequential(*parts, nn.LeakyReLU(LEAK))


def plain(inputs: int, outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...], norm: str) -> nn.Module:
    """The convolution alone, of weights with a spectral norm of 1 where that is the norm."""
    padding = tuple(int(length > 1) for length in kernel)
    convolution = CONV[len(kernel)](inputs, outputs, kernel, stride=stride, padding=padding)
    return SpectralConv(convolution) if norm == "spectral" else convolution


@final
class SpectralConv(nn.Module):
    """A convolution with its weights divided by their largest singular value (Miyato et al. 2018, arXiv:1802.05957).

    ``direction`` is the output to which they map most, by one power iteration per pass of training: a function of the
    weights, so that all ranks have the same. It is fixed in eval mode.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride, self.padding = convolution.stride, convolution.padding
        self.rank = convolution.weight.dim() - 2
        self.direction: Tensor
        self.register_buffer("direction", F.normalize(torch.randn(len(self.weight)), dim=0))
        for _ in range(BEGINNING):
            self._iterate()

    def forward(self, x: Tensor) -> Tensor:
        with in_float32(x.device):
            if self.training:
                self._iterate()
            # the derivative of |W' u| at the u that maximizes it is that of the singular value
            largest = (self.weight.flatten(1).T @ self.direction.clone()).norm()
            weight = self.weight / largest.clamp(min=1e-12)
        return _CONVOLVE[self.rank](x, weight, self.bias, self.stride, self.padding)

    @torch.no_grad()
    def _iterate(self) -> None:
        matrix = self.weight.flatten(1)
        direction = F.normalize(matrix @ (matrix.T @ self.direction), dim=0)
        if torch.compiler.is_compiling():  # a compiled backward pass may compute the forward one again
            self.direction = direction
        else:
            self.direction.copy_(direction)
