"""A long recording goes through the commands in pieces, and comes out as if it had gone through whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_sounds import noise, save
from tiny_audio import TINY

import toolkit
from toolkit import chunks
from toolkit.__main__ import run as command
from toolkit.cli import long
from toolkit.runs.codes import read_codes
from toolkit_audio.reading import read_header, read_span

pytestmark = pytest.mark.long

SMALL = ["dataset.seconds=0.2", "encoder.hidden=4", "decoder.hidden=4", "dim=8", "quantizer.inner.codebook_size=16"]


@pytest.fixture
def run(voices: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    words = ["experiment=audio_codec", *TINY, *SMALL, f"dataset.root={voices}"]
    assert command(["train", *words, "stage=autoencoder", f"hydra.run.dir={folder}"]) == 0
    return folder


def at_once(monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    for module in (chunks, long):
        monkeypatch.setattr(module, "AT_ONCE", examples)


def results(run: Path, file: Path, out: Path) -> dict[str, np.ndarray]:
    """What the three commands make of a file."""
    assert command(["encode", f"run={run}", str(file), f"out={out / 'codes.safetensors'}"]) == 0
    assert command(["decode", f"run={run}", str(out / "codes.safetensors"), f"out={out / 'decoded'}"]) == 0
    assert command(["reconstruct", f"run={run}", str(file), f"out={out / 'reconstructed'}"]) == 0
    arrays = read_codes(out / "codes.safetensors")[0]
    (decoded,) = (out / "decoded").glob("*.wav")
    rate = read_header(decoded).rate
    return {
        "codes": np.array(arrays["codes"]),
        "axes": np.array(arrays["axes"]),
        "decoded": read_span(decoded, 0, None, rate),
        "reconstructed": read_span(out / "reconstructed" / "reconstruction-0000.wav", 0, None, rate),
    }


@pytest.mark.slow
def test_in_pieces_as_if_whole(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = toolkit.load(run, "cpu")
    rate = int(model.spec.rates[0] or 0)
    file = save(tmp_path / "long.wav", noise(5 + 123 / rate, rate), rate)
    at_once(monkeypatch, 1 << 20)
    whole = results(run, file, tmp_path / "whole")
    assert "the sheet shows the first" not in capsys.readouterr().err
    at_once(monkeypatch, 2)
    pieces = results(run, file, tmp_path / "pieces")
    told = capsys.readouterr().err
    assert f"the sheet shows the first {2 * model.spec.axes[0] / rate:g} seconds of long.wav" in told
    assert "taken whole" not in told
    assert pieces["axes"].tolist() == whole["axes"].tolist() == [[5 * rate + 123]]
    assert np.array_equal(pieces["codes"], whole["codes"])
    for name in ("decoded", "reconstructed"):
        assert len(pieces[name]) == len(whole[name]) == 5 * rate + 123
        assert np.abs(pieces[name] - whole[name]).max() <= 1.5 / 32768
        assert np.array_equal(pieces[name], pieces["decoded"])


@pytest.mark.slow
def test_in_python(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toolkit.load(run, "cpu")
    stride = model.spec.axes[0] // model.code_spec.grid[0]
    x = torch.rand(2, 1, 60 * stride) * 1.8 - 0.9
    at_once(monkeypatch, 1 << 20)
    codes, again = model.encode(x), model.reconstruct(x)
    at_once(monkeypatch, 2)
    assert model.whole_because() == []
    assert torch.equal(model.encode(x), codes)
    torch.testing.assert_close(model.reconstruct(x), again, atol=1e-5, rtol=0)
    pieces = list(model.encode_pieces(x.split(1000, 2)))
    assert len(pieces) > 1
    assert torch.equal(torch.cat(pieces, 2), codes)
    decoded = torch.cat(list(model.decode_pieces(codes[:1].split(7, 2))), 2)
    torch.testing.assert_close(decoded, model.decode(codes[:1]), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_parts_without_a_context_take_it_whole(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toolkit.load(run, "cpu")
    monkeypatch.setattr(model.autoencoder.decoder, "context", None)
    assert "declares no context" in model.whole_because()[0]
    at_once(monkeypatch, 2)
    x = torch.rand(1, 1, 64 * model.spec.axes[0]) * 1.8 - 0.9
    (piece,) = model.reconstruct_pieces(x.split(5000, 2))
    assert piece.shape == x.shape


@pytest.mark.parametrize(("decoder", "text"), [("audio_seanet", "decoded in chunks, "), ("wavenet", "decoded whole: ")])
@pytest.mark.few(1)
def test_check_says_how_longer_data_goes_through(
    decoder: str, text: str, voices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["dataset=audio_folder", f"dataset.root={voices}", "dataset.seconds=0.12", "dim=8"]
    words += ["encoder=audio_seanet", f"decoder={decoder}", "quantizer=vq", "likelihood=categorical", "prior=wavenet"]
    assert command(["check", *words]) == 0
    shown = capsys.readouterr().out
    assert "encoded in chunks, " in shown
    assert text in shown


LONG = """
import re, sys
from pathlib import Path
import numpy as np
from toolkit.__main__ import run
from toolkit_audio.files import write_wav
rate, run_dir, out = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
seconds = int(sys.argv[4])
tone = (8000 * np.sin(2 * np.pi * 220 * np.arange(rate) / rate)).astype(np.int16)[None]
write_wav(out / "long.wav", (tone for _ in range(seconds)), rate, "pcm_s16le", "s16")
assert run(["reconstruct", f"run={run_dir}", str(out / "long.wav"), f"out={out / 'o'}"]) == 0
print("peak MiB", int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much memory was used")
def test_long_sound_in_bounded_memory(voices: Path, tmp_path: Path) -> None:
    """At 64 channels: well below 2 GiB, most of which are libraries."""
    folder = tmp_path / "run"
    wide = [
        "encoder.hidden=64",
        "decoder.hidden=64",
        "dim=8",
        "quantizer.inner.codebook_size=16",
        "dataset.seconds=0.2",
    ]
    words = ["experiment=audio_codec", *TINY, *wide, f"dataset.root={voices}", "stage=autoencoder"]
    assert command(["train", *words, f"hydra.run.dir={folder}"]) == 0
    rate = str(int(toolkit.load(folder, "cpu").spec.rates[0] or 0))
    seconds = os.environ.get("TOOLKIT_SOUND_SECONDS") or "300"  # whole, this would take more than twice the memory
    words = [sys.executable, "-c", LONG, rate, str(folder), str(tmp_path), seconds]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert int(done.stdout.split()[-1]) < 2048
    assert read_header(tmp_path / "o" / "reconstruction-0000.wav").samples == int(seconds) * int(rate)
