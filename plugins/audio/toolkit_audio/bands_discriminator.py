"""A discriminator that sees spectra band by band."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit import DataSpec, Discriminator
from toolkit.discriminator import Judgement
from toolkit.ranges import Fraction, PositiveInt
from toolkit_audio.judging import Leveled, check_sound, heard, normed
from toolkit_audio.spectra import check_windows, complex_spectrum

SLOPE = 0.1


@final
class BandsDiscriminator(Discriminator):
    """DAC's multi-band multi-scale STFT discriminator (Kumar et al. 2023, arXiv:2306.06546, section 3.4).

    For each window the complex spectrum is cut into bands, real and imaginary parts as channels; each band has five
    convolutions of its own, three of stride 2 over frequencies, so that high ones, of which there is little, are judged
    by themselves. Side by side again, one more gives the logits. All have weight norm. Sounds go on backwards at their
    ends. At its defaults 1.41 million parameters. The features are those of the bands, one after the other.

    Args:
        windows: samples of the Hann windows; hops are a quarter of these.
        edges: where a band ends and the next begins, in shares of the frequencies, ascending.
        hidden: channels of the layers.
    """

    def __init__(
        self,
        data: DataSpec,
        *,
        windows: tuple[PositiveInt, ...] = (2048, 1024, 512),
        edges: tuple[Fraction, ...] = (0.1, 0.25, 0.5, 0.75),
        hidden: PositiveInt = 32,
        leveled: Leveled = True,
    ) -> None:
        super().__init__()
        check_sound(data)
        check_windows(windows)
        self.data, self.sizes, self.leveled = data, windows, leveled
        bands = [_bands(size // 2 + 1, edges, size) for size in windows]
        for size in windows:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
        self.judges = nn.ModuleList(_BandsJudge(2 * data.channels, hidden, of_one) for of_one in bands)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        """x ``(batch, channels, samples)``, of any number; logits ``(batch, 1, frames, frequencies / 8)``."""
        waveform = heard(x, self.data, self.leveled)
        windows = [self.get_buffer(f"window_{size}") for size in self.sizes]
        spectra = [complex_spectrum(waveform, window, len(window) // 4) for window in windows]
        return [judge(spectrum) for judge, spectrum in zip(self.judges, spectra, strict=True)]


class _BandsJudge(nn.Module):
    """What one window's spectra are judged by."""

    def __init__(self, inputs: int, hidden: int, bands: list[slice]) -> None:
        super().__init__()
        self.slices = bands
        self.bands = nn.ModuleList(nn.ModuleList(_layers(inputs, hidden)) for _ in bands)
        self.logits = normed(nn.Conv2d(hidden, 1, 3, padding=1))

    def forward(self, spectrum: Tensor) -> Judgement:
        """spectrum ``(batch, 2 * channels, frames, frequencies)``."""
        features, ends = [], []
        for frequencies, layers in zip(self.slices, self.bands, strict=True):
            h = spectrum[..., frequencies]
            for layer in layers:  # type: ignore[attr-defined]
                h = F.leaky_relu(layer(h), SLOPE)
                features.append(h)
            ends.append(h)
        return Judgement(self.logits(torch.cat(ends, -1)), tuple(features))


def _layers(inputs: int, hidden: int) -> list[nn.Module]:
    first = normed(nn.Conv2d(inputs, hidden, (3, 9), padding=(1, 4)))
    strided = [normed(nn.Conv2d(hidden, hidden, (3, 9), (1, 2), (1, 4))) for _ in range(3)]
    return [first, *strided, normed(nn.Conv2d(hidden, hidden, 3, padding=1))]


def _bands(frequencies: int, edges: tuple[float, ...], size: int) -> list[slice]:
    bounds = [0, *(int(edge * frequencies) for edge in edges), frequencies]
    if any(begin >= end for begin, end in pairwise(bounds)):
        raise ValueError(
            f"edges={list(edges)}: ascending, and far enough apart for the {frequencies} frequencies of windows={size}"
        )
    return [slice(begin, end) for begin, end in pairwise(bounds)]
