from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cifar_imitation import imitation

from toolkit_image.cifar10 import FOLDER, TRAIN, CIFAR10Dataset

ROOT = Path(__file__).parents[3]

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from test to test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


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


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> CIFAR10Dataset:
    data = Path(os.environ.get("TOOLKIT_DATA", ROOT.parent / "shared" / "data"))
    unpack = data.parent / "tools" / "unpack_cifar10.py"
    if not unpack.exists() or not (data / "cifar10").exists():
        pytest.skip(f"no CIFAR-10 in {data} (TOOLKIT_DATA)")
    root = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(unpack), str(root)], check=True, capture_output=True)
    return CIFAR10Dataset(root=str(root))
