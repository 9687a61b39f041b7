"""The speaker matters: said again in another voice, words stay and the pitch is the other's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import toolkit
from toolkit.__main__ import run
from toolkit_audio.phones import most_frequent
from toolkit_audio.vowels import PHONES, SPEAKERS, VowelsDataset
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
        if not row.max() > 0:
            continue
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


class Conversion(NamedTuple):
    """Utterances of other voices, said again in one."""

    wanted: float
    """Hz of the voice."""
    heard: float
    """Hz, the median over utterances."""
    before: float
    """Share of the codes of the utterances from which the phone is told right."""
    after: float
    """The same of the codes of what was said."""


def phones_of_codes(model: toolkit.Model, data: VowelsDataset) -> Tensor:
    """Each code's phone: the one that it falls on most often in training examples."""
    codes, phones = [], []
    for start in range(0, 256, 64):
        examples = [data.example("train", i, None) for i in range(start, start + 64)]
        codes.append(model.encode(torch.stack([example["x"] for example in examples]))[:, 0])
        phones.append(torch.stack([example["phone"] for example in examples])[:, 2::4])
    return most_frequent(
        torch.cat(codes).flatten(), torch.cat(phones).flatten(), model.latent.codebook_sizes[0], len(PHONES)
    )


def conversions(model: toolkit.Model, each: int = 4) -> list[Conversion]:
    """For every voice: as many test utterances of others, of 1.28 s, said in it."""
    data = VowelsDataset(seconds=1.28)
    examples = [data.example("test", i, None) for i in range(8 * each)]
    pairs = [(e, t) for t in range(len(SPEAKERS)) for e in [e for e in examples if int(e["speaker"]) != t][:each]]
    x, truth = (torch.stack([e[key] for e, _ in pairs]) for key in ("x", "phone"))
    made = model.reconstruct(x, {"speaker": torch.tensor([t for _, t in pairs])})
    table = phones_of_codes(model, data)
    before, after = ((table[model.encode(y)[:, 0]] == truth[:, 2::4]).double().mean(1) for y in (x, made))
    heard = [pitch(to_waveform(y, model.spec)[0]) for y in made]
    found = []
    for target, voice in enumerate(SPEAKERS.values()):
        rows = slice(target * each, (target + 1) * each)
        found.append(
            Conversion(
                voice.pitch, float(np.median(heard[rows])), float(before[rows].mean()), float(after[rows].mean())
            )
        )
    return found


@pytest.mark.slow
def test_another_voice_says_the_same_with_its_own_pitch(tmp_path: Path) -> None:
    """Trained for ten minutes on a CPU: every voice, saying what others said, has its own pitch within 10 %,
    and of the phones that codes tell of the originals, seven in ten are told of what was said, in no voice fewer than
    six."""
    out = tmp_path / "run"
    assert run(["train", "experiment=audio_vowels", "stage=autoencoder", f"hydra.run.dir={out}"]) == 0
    found = conversions(toolkit.load(out), each=16)
    for each in found:
        print(f"to {each.wanted:.0f} Hz: {each.heard:.0f} Hz; phones right {each.before:.0%}, then {each.after:.0%}")
    for each in found:
        assert each.heard == pytest.approx(each.wanted, rel=0.1)
        assert each.after > 0.6 * each.before
    assert sum(each.after for each in found) > 0.7 * sum(each.before for each in found)
