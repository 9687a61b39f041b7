"""A film longer than clips goes through the commands whole, piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_clips import numbered, numbers, save
from tiny_video import TINY

import toolkit
from toolkit import DataSpec, chunks
from toolkit.__main__ import run as command
from toolkit.cli import long
from toolkit.runs.codes import read_codes
from toolkit_video.clips import VARYING, ClipDataset
from toolkit_video.reading import read_timeline

pytestmark = pytest.mark.long

SPEC = DataSpec(1, (4, 48, 64), levels=256, varying=VARYING, rates=(10.0, None, None))


@pytest.mark.parametrize("rate", [5.0, 10.0, 25.0])
@pytest.mark.parametrize("frames", [1, 31, 32, 70])
def test_a_film_is_read_whole_and_in_pieces(frames: int, rate: float, tmp_path: Path) -> None:
    """At its own rate, at a lower one, and at a higher one, where frames are shown again."""
    path = save(tmp_path / "a.mp4", numbered(frames, 96, 128), 10)
    spec = DataSpec(1, (4, 96, 128), levels=256, varying=VARYING, rates=(rate, None, None))
    pieces = list(ClipDataset.pieces(path, spec))
    x = ClipDataset.read(path, spec)
    assert torch.equal(torch.cat(pieces, 1), x)
    assert x.shape[1] == ClipDataset.length(path, spec)
    assert abs(x.shape[1] - frames * rate / 10) <= 2
    assert numbers(x) == sorted(numbers(x))
    assert {*numbers(x)} <= {*range(frames)}
    assert rate < 10 or len({*numbers(x)}) == frames


def test_of_a_clip_of_fixed_length_the_first_frames_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.mp4", numbered(12, 96, 128), 10)
    spec = DataSpec(1, (4, 96, 128), levels=256, rates=(10.0, None, None))
    assert numbers(ClipDataset.read(path, spec)) == [0, 1, 2, 3]
    assert ClipDataset.length(path, spec) == 4


def test_in_pieces_as_if_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["experiment=video_sprites", *TINY, "dataset.val_size=2", "dataset.test_size=2", "stage=autoencoder"]
    assert command(["train", *words, f"hydra.run.dir={run}"]) == 0
    model = toolkit.load(run, "cpu")
    frames = 5 * model.spec.axes[0] + 3
    film = save(tmp_path / "film.mp4", numbered(frames, 96, 96), model.spec.rates[0] or 0)
    made = {}
    for name, examples in (("whole", 1 << 10), ("pieces", 2)):
        for module in (chunks, long):
            monkeypatch.setattr(module, "AT_ONCE", examples)
        out = tmp_path / name
        assert command(["reconstruct", f"run={run}", str(film), f"out={out}"]) == 0
        assert command(["encode", f"run={run}", str(film), f"out={out / 'codes.safetensors'}"]) == 0
        assert len(read_timeline(out / "reconstruction-0000.mp4").ticks) == frames
        made[name] = (
            ClipDataset.read(out / "reconstruction-0000.mp4", model.spec),
            read_codes(out / "codes.safetensors"),
        )
    assert made["whole"][0].shape[1] == frames
    apart = (made["whole"][0].int() - made["pieces"][0].int()).abs()
    assert apart.max() <= 12  # of rounding, seen through a lossy file
    assert np.array_equal(made["whole"][1][0]["codes"], made["pieces"][1][0]["codes"])
    assert made["pieces"][1][0]["axes"].tolist() == [[frames, *model.spec.axes[1:]]]
    assert "the sheet shows the first" in capsys.readouterr().err
