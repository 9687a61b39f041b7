"""A Hub on this machine, and the toy run there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import Hub, serving
from hub_runs import NAME

from toolkit.__main__ import run as command


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub, an empty cache, and an empty folder to be in."""
    constants = pytest.importorskip("huggingface_hub.constants")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in {
        "HF_HUB_CACHE": str(tmp_path / "hf"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    state = Hub()
    with serving(state) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield state


@pytest.fixture(scope="module")
def folder(toys: None, toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is pushed of the toy run."""
    out = tmp_path_factory.mktemp("pushed") / "tiles"
    assert command(["push", f"run={toy_run}", NAME, "license=mit", f"out={out}"]) == 0
    return out


@pytest.fixture
def pushed(server: Hub, folder: Path) -> str:
    """The commit of the toy run there."""
    return server.put("ann/tiles", folder)
