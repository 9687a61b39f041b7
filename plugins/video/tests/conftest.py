from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[3]
VIDEO = Path(os.environ.get("TOOLKIT_DATA") or ROOT.parent / "shared" / "data") / "video"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from test to test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def clips() -> Path:
    """Real clips, where they are."""
    if not VIDEO.is_dir():
        pytest.skip(f"no real clips in {VIDEO}: TOOLKIT_DATA says where they are")
    return VIDEO
