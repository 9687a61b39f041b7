from __future__ import annotations

from pathlib import Path

import pytest
import torch
from real_clips import VIDEO

torch.set_num_threads(1)


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
