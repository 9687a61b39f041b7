"""The speaker matters: said again in another voice, words stay and the pitch is the other's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from listener import Listener, pitch

import toolkit
from toolkit.__main__ import run
from toolkit_audio.vowels import SPEAKERS, VowelsDataset
from toolkit_audio.waveform import to_waveform


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.mark.long
@pytest.mark.few(1)
@pytest.mark.parametrize("name", SPEAKERS)
def test_the_listener_knows_what_every_voice_says_and_how_high(name: str, listener: Listener) -> None:
    dataset = VowelsDataset(form="float", seconds=1.28)
    speaker = list(SPEAKERS).index(name)
    examples = [dataset.example("test", index, None) for index in range(60)]
    examples = [each for each in examples if int(each["speaker"]) == speaker]
    sound, phones = torch.cat([each["x"] for each in examples]), torch.stack([each["phone"] for each in examples])
    assert (listener.phones(sound, speaker) == phones).double().mean() > 0.94
    for row in sound[:3]:
        assert pitch(row) == pytest.approx(SPEAKERS[name].pitch, rel=0.05)


class Conversion(NamedTuple):
    """Utterances of other voices, said again in one."""

    wanted: float
    """Hz of the voice."""
    heard: float
    """Hz, the median over utterances."""
    before: float
    """Share of the time at which the listener hears the right phone in the utterances."""
    after: float
    """The same of what was said."""


def conversions(model: toolkit.Model, listener: Listener, each: int) -> list[Conversion]:
    """For every voice: as many test utterances of others, of 1.28 s, said in it."""
    data = VowelsDataset(seconds=1.28)
    examples = [data.example("test", i, None) for i in range(8 * each)]
    found = []
    for target, voice in enumerate(SPEAKERS.values()):
        chosen = [e for e in examples if int(e["speaker"]) != target][:each]
        x, phones = (torch.stack([e[key] for e in chosen]) for key in ("x", "phone"))
        made = model.reconstruct(x, {"speaker": torch.full((each,), target)})
        sound, said = (to_waveform(y, model.spec)[:, 0] for y in (x, made))
        speakers = [int(e["speaker"]) for e in chosen]
        before = [listener.phones(row[None], speaker)[0] for row, speaker in zip(sound, speakers, strict=True)]
        found.append(
            Conversion(
                voice.pitch,
                float(np.median([pitch(row) for row in said])),
                float((torch.stack(before) == phones).double().mean()),
                float((listener.phones(said, target) == phones).double().mean()),
            )
        )
    return found


@pytest.mark.slow
def test_another_voice_says_the_same_with_its_own_pitch(tmp_path: Path, listener: Listener) -> None:
    """Trained for a quarter of an hour on a CPU: every voice, saying what others said, has its own pitch within 10 %,
    and three quarters of the phones that are heard in the originals are heard in what it says."""
    out = tmp_path / "run"
    assert run(["train", "experiment=audio_vowels", "stage=autoencoder", f"hydra.run.dir={out}"]) == 0
    found = conversions(toolkit.load(out), listener, each=16)
    for each in found:
        print(f"to {each.wanted:.0f} Hz: {each.heard:.0f} Hz; phones right {each.before:.0%}, then {each.after:.0%}")
    for each in found:
        assert each.heard == pytest.approx(each.wanted, rel=0.1)
        assert each.after > 0.75 * each.before
