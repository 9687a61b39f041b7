"""The encoder of Mimi."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import final

from torch import Tensor, nn

from toolkit import DataSpec, Encoder
from toolkit.nn.context import encoder_context
from toolkit.ranges import PositiveInt
from toolkit_audio.causal_conv import KERNEL, LAST_KERNEL, CausalConv, Dilations, causal_units
from toolkit_audio.sliding_transformer import MLP, Heads, Layers, SlidingTransformer, Window
from toolkit_audio.starts import SPEECH
from toolkit_audio.waveform import scaled_to_waveform


@final
class MimiEncoder(Encoder):
    """SEANet's encoder, a transformer over what it gives, and one more stride: causal, for speech at few codes.

    Mimi (Défossez et al. 2024, arXiv:2410.00037, 3.3), whose sizes are the defaults, with ``dim=512``: 24 kHz to 12.5
    latents per second. The latents depend on the samples of the windows of all layers before them, 80 s at these sizes.
    Its input is the waveform, also for mu-law levels.

    Args:
        hidden: channels before the first stride, each of which doubles them.
        strides: of the convolutions, of window 2 * stride; with down, their product is samples per code.
        down: stride of the convolution after the transformer; what is before its first position is that again.
    """

    rank = 1
    causal = True

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        hidden: PositiveInt = 64,
        strides: tuple[PositiveInt, ...] = (4, 5, 6, 8),
        down: PositiveInt = 2,
        dilations: Dilations = (1,),
        layers: Layers = 8,
        heads: Heads = 8,
        window: Window = 250,
        mlp: MLP = 2048,
    ) -> None:
        super().__init__()
        self.data, self.stride = data, (prod(strides) * down,)
        widths = [hidden * 2**k for k in range(len(strides) + 1)]
        network: list[nn.Module] = [CausalConv(data.channels, hidden, KERNEL, gain=1 / SPEECH)]
        for (channels, wider), stride in zip(pairwise(widths), strides, strict=True):
            strided = CausalConv(channels, wider, 2 * stride, stride=stride)
            network += [*causal_units(channels, dilations), nn.ELU(), strided]
        self.network = nn.Sequential(*network, nn.ELU(), CausalConv(widths[-1], dim, LAST_KERNEL))
        self.transformer = SlidingTransformer(dim, layers=layers, heads=heads, window=window, mlp=mlp)
        self.down = CausalConv(dim, dim, 2 * down, stride=down, bias=False, before="replicate")
        self.context = encoder_context(self.stride[0], [self.network, self.transformer, self.down])

    def forward(self, x: Tensor) -> Tensor:
        """x ``(batch, 1, samples)``."""
        z: Tensor = self.down(self.transformer(self.network(scaled_to_waveform(self.data.scale(x), self.data))))
        return z
