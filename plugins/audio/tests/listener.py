"""An ear that knows the voices of audio_vowels, and judges by sound alone what is said and how high."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from toolkit_audio.spectra import log_mel
from toolkit_audio.vowels import PHONES, SPEAKERS, VowelsDataset

RATE = 8000
LOWEST, HIGHEST = 70, 330
"""Hz between which a voice's pitch lies."""
FRAME = 0.05
"""Seconds that a pitch, or a phone, is told from."""
VALLEY = 3.5
"""Nats below its loudest band (30 dB) at which a spectrum's bands count as silent: noise hides valleys, not peaks."""
QUIET = 3.0
"""Nats below the loudest moment (26 dB) at which nothing is said."""


class Listener:
    """Knows of each voice the mean spectrum of every vowel in training examples, and the covariance around it."""

    def __init__(self, examples: int = 400) -> None:
        data = VowelsDataset(form="float", train_size=examples)
        heard = [data.example("train", index, None) for index in range(examples)]
        spectra, _ = listened(torch.cat([each["x"] for each in heard]))
        phones = torch.stack([each["phone"] for each in heard])
        speakers = torch.stack([each["speaker"] for each in heard])
        self.means, self.whiteners = [], []
        for speaker in range(len(SPEAKERS)):
            rows, vowels = spectra[speakers == speaker], phones[speakers == speaker]
            means = torch.stack([rows[vowels == vowel].mean(0) for vowel in range(1, len(PHONES))])
            around = (rows - means[vowels - 1])[vowels > 0]
            covariance = around.T @ around / len(around) + 0.05 * torch.eye(around.shape[1])
            self.means.append(means)
            self.whiteners.append(torch.linalg.cholesky(torch.linalg.inv(covariance)))

    def phones(self, sound: Tensor, speaker: int) -> Tensor:
        """What a voice says in sound ``(batch, samples)``: ``(batch, hundredths)``."""
        spectra, silent = listened(sound)
        white = self.whiteners[speaker]
        nearest = torch.cdist(spectra @ white, self.means[speaker] @ white).argmin(-1) + 1
        return nearest.masked_fill(silent, 0)


def listened(sound: Tensor) -> tuple[Tensor, Tensor]:
    """Log-mel spectra ``(batch, hundredths, bands)`` against their loudest bands, and where it is silent."""
    hop = RATE // 100
    mel = log_mel(sound[:, hop // 2 :].float(), RATE, round(FRAME * RATE), hop, 40)[:, :, : sound.shape[1] // hop]
    loudness = mel.exp().square().sum(1).log() / 2
    shape = (mel - mel.amax(1, keepdim=True)).clamp(min=-VALLEY)
    return shape.transpose(1, 2), loudness < loudness.amax(1, keepdim=True) - QUIET


def pitch(sound: Tensor) -> float:
    """The median over loud frames of the pitch in Hz: the shortest period at which a frame is almost as like itself as
    at any."""
    frames = sound.double().unfold(0, round(FRAME * RATE), round(FRAME * RATE / 2))
    frames = frames[frames.square().mean(1) > 0.1 * frames.square().mean(1).max()]
    frames = frames - frames.mean(1, keepdim=True)
    spectra = torch.fft.rfft(frames, 2 * frames.shape[1])
    alike = torch.fft.irfft(spectra.abs().square())[:, : RATE // LOWEST]
    overlap = frames.shape[1] - torch.arange(alike.shape[1])
    alike = alike / overlap / (alike[:, :1] / frames.shape[1])
    shortest = RATE // HIGHEST
    found = []
    for row in alike[:, shortest:]:
        if not row.max() > 0:
            continue
        good = (row > 0.9 * row.max()).nonzero()[0].item()
        peak = good + int(row[good : good + 6].argmax())
        found.append(RATE / (shortest + peak))
    return float(np.median(found))
