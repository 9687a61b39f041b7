"""Copies that are here are opened without a Hub."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published
import pytest
import torch
from fake_hub import Hub
from hub_runs import NAME, codes, refusal
from messages import assert_names

import toolkit
from toolkit import hub
from toolkit.cli.completion import candidates
from toolkit.errors import ToolkitError

constants = pytest.importorskip("huggingface_hub.constants", reason="needs pip install 'discrete-toolkit[hub]'")

pytestmark = [
    pytest.mark.usefixtures("toys"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # how huggingface_hub uploads
]


def stored(home: Path, files: dict[str, bytes], commit: str = "a" * 40) -> Path:
    """A repository in the layout of the Hub's own cache; returns its snapshot's folder."""
    at = home / "models--ann--tiles"
    (at / "refs").mkdir(parents=True)
    (at / "refs" / "main").write_text(commit)
    (at / "blobs").mkdir()
    for number, (name, content) in enumerate(files.items()):
        (at / "blobs" / str(number)).write_bytes(content)
        path = at / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(at / "blobs" / str(number), path.parent))
    return at / "snapshots" / commit


@pytest.fixture
def offline(server: Hub, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pushed run in the Hub's own cache, and no Hub to ask."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    return stored(tmp_path / "hf", server.repositories["ann/tiles"].commits[pushed])


def test_the_hubs_own_cache_is_opened_offline(server: Hub, offline: Path, toy_run: Path) -> None:
    """By name, by branch and by commit; as a copy, as its files are links that lead out of their folder."""
    for word in (f"{NAME}@main", f"{NAME}@{'a' * 40}"):
        assert hub.local_copy(word, hub.RUN) == hub.local_copy(NAME, hub.RUN)
    assert torch.equal(codes(NAME), codes(toy_run))
    copy = hub.local_copy(NAME, hub.RUN)
    assert not any(path.is_symlink() for path in copy.rglob("*"))
    assert server.asked == []
    with pytest.raises(ToolkitError, match="is a link to"):
        toolkit.load(offline)


@pytest.mark.slow
def test_a_copy_that_is_here_is_opened_offline(
    server: Hub, pushed: str, toy_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert torch.equal(codes(NAME), codes(toy_run))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    assert torch.equal(codes(NAME), codes(toy_run))
    assert server.asked == []
    assert_names(refusal("hub:ann/other"), "hub:ann/other: HF_HUB_OFFLINE is set")


def relinked(to: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(to)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (relinked("/etc/hostname"), "outside of the Hub's cache"),
        (relinked("../../../../other"), "outside of the Hub's cache"),
        (relinked("../../blobs/gone"), "is no file"),
        (lambda path: path.unlink() or os.mkfifo(path), "is no file"),
    ],
)
def test_a_hostile_cache_is_refused(change: Callable[[Path], Any], says: str, offline: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    change(offline / "spec.json")
    assert says in refusal(NAME)
    assert hub.here(NAME) is None


def test_completion_knows_the_copies(server: Hub, pushed: str) -> None:
    assert candidates("toolkit sample run=hub:") == []
    hub.local_copy(NAME, hub.RUN)
    server.asked.clear()
    assert candidates("toolkit sample run=hub:") == [f"run={NAME} "]
    assert candidates(f"toolkit sample run={NAME} prior=") == ["prior=pixelcnn "]
    assert "condition.kind=" in candidates(f"toolkit sample run={NAME} cond")
    assert candidates("toolkit train init=hub:") == [f"init={NAME} "]
    assert server.asked == []


def test_weights_of_others_are_adopted_by_name(server: Hub, tmp_path: Path) -> None:
    tensors = published.weights()
    commit = server.put("bob/waves", published.publish(tmp_path / "theirs", tensors))
    toolkit.adopt("toy_kin", f"hub:bob/waves@{commit}", tmp_path / "run", license="mit")
    assert json.loads((tmp_path / "run" / "adopted.json").read_text())["source"] == f"hub:bob/waves@{commit}"
    model = toolkit.load(tmp_path / "run", "cpu")
    x = torch.randint(8, (2, *model.spec.shape))
    assert torch.equal(model.encode(x), published.codes(tensors, x))
