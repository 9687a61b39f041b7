"""The paper's experiments on real speech, at tiny widths: trained, measured, sampled, and a voice changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from shutil import which

import pytest
from made_sounds import save
from tiny_audio import TINY, WAVENET

import toolkit
from toolkit.__main__ import run
from toolkit_audio.reading import read_header, read_span

STEPS = ["trainer.steps=30", "prior_trainer.steps=30", "prior_dataset.seconds=1.0"]
PLACES = {
    "audio_vctk_paper": ("vctk-mini", "p226", "vctk-mini/wav48/p225/p225_003.wav"),
    "audio_librispeech_paper": ("LibriSpeech", "1998", "LibriSpeech/test-other/1688/142285/1688-142285-0000.flac"),
    "audio_voices": ("speechocean24", "SPEAKER0135", "espeak-ms/wav/e101/e101_001.flac"),
}


def opened(path: Path) -> tuple[int, float]:
    """Rate and seconds of a wav file, as another program sees them."""
    if which("ffprobe"):
        words = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", str(path)]
        (stream,) = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)["streams"]
        return int(stream["sample_rate"]), float(stream["duration"])
    if which("soxi"):
        told = [
            subprocess.run(["soxi", flag, str(path)], capture_output=True, text=True).stdout for flag in ("-r", "-D")
        ]
        return int(told[0]), float(told[1])
    pytest.skip("neither ffprobe nor sox is installed")


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES)
def test_real_speech_there_and_back(name: str, speech: Path, tmp_path: Path) -> None:
    root, voice, file = PLACES[name]
    crop = "dataset.seconds=0.16" if name == "audio_voices" else "dataset.seconds=0.128"
    out = tmp_path / "run"
    words = [*TINY, *WAVENET, f"dataset.root={speech / root}", crop, *STEPS]
    assert run(["train", f"experiment={name}", *words, f"hydra.run.dir={out}"]) == 0
    assert run(["evaluate", f"run={out}", "examples=8"]) == 0
    told = json.loads((out / "evaluation.json").read_text())
    assert 0 < told["data_bits_per_dim"] < 9
    assert told["bits_per_dim"] == told["data_bits_per_dim"] + told["code_bits_per_dim"]
    assert set(told["priors"]) == {"uniform", "wavenet"}
    assert run(["sample", f"run={out}", "n=1", f"condition.speaker={voice}", f"out={tmp_path / 'samples'}"]) == 0
    assert opened(tmp_path / "samples" / "sample-0000.wav") == (16000, 1.0)
    cut = save(tmp_path / "said.wav", read_span(speech / file, 8000, 12100, 16000))
    words = [str(cut), f"condition.speaker={voice}", f"out={tmp_path / 'said again'}"]
    assert run(["reconstruct", f"run={out}", *words]) == 0
    made = tmp_path / "said again" / "reconstruction-0000.wav"
    assert opened(made) == (16000, 4100 / 16000)
    assert read_header(made).samples == 4100
    assert toolkit.load(out).spec.conditions[0].index(voice) >= 0
