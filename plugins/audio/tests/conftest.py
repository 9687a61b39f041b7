from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
import torch
from made_sounds import save_voices

from toolkit import ToolkitError
from toolkit_audio.loudness import require_torchaudio

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[3]
SPEECH = Path(os.environ.get("TOOLKIT_DATA") or ROOT.parent / "shared" / "data") / "speech"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from test to test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def speech() -> Path:
    """Real speech, where it is."""
    if not SPEECH.is_dir():
        pytest.skip(f"no real speech in {SPEECH}: TOOLKIT_DATA says where it is")
    return SPEECH


@pytest.fixture
def functional() -> ModuleType:
    """torchaudio as an oracle, where it imports."""
    try:
        return require_torchaudio("this test")
    except ToolkitError as error:
        pytest.skip(str(error))


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    return save_voices(tmp_path)
