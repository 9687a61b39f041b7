"""The speaker matters: said again in another voice, words stay and the pitch is the other's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import toolkit
from toolkit.__main__ import run
from toolkit_audio.phones import most_frequent
from toolkit_audio.vowels import SPEAKERS, VowelsDataset
from toolkit_audio.waveform import to_waveform

RATE = 8000
LOWEST, HIGHEST = 70, 330
"""Hz between which a voice's pitch lies."""
FRAME = 0.05
"""Seconds that a pitch is estimated from."""


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
        good = (row > 0.9 * row.max()).nonzero()[0].item()
        peak = good + int(row[good : good + 6].argmax())
        found.append(RATE / (shortest + peak))
    return float(np.median(found))


@pytest.mark.parametrize("name", SPEAKERS)
def test_the_pitch_estimate_finds_every_voice(name: str) -> None:
    dataset = VowelsDataset(form="float", seconds=2.0)
    speaker = list(SPEAKERS).index(name)
    indices = [i for i in range(40) if int(dataset.example("train", i, None)["speaker"]) == speaker][:3]
    for index in indices:
        assert pitch(dataset.example("train", index, None)["x"][0]) == pytest.approx(SPEAKERS[name].pitch, rel=0.05)


def phones_heard(model: toolkit.Model, data: VowelsDataset, x: Tensor) -> Tensor:
    """The phone of each code of x, by the phones that codes fall on in training examples."""
    codes, phones = [], []
    for start in range(0, 256, 64):
        examples = [data.example("train", i, None) for i in range(start, start + 64)]
        codes.append(model.encode(torch.stack([example["x"] for example in examples]))[:, 0])
        phones.append(torch.stack([example["phone"] for example in examples])[:, 2::4])
    table = most_frequent(torch.cat(codes).flatten(), torch.cat(phones).flatten(), model.latent.codebook_sizes[0], 6)
    return table[model.encode(x)[:, 0]]


@pytest.mark.slow
def test_another_voice_says_the_same_with_its_own_pitch(tmp_path: Path) -> None:
    """Trained for minutes on a CPU: every voice, said again as every other, has the other's pitch within 10 % and, of
    the codes of what it says, those of the same phones."""
    out = tmp_path / "run"
    assert run(["train", "experiment=audio_vowels", "stage=autoencoder", f"hydra.run.dir={out}"]) == 0
    model, data = toolkit.load(out), VowelsDataset(seconds=1.28)
    figures = []
    for target, voice in enumerate(SPEAKERS.values()):
        examples = [data.example("test", i, None) for i in range(20)]
        others = [example for example in examples if int(example["speaker"]) != target][:4]
        x = torch.stack([example["x"] for example in others])
        torch.manual_seed(0)
        made = model.reconstruct(x, {"speaker": torch.full((len(x),), target)})
        heard = torch.stack([torch.tensor(pitch(to_waveform(one, model.spec)[0])) for one in made])
        truth = torch.stack([example["phone"] for example in others])[:, 2::4]
        kept = float((phones_heard(model, data, made) == truth).double().mean())
        was = float((phones_heard(model, data, x) == truth).double().mean())
        figures.append((voice.pitch, float(heard.median()), was, kept))
        print(f"to {voice.pitch:.0f} Hz: {heard.median():.0f} Hz; phones right {was:.0%} before, {kept:.0%} after")
    for wanted, got, was, kept in figures:
        assert got == pytest.approx(wanted, rel=0.1)
        assert kept > 0.75 * was
