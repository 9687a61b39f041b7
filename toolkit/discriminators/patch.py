"""A convolutional network whose every output judges a patch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor, nn

from toolkit.discriminator import Discriminator, Judgement
from toolkit.nn.critic_conv import Norm, check_data, halved, halving, layer, plain
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit.spec import DataSpec

MOST = 8
"""The widest layer, in widths of the first."""


@final
class PatchDiscriminator(Discriminator):
    """PatchGAN (Isola et al. 2017, arXiv:1611.07004, section 3.2.2): strided convolutions with leaky ReLUs, and a logit
    for every patch that the last of them sees, on data of one to three axes.

    The first ``layers`` halve the axes and double the channels, up to eight times ``width``; one more keeps the axes,
    and the last gives the logits. With three layers at a width of 64 it is the discriminator of VQGAN (Esser et al.
    2021), but for the norm, which there is that of a batch. No norm of activations follows the first layer. An axis of
    fewer than four positions is not halved further.

    Args:
        width: channels of the first layer.
        layers: layers that halve the axes; with three a logit sees 70 positions along each, as in the paper.
    """

    def __init__(
        self, data: DataSpec, *, width: PositiveInt = 64, layers: NonNegativeInt = 3, norm: Norm = "group"
    ) -> None:
        super().__init__()
        check_data(data)
        if width < 1:
            raise ValueError(f"width={width}: at least 1")
        if layers < 0:
            raise ValueError(f"layers={layers}: at least 0")
        axes, channels, blocks = data.axes, data.channels, list[nn.Module]()
        for number in range(layers):
            outputs = width * min(2**number, MOST)
            blocks.append(halving(channels, outputs, axes, norm if number or norm == "spectral" else "none"))
            axes, channels = halved(axes), outputs
        kernel = tuple(4 if length >= 4 else 3 for length in axes)
        ones, outputs = (1,) * data.rank, width * min(2**layers, MOST)
        self.layers = nn.ModuleList([*blocks, layer(channels, outputs, kernel, ones, norm)])
        axes = tuple(length - 1 if length >= 4 else length for length in axes)
        kernel = tuple(4 if length >= 4 else 3 for length in axes)
        self.logits = plain(outputs, 1, kernel, ones, norm)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        features = []
        for block in self.layers:
            x = block(x)
            features.append(x)
        return [Judgement(self.logits(x), tuple(features))]
