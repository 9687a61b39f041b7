"""A discriminator that sees spectra, their phases included, at several resolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from toolkit import DataSpec, Discriminator
from toolkit.discriminator import Judgement
from toolkit.ranges import PositiveInt
from toolkit_audio.judging import Judge, Leveled, check_sound, heard, normed
from toolkit_audio.spectra import check_windows, complex_spectrum

KERNEL = (3, 9)
"""Over frames and frequencies."""
DILATIONS = (1, 2, 4)
"""Over frames."""
SLOPE = 0.2


@final
class SpectraDiscriminator(Discriminator):
    """EnCodec's multi-scale STFT discriminator (Défossez et al. 2022, arXiv:2210.13438, section 3.4).

    For each window a network sees the complex spectrum of the waveform, real and imaginary parts as channels, as a
    picture of frames and frequencies: a convolution, three of stride 2 over frequencies that are dilated by 1, 2 and 4
    over frames, and one more, with weight norm. A window's energy is 1. As published, frames lie within the sound; here
    there is one for each hop, so that the ends are judged, too. At its defaults 0.47 million parameters.

    Args:
        windows: samples of the Hann windows; hops are a quarter of these.
        hidden: channels of the layers.
    """

    def __init__(
        self,
        data: DataSpec,
        *,
        windows: tuple[PositiveInt, ...] = (2048, 1024, 512, 256, 128),
        hidden: PositiveInt = 32,
        leveled: Leveled = False,
    ) -> None:
        super().__init__()
        check_sound(data)
        check_windows(windows)
        self.data, self.sizes, self.leveled = data, windows, leveled
        for size in windows:
            window = torch.hann_window(size)
            self.register_buffer(f"window_{size}", window / window.norm(), persistent=False)
        self.judges = nn.ModuleList(_judge(2 * data.channels, hidden) for _ in windows)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        """x ``(batch, channels, samples)``, of any number; logits ``(batch, 1, frames, frequencies / 8)``."""
        waveform = heard(x, self.data, self.leveled)
        windows = [self.get_buffer(f"window_{size}") for size in self.sizes]
        spectra = [complex_spectrum(waveform, window, len(window) // 4) for window in windows]
        return [judge(spectrum) for judge, spectrum in zip(self.judges, spectra, strict=True)]


def _judge(inputs: int, hidden: int) -> Judge:
    middle = KERNEL[0] // 2, KERNEL[1] // 2
    layers = [normed(nn.Conv2d(inputs, hidden, KERNEL, padding=middle))]
    layers += [
        normed(nn.Conv2d(hidden, hidden, KERNEL, (1, 2), (dilation * middle[0], middle[1]), (dilation, 1)))
        for dilation in DILATIONS
    ]
    layers.append(normed(nn.Conv2d(hidden, hidden, 3, padding=1)))
    return Judge(layers, normed(nn.Conv2d(hidden, 1, 3, padding=1)), SLOPE)
