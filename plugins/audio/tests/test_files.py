from __future__ import annotations

import json
import logging
import subprocess
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import torch
from made_sounds import noise, save
from PIL import Image

from toolkit import DataSpec
from toolkit_audio.files import AudioDataset, clipped

SPECS = {
    name: DataSpec(1, (800,), levels=levels, varying=(True,), rates=(16000.0,))
    for name, levels in (("mulaw", 256), ("pcm16", 1 << 16), ("float", None))
}


def data(spec: DataSpec, samples: int = 1200) -> torch.Tensor:
    if spec.levels is None:
        return torch.rand(1, samples) * 1.9 - 0.95
    return torch.randint(1, spec.levels - 1, (1, samples))


@pytest.mark.parametrize("form", SPECS)
def test_written_then_read_is_the_same(form: str, tmp_path: Path) -> None:
    x, path = data(SPECS[form]), tmp_path / "가 [1], a=b.wav"
    AudioDataset.write(x, SPECS[form], path)
    back = AudioDataset.read(path, SPECS[form])
    assert torch.equal(back, x)
    assert back.dtype == x.dtype


@pytest.mark.parametrize("form", SPECS)
def test_raw_samples_are_16_bits_of_any_form(form: str) -> None:
    """As ``arecord -f S16_LE`` gives them; where the form has as many, each is preserved."""
    spec, samples = SPECS[form], np.arange(-(1 << 15), 1 << 15).astype("<i2")[None]
    x = AudioDataset.from_raw(samples, spec)
    back = AudioDataset.to_raw(x, spec)
    assert (AudioDataset.raw_type(spec), back.dtype) == ("<i2", np.dtype("<i2"))
    assert back.shape == samples.shape
    assert np.abs(back.astype(int) - samples).max() <= (800 if form == "mulaw" else 0)
    assert torch.equal(AudioDataset.from_raw(back, spec), x)


@pytest.mark.parametrize("form", ["mulaw", "pcm16"])
def test_all_levels_survive_a_file(form: str, tmp_path: Path) -> None:
    spec = SPECS[form]
    x = torch.arange(spec.levels or 0)[None]
    AudioDataset.write(x, spec, tmp_path / "a.wav")
    assert torch.equal(AudioDataset.read(tmp_path / "a.wav", spec), x)


@pytest.mark.parametrize("program", ["sox", "ffprobe"])
def test_another_program_opens_what_is_written(program: str, tmp_path: Path) -> None:
    if which(program) is None:
        pytest.skip(f"{program} is not installed")
    path = tmp_path / "a.wav"
    AudioDataset.write(data(SPECS["mulaw"]), SPECS["mulaw"], path)
    if program == "sox":
        told = subprocess.run(["sox", "--i", str(path)], capture_output=True, text=True, check=True).stdout
        assert "Sample Rate    : 16000" in told
        assert "1200 samples" in told
        assert "Precision      : 16-bit" in told
    else:
        words = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", str(path)]
        (stream,) = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)["streams"]
        assert (stream["sample_rate"], stream["channels"], stream["duration"]) == ("16000", 1, "0.075000")


def test_a_file_of_another_rate_is_brought_to_the_specs(tmp_path: Path) -> None:
    save(tmp_path / "a.wav", noise(0.5, 44100), 44100)
    assert AudioDataset.read(tmp_path / "a.wav", SPECS["float"]).shape == (1, 8000)


def test_clipping_is_never_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.zeros(1, 100)
    x[0, 10:14] = 1.3
    with caplog.at_level(logging.WARNING):
        AudioDataset.write(x, SPECS["float"], tmp_path / "a.wav")
    assert "a.wav: clipped, 4 of 100 samples are at full scale" in caplog.text
    assert AudioDataset.read(tmp_path / "a.wav", SPECS["float"]).max() == 1


def test_a_peak_is_not_clipped() -> None:
    assert clipped(torch.tensor([0.0, 1.0, 1.0, 0.5])) == 0
    assert clipped(torch.tensor([1.0, -1.0, 1.0, 0.5, 1.0])) == 3
    assert clipped(torch.tensor([1.0])) == 0


def test_a_sheet_shows_sounds_of_any_length(tmp_path: Path) -> None:
    spec = SPECS["float"]
    AudioDataset.plot([torch.rand(3, 1, 8000), torch.rand(1, 1, 16000) - 1], spec, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        picture = np.asarray(image.convert("RGB"))
    assert picture.shape[1] > 900
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    AudioDataset.plot([torch.zeros(1, 1, 1)], spec, tmp_path / "short.png")
