"""What goes together by YAML alone, proved by ``toolkit check``; some of it trained for a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_clips import numbered, save
from tiny_video import TINY

import toolkit
from toolkit import registry
from toolkit.__main__ import run

pytestmark = pytest.mark.long

SPRITES = ["dataset=video_sprites", "dataset.train_size=8", "dataset.val_size=2", "likelihood=normal", "dim=12"]
CONV = ["encoder=video_conv", "decoder=video_conv", "encoder.hidden=4", "decoder.hidden=4"]
OPTIONS = {
    "gaussian": [],
    "product": ["quantizer.groups=3"],
    "product_categorical": ["quantizer.groups=3"],
    "product_ema": ["quantizer.groups=3"],
}
PRESETS = ("product_categorical", "product_ema", "residual_cosine", "residual_ema", "residual_fsq", "vq_cosine")


EVERY = [*registry.names("quantizer"), *PRESETS]
NOW = ("vq", "gaussian", "residual_ema")
"""Those of the default lane: all others fit clips in the core's tests."""


@pytest.mark.few(1)
@pytest.mark.parametrize("quantizer", [*NOW, *(pytest.param(q, marks=pytest.mark.slow) for q in EVERY if q not in NOW)])
def test_sprites_fit_every_quantizer(quantizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SPRITES, *CONV, f"quantizer={quantizer}", *OPTIONS.get(quantizer, ())]
    prior = [] if quantizer == "gaussian" else ["prior=pixelcnn", "prior.hidden=8", "conditions.prior=[action]"]
    assert run(["check", *words, *prior]) == 0, capsys.readouterr().err


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for j in range(count):
            save(root / split / f"{j}.mp4", numbered(8, 32, 32, first=20 * j))
    return root


@pytest.mark.slow
def test_clips_of_their_own_parts_under_a_pixelcnn(tmp_path: Path) -> None:
    words = [*SPRITES, *CONV, "quantizer=residual_ema", "quantizer.depth=2", "prior=pixelcnn", "encoder.attention=2"]
    out = tmp_path / "run"
    assert run(["check", *words]) == 0
    assert run(["train", *words, *TINY, "conditions.prior=[action]", f"hydra.run.dir={out}"]) == 0
    model = toolkit.load(out)
    assert model.code_spec.shape == (2, 8, 6, 6)
    assert model.sample(2, length=20).x.shape == (2, 3, 20, 24, 24)


@pytest.mark.slow
def test_frames_of_image_parts_under_a_transformer(videos: Path, tmp_path: Path) -> None:
    words = [
        "dataset=video_folder",
        f"dataset.root={videos}",
        "dataset.size=16",
        "dataset.frames=4",
        "likelihood=normal",
    ]
    words += [
        "encoder=image_conv",
        "decoder=image_conv",
        "quantizer=ema",
        "prior=transformer",
        "prior.heads=2",
        "dim=8",
    ]
    out = tmp_path / "run"
    assert run(["check", *words]) == 0
    assert run(["train", *words, *TINY, f"hydra.run.dir={out}"]) == 0
    model = toolkit.load(out)
    assert model.code_spec.shape == (1, 4, 4, 4)
    assert model.sample(2, length=6).x.shape == (2, 3, 6, 16, 16)
