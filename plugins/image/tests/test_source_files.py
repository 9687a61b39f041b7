"""What a run records of a folder's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.dataset import SourceFile
from toolkit_image.cifar10 import CIFAR10Dataset
from toolkit_image.folder import FolderDataset


def test_all_images_are_named_with_split_and_class(tmp_path: Path) -> None:
    names = ["train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "test/dog/d.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / name)
    files = list(FolderDataset(root=str(tmp_path), size=16).source_files())
    assert files == [SourceFile(name, str(tmp_path / name), *name.split("/")[:2]) for name in names]


def test_cifars_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    assert [file.name for file in CIFAR10Dataset(root=str(tmp_path)).source_files()] == ["cifar-10-python.tar.gz"]
