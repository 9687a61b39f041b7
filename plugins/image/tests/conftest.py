from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cifar_imitation import imitation

from toolkit_image.cifar10 import FOLDER, TRAIN

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the original, its images noise and its five training files the same one."""
    folder = tmp_path_factory.mktemp("imitation") / FOLDER
    folder.mkdir()
    (folder / TRAIN[0]).write_bytes(imitation(0))
    for name in TRAIN[1:]:
        (folder / name).symlink_to(folder / TRAIN[0])
    (folder / "test_batch").write_bytes(imitation(1))
    return folder
