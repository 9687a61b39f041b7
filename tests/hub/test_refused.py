"""What is not what it says is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fake_hub import Hub, Repository
from hub_runs import NAME, codes, refusal
from messages import assert_names

import toolkit
from toolkit import hub
from toolkit.errors import ToolkitError

pytest.importorskip("huggingface_hub", reason="needs pip install 'discrete-toolkit[hub]'")

pytestmark = [
    pytest.mark.usefixtures("toys"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # how huggingface_hub uploads
]


def test_no_answer_is_a_sentence(server: Hub, pushed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_names(refusal("hub:ann/none"), "hub:ann/none: … no such repository … private … hf auth login")
    assert_names(refusal(f"{NAME}@v1"), f"{NAME}@v1: … no revision v1")
    assert_names(refusal(f"{NAME}@{'0' * 40}"), f"{NAME}@0000 … no revision")
    server.repositories["ann/tiles"].private, server.logged_in = True, False
    assert_names(refusal(NAME), f"{NAME}: … private … hf auth login")
    server.repositories["ann/tiles"].private, server.repositories["ann/tiles"].gated = False, True
    assert_names(refusal(NAME), f"{NAME}: … grant access … /ann/tiles")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert_names(refusal(NAME), f"{NAME}: http://127.0.0.1:9 cannot be reached … HF_HUB_OFFLINE=1")


@pytest.mark.parametrize(
    "word", ["hub:", "hub:tiles", "hub:a/b/c", "hub:../x", "hub:a/..", "hub:a/b@", "hub:a/b@../x", "hub:a/-b"]
)
def test_what_is_no_reference_is_refused(word: str) -> None:
    with pytest.raises(ToolkitError, match="hub:"):
        hub.local_copy(word)


@pytest.mark.slow
def test_without_the_package_the_extra_is_named(server: Hub, pushed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is here and pinned needs no package."""
    before = codes(f"{NAME}@{pushed}")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert_names(refusal(NAME), f"{NAME} needs huggingface_hub: … discrete-toolkit[hub]")
    assert torch.equal(codes(f"{NAME}@{pushed}"), before)


WEIGHTS = "autoencoder/step-00000006/model.safetensors"
Change = Callable[[Repository, dict[str, bytes]], object]
HOSTILE: dict[str, tuple[Change, str]] = {
    "a name above": (lambda repo, files: files.update({"../evil.json": b"{}"}), "leads out of its folder"),
    "a name inside above": (lambda repo, files: files.update({"priors/../../x": b"{}"}), "leads out of its folder"),
    "an absolute name": (lambda repo, files: files.update({"/etc/x.json": b"{}"}), "leads out of its folder"),
    "a name of Windows": (lambda repo, files: files.update({"a\\..\\..\\x": b"{}"}), "leads out of its folder"),
    "a name of a terminal": (lambda repo, files: files.update({"a\x1b[2J": b"{}"}), "leads out of its folder"),
    "a huge file": (lambda repo, files: repo.sizes.update({WEIGHTS: 1 << 50}), "GiB"),
    "a huge text": (lambda repo, files: repo.sizes.update({"spec.json": 1 << 40}), "spec.json"),
    "too many files": (
        lambda repo, files: files.update({f"a{i}.json": b"" for i in range(10_001)}),
        "at most 10,000",
    ),
    "no run": (lambda repo, files: files.pop("config.yaml"), "no config.yaml"),
    "a checkpoint in part": (lambda repo, files: files.pop(WEIGHTS), f"{WEIGHTS} is not there"),
    "a file cut short": (lambda repo, files: repo.cut.add(WEIGHTS), "try again"),
    "a text cut short": (lambda repo, files: repo.cut.add("spec.json"), "try again"),
    "a size that is wrong": (lambda repo, files: repo.sizes.update({"spec.json": 7}), "of 7 bytes"),
    "a file changed on its way": (lambda repo, files: repo.spoilt.add(WEIGHTS), f"{WEIGHTS} arrived damaged"),
    "a text changed on its way": (lambda repo, files: repo.spoilt.add("spec.json"), "spec.json arrived damaged"),
}


@pytest.mark.long
@pytest.mark.few(9)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_repository_is_refused(name: str, server: Hub, pushed: str, tmp_path: Path) -> None:
    """In a sentence, and no copy is left that could be opened."""
    change, says = HOSTILE[name]
    repository = server.repositories["ann/tiles"]
    change(repository, repository.commits[pushed])
    message = refusal(NAME)
    assert message.startswith(f"{NAME}: ")
    assert says in message
    assert hub.here(f"{NAME}@{pushed}") is None
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "here", "hf", "token"}


def test_a_pickle_is_not_even_downloaded(server: Hub, pushed: str) -> None:
    """Nor anything else that no run has; where weights are a pickle by another name, they are refused as in any run."""
    files = server.repositories["ann/tiles"].commits[pushed]
    files |= {
        "model.pt": b"\x80\x04.",
        "autoencoder/step-00000006/evil.bin": b"x",
        "evil.py": b"x",
        "conf/a.yaml": b"x",
    }
    copy = hub.local_copy(NAME, hub.RUN)
    there = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert there == files.keys() - {"model.pt", "autoencoder/step-00000006/evil.bin", "evil.py", "conf/a.yaml"}
    server.repositories["ann/tiles"].commit({**files, WEIGHTS: b"\x80\x04\x95" + bytes(100)})
    with pytest.raises(ToolkitError, match=r"model\.safetensors"):
        toolkit.load(NAME)


@pytest.mark.slow
def test_what_failed_is_downloaded_again(server: Hub, pushed: str, toy_run: Path) -> None:
    repository = server.repositories["ann/tiles"]
    repository.cut.add(WEIGHTS)
    assert "try again" in refusal(NAME)
    repository.cut.clear()
    assert torch.equal(codes(NAME), codes(toy_run))


def test_published_weights_are_taken_as_tensors(server: Hub, tmp_path: Path) -> None:
    """Of weights in both forms the tensors, with the texts beside them; of pickles alone the pickles."""
    repository = server.repositories.setdefault("bob/codec", Repository())
    both = {"model.safetensors": b"a", "pytorch_model.bin": b"b", "config.json": b"{}", "LICENSE": b"l", "x.py": b"p"}
    repository.commit(both)
    assert {path.name for path in hub.local_copy("hub:bob/codec").iterdir()} == both.keys() - {
        "pytorch_model.bin",
        "x.py",
    }
    repository.commit({"vq.pt": b"b", "config.json": b"{}"})
    assert {path.name for path in hub.local_copy("hub:bob/codec").iterdir()} == {"vq.pt", "config.json"}
    repository.commit({"README.md": b"b"})
    with pytest.raises(ToolkitError, match="holds no weights"):
        hub.local_copy("hub:bob/codec")
    assert_names(refusal("hub:bob/codec"), "hub:bob/codec: … no config.yaml")
