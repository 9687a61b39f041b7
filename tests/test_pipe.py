"""``toolkit reconstruct run=RUN - out=-``: raw data from a pipe, and back as it comes."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from messages import assert_names

import toolkit
from toolkit.__main__ import run as command
from toolkit.dataset import Dataset
from toolkit.datasets.waves import WavesDataset
from toolkit.report import Silence
from toolkit.spec import DataSpec

WORDS = """
dataset=waves dataset.axes=[32,4] dataset.channels=2 dataset.train_size=8 dataset.val_size=4 dataset.test_size=4
encoder=conv encoder.hidden=4 encoder.strides=[2] decoder=conv decoder.hidden=4 decoder.strides=[2] dim=4
likelihood=categorical quantizer=vq quantizer.codebook_size=8 stage=autoencoder
trainer.batch_size=4 trainer.workers=0 trainer.steps=1 trainer.validate_examples=4
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipe") / "run"
    toolkit.train(toolkit.compose(*WORDS), folder, report=Silence())
    return folder


class Pieces(io.RawIOBase):
    """What comes in pieces of these bytes."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        piece = self.pieces.pop(0) if self.pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)


class Pipe:
    def __init__(self, pieces: list[bytes]) -> None:
        self.buffer = io.BufferedReader(Pieces(pieces))


def raw_of(x: torch.Tensor) -> bytes:
    """Levels ``(channels, positions, 4)``, a byte each, position by position."""
    return x.transpose(0, 1).numpy().astype(np.uint8).tobytes()


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 7, 33, 4000])
@pytest.mark.few(1)
def test_as_many_bytes_as_came(
    size: int, run: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    x = torch.randint(8, (2, 61, 4), generator=torch.Generator().manual_seed(0))
    raw = raw_of(x)
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
    monkeypatch.setattr(sys, "stdin", Pipe(pieces))
    assert command(["reconstruct", f"run={run}", "-", "out=-", "device=cpu"]) == 0
    written = capfdbinary.readouterr()
    model = toolkit.load(run, "cpu")
    filled = torch.cat([x, x[:, -1:]], 1)
    expected = raw_of(model.decode(model.encode(filled[None]))[0, :, :61])
    assert len(written.out) == len(raw)
    assert np.abs(np.frombuffer(written.out, np.uint8).astype(int) - np.frombuffer(expected, np.uint8)).max() <= 1
    assert b"latency" in written.err


def test_half_a_position_is_left_out(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe([bytes(8 * 5 + 3)]))
    assert command(["reconstruct", f"run={run}", "-", "out=-", "device=cpu"]) == 0
    written = capfdbinary.readouterr()
    assert len(written.out) == 8 * 5
    assert "the last 3 bytes are no whole position of 8" in written.err.decode()


def test_nothing_gives_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe([]))
    assert command(["reconstruct", f"run={run}", "-", "out=-", "device=cpu"]) == 0
    assert capfdbinary.readouterr().out == b""


@pytest.mark.parametrize("words", [["-"], ["out=-"], ["-", "a.npy", "out=-"], ["-", "out=folder"]])
def test_half_a_pipe_is_refused(words: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["reconstruct", f"run={run}", *words]) == 2
    assert_names(capsys.readouterr().err, "toolkit reconstruct: - … - out=-")


@pytest.mark.parametrize(("levels", "kind"), [(None, "<f4"), (8, "u1"), (256, "u1"), (300, "<u2"), (70000, "<u4")])
def test_raw_numbers(levels: int | None, kind: str) -> None:
    files: type[Dataset] = WavesDataset
    spec = DataSpec(1, (4,), levels)
    assert files.raw_type(spec) == kind
    x = torch.tensor([[-1.0, -0.5, 0.25, 1.0]]) if levels is None else torch.tensor([[0, 1, 5, levels - 1]])
    assert torch.equal(files.from_raw(files.to_raw(x, spec), spec), x)
    numbers = np.array([np.nan, 3e38]) if levels is None else np.array([0, np.iinfo(kind).max])
    there = files.from_raw(numbers.astype(kind), spec)
    assert there.max() == (1 if levels is None else levels - 1)
