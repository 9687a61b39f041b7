"""What the discriminators of sound have in common: what they hear, and how layers become a judgement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from typing_extensions import Doc

from toolkit import DataSpec
from toolkit.discriminator import Judgement
from toolkit.nn.codebook import upcast
from toolkit_audio.waveform import scaled_to_waveform

PEAK = 0.8
"""Of a leveled sound."""
FAINT = 1e-3
"""A peak of less, -60 dB, is taken for this, so that silence is not made loud."""

Leveled = Annotated[
    bool,
    Doc("whether each example is first centered and brought to a peak of 0.8, as in DAC, so that loudness is unseen."),
]


def check_sound(data: DataSpec) -> None:
    """ValueError if the data has other axes than time."""
    if data.rank != 1:
        raise ValueError(f"data {data.shape} is not sound: one axis, of samples, is needed")


def heard(x: Tensor, data: DataSpec, leveled: bool) -> Tensor:
    """x on the scale of ``DataSpec.scale`` to the waveform ``(batch, channels, samples)``, in at least float32."""
    waveform = scaled_to_waveform(upcast(x), data)
    if not leveled:
        return waveform
    waveform = waveform - waveform.mean(-1, keepdim=True)
    return waveform * (PEAK / waveform.abs().amax(-1, keepdim=True).clamp(min=FAINT))


def normed(conv: nn.Module) -> nn.Module:
    """A convolution whose weights' norms are parameters of their own."""
    layer: nn.Module = weight_norm(conv)
    return layer


class Judge(nn.Module):
    """Layers with a leaky ReLU after each, whose outputs are the features, and one more that gives the logits."""

    def __init__(self, layers: Sequence[nn.Module], logits: nn.Module, slope: float) -> None:
        super().__init__()
        self.layers, self.logits, self.slope = nn.ModuleList(layers), logits, slope

    def forward(self, h: Tensor) -> Judgement:
        features = []
        for layer in self.layers:
            h = F.leaky_relu(layer(h), self.slope)
            features.append(h)
        return Judgement(self.logits(h), tuple(features))
