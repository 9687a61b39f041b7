"""Magnitudes over time and frequency."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.device import in_float32
from toolkit.nn.constant import constant
from toolkit_audio.seanet import reflected

FAINTEST = 1e-5
"""Magnitudes below this, -100 dB, are clamped."""


def magnitudes(waveform: Tensor, window: Tensor, hop: int) -> Tensor:
    """``(batch, samples)`` to ``(batch, len(window) // 2 + 1, frames)``: a frame for each hop, the first at sample 0.

    A sine of amplitude 1 has magnitude 1 at its peak. The ends are padded with silence.
    """
    size = len(window)
    padded = F.pad(waveform, (size // 2, size // 2))
    spectrum = torch.stft(padded, size, hop, window=window, center=False, return_complex=True)
    return spectrum.abs() * (2 / window.sum())


def complex_spectrum(waveform: Tensor, window: Tensor, hop: int) -> Tensor:
    """``(batch, channels, samples)`` to ``(batch, 2 * channels, frames, len(window) // 2 + 1)``: all real parts, then
    all imaginary ones; in at least float32, also under autocast.

    A frame for each hop, whose window lies around it. At its ends the sound goes on backwards, so that there are frames
    for its first and its last sample, too.
    """
    size, samples = len(window), waveform.shape[-1]
    left = (size - hop) // 2
    whole = reflected(waveform, left, size - hop - left + -samples % hop)
    with in_float32(waveform.device):
        rows, window = whole.flatten(0, 1), window.to(waveform.dtype)
        spectrum = torch.stft(rows, size, hop, window=window, center=False, return_complex=True).mT
        spectrum = spectrum.unflatten(0, waveform.shape[:2])
        return torch.cat([spectrum.real, spectrum.imag], 1)


def check_windows(windows: tuple[int, ...]) -> None:
    """ValueError if there are none, or one is too short for hops of a quarter of it."""
    if not windows or min(windows) < 4:
        raise ValueError(f"windows={list(windows)}: at least one, of 4 samples or more")


def inverse_stft(real: Tensor, imaginary: Tensor, window: Tensor, hop: int) -> Tensor:
    """Spectra ``(batch, channels, len(window) // 2 + 1, frames)`` to the sound ``(batch, channels, frames * hop)``.

    A frame's window lies around its own hop, ``(len(window) - hop) // 2`` samples of it before. Where windows overlap,
    the sound is the one whose spectra are nearest to these (Griffin & Lim 1984, eq. 6): of spectra of a sound, that
    sound.
    """
    size, frames = len(window), real.shape[-1]
    waves = torch.fft.irfft(torch.complex(real, imaginary), size, dim=2) * window.unsqueeze(1)
    weights = window.square().view(1, size, 1).expand(-1, -1, frames)
    before = (size - hop) // 2
    own = slice(before, before + frames * hop)
    sound = _overlapped(waves.flatten(0, 1), hop)[:, own] / _overlapped(weights, hop)[:, own]
    return sound.view(*real.shape[:2], frames * hop)


def _overlapped(waves: Tensor, hop: int) -> Tensor:
    """The sum ``(n, samples)`` of waves ``(n, size, frames)``, each a hop later than the one before."""
    size, frames = waves.shape[1:]
    samples = (frames - 1) * hop + size
    return F.fold(waves, (1, samples), (1, size), stride=(1, hop)).view(-1, samples)


def log_mel(waveform: Tensor, rate: int, size: int, hop: int, bands: int = 80) -> Tensor:
    """``(batch, samples)`` to the natural log of mel magnitudes, ``(batch, bands, frames)``, of Hann windows."""
    device = waveform.device
    with in_float32(device):
        mel = _filters(bands, size, rate, device) @ magnitudes(waveform, _hann(size, device), hop)
        return mel.clamp(min=FAINTEST).log()


@constant
def mel_filters(bands: int, size: int, rate: int) -> Tensor:
    """``(bands, size // 2 + 1)``: triangles, evenly spaced on the mel scale (O'Shaughnessy 1987) up to rate / 2."""
    top = 2595 * torch.log10(torch.tensor(1 + rate / 2 / 700, dtype=torch.float64))
    edges = 700 * (10 ** (torch.linspace(0, float(top), bands + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()


@constant
def _filters(bands: int, size: int, rate: int, device: torch.device) -> Tensor:
    return mel_filters(bands, size, rate).to(device)


@constant
def _hann(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, device=device)
