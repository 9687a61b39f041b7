"""Sizes of a stranger's files are compared before anything is hashed, allocated or sampled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from toolkit.errors import ToolkitError
from toolkit.runs import checkpoint
from toolkit.runs.checkpoint import newest
from toolkit.runs.folder import Run


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.STATE])
def test_a_file_of_nothing_is_not_hashed(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(toy_run / "autoencoder", tmp_path / "autoencoder")
    latest = max((tmp_path / "autoencoder").glob("step-*"))
    os.truncate(latest / name, 6 << 30)  # sparse: 4 kB on the disk
    hashed = checkpoint.sha256

    def bounded(path: Path) -> str:
        assert path.stat().st_size < 1 << 30, f"{path} is hashed"
        return hashed(path)

    monkeypatch.setattr(checkpoint, "sha256", bounded)
    notices: list[str] = []
    older = newest(tmp_path / "autoencoder", notices)
    assert older is not None
    assert older.path < latest
    assert name in notices[0]
    assert "more than its header declares" in notices[0]


def test_an_example_of_any_size_is_refused(toy_run: Path, tmp_path: Path) -> None:
    spec = json.loads((toy_run / "spec.json").read_text())
    del spec["sha256"]  # as of a run of before there were any
    spec["data"] |= {"channels": 1, "axes": [8192, 16384]}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(ToolkitError, match=r"spec\.json cannot be read: a size is above"):
        Run(tmp_path).spec()
