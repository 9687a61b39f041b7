"""Folders of pictures and batches, damaged at random, under every command that reads them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from cifar_imitation import imitation
from fuzz_data import Data, ends
from PIL import Image

from toolkit.__main__ import run

pytestmark = pytest.mark.long

PARTS = [
    *("encoder=image_conv", "quantizer=vq", "decoder=image_conv", "likelihood=normal", "stage=autoencoder", "dim=4"),
    *("encoder.hidden=4", "decoder.hidden=4", "quantizer.codebook_size=8", "metric=[codebook]"),
]
FOLDER = ["dataset=image_folder", "dataset.size=16", *PARTS]
BATCHES = ["dataset=image_cifar10", *PARTS]
MODES = {"png": "RGB", "jpg": "L", "gif": "P", "webp": "RGBA", "bmp": "RGB", "tif": "I;16"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Two classes of pictures of every kind."""
    home = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        for i, (suffix, mode) in enumerate(MODES.items()):
            (home / "data" / label).mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (24, 20, 3), np.uint8)
            image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
            image = Image.fromarray(np.asarray(image, np.uint16) * 256) if mode == "I;16" else image
            image.save(home / "data" / label / f"{i}.{suffix}")
    assert run(["train", *FOLDER, *TWO, f"dataset.root={home / 'data'}", f"hydra.run.dir={home / 'run'}"]) == 0
    return Data(home, FOLDER)


TWO = ["trainer.steps=1", "trainer.batch_size=2", "trainer.workers=0", "trainer.validate_examples=2"]


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """CIFAR-10 of noise, all training files one."""
    home = tmp_path_factory.mktemp("batches")
    folder = home / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(imitation(0))
    for number in range(1, 6):
        (folder / f"data_batch_{number}").symlink_to("test_batch")
    assert run(["train", *BATCHES, *TWO, f"dataset.root={home / 'data'}", f"hydra.run.dir={home / 'run'}"]) == 0
    return Data(home, BATCHES)


@pytest.mark.parametrize("numbers", [range(2), pytest.param(range(2, 168), marks=pytest.mark.slow)], ids=["2", "166"])
def test_any_pictures(pictures: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: range) -> None:
    ends(pictures, numbers, tmp_path, capsys)


def head(root: Path, chance: random.Random) -> list[str]:
    """The first bytes of a batch, of which most are instructions to unpickle."""
    path = root / "cifar-10-batches-py" / "test_batch"
    content = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 3)):
        at = chance.choice(
            [chance.randrange(250), chance.randrange(len(content)), len(content) - chance.randrange(1, 90)]
        )
        content[at] = chance.randrange(256)
    cut = chance.random() < 0.2
    path.write_bytes(bytes(content[: chance.randrange(len(content))] if cut else content))
    return ["cut" if cut else "bytes changed"]


@pytest.mark.slow
def test_any_batches(batches: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends(batches, range(40), tmp_path, capsys, head)
