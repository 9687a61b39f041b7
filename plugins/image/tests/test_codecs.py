"""Runs on images beside PNG, JPEG and WebP."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit import DataSpec
from toolkit.__main__ import run as command
from toolkit_image.codecs import codecs_of
from toolkit_image.shapes import ShapesDataset

SMALL = [
    *("experiment=image_shapes", "encoder.hidden=8", "decoder.hidden=8", "stage=autoencoder"),
    *("trainer.steps=2", "trainer.batch_size=4", "trainer.workers=0", "trainer.validate_examples=4"),
    *("dataset.train_size=8", "dataset.val_size=4", "dataset.test_size=4"),
]


@pytest.mark.long
def test_files_cost_what_pillow_makes_of_the_same_pixels(tmp_path: Path) -> None:
    """The files are larger than the run's images: what is compared is cut as the run's data is."""
    run, files = tmp_path / "run", tmp_path / "files"
    assert command(["train", *SMALL, f"hydra.run.dir={run}"]) == 0
    files.mkdir()
    dataset, spec = ShapesDataset(size=48, train_size=3), ShapesDataset().spec
    for i in range(3):
        dataset.write(dataset.example("train", i, None)["x"], dataset.spec, files / f"{i}.png")
    words = ["against=[png,jpeg,webp]", "prior=uniform", f"files={files}", f"out={tmp_path}"]
    assert command(["compare", str(run), *words]) == 0
    curves = {curve["label"]: curve for curve in json.loads((tmp_path / "against.json").read_text())["curves"]}
    assert list(curves) == ["run", "png", "jpeg", "webp"]
    images = [dataset.read(files / f"{i}.png", spec).permute(1, 2, 0).numpy() for i in range(3)]
    for name, at, options in (
        ("png", "lossless", {}),
        ("jpeg", "quality 30", {"quality": 30}),
        ("webp", "quality 75", {"quality": 75}),
        ("webp", "lossless", {"lossless": True}),
    ):
        (point,) = (point for point in curves[name]["points"] if point["at"] == at)
        size, error = 0, 0.0
        for pixels in images:
            file = BytesIO()
            Image.fromarray(pixels).save(file, name.upper(), **options)
            size += len(file.getvalue())
            error += float(np.square(np.asarray(Image.open(file)).astype(float) - pixels).mean()) / 3
        assert point["bytes"] == size
        assert point["mse"] == pytest.approx(error * (2 / 255) ** 2)
        assert ("psnr" in point) == (at != "lossless")


@pytest.mark.parametrize("channels", [1, 3])
def test_headers_do_not_grow_with_the_image(channels: int) -> None:
    x = torch.randint(256, (channels, 80, 64), dtype=torch.uint8)
    for name, codec in codecs_of(DataSpec(channels, (80, 64), 256)).items():
        for quality in codec.qualities:
            small, large = codec.through(x[:, :32, :32], quality), codec.through(x, quality)
            assert abs(small.header - large.header) <= 1, f"{name}, {codec.words(quality)}"  # WebP pads to even lengths
            assert large.header < 700


def test_images_of_other_channels_have_no_codec() -> None:
    with pytest.raises(ValueError, match="2"):
        codecs_of(DataSpec(2, (8, 8), 256))
