"""Checkpoints that are whole, torn, foreign or hostile."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from toolkit.errors import ToolkitError
from toolkit.optimization import Optimization
from toolkit.options import TrainerOptions
from toolkit.runs import checkpoint, saving
from toolkit.runs import tensors as subject
from toolkit.runs.checkpoint import CHECKSUM, FACTS, MODEL, STATE, Checkpoint, found, newest, read_newest, sha256
from toolkit.runs.saving import save

OPTIONS = TrainerOptions(steps=10, learning_rate=0.1, ema=0.5)


def optimization() -> Optimization:
    return Optimization(nn.Linear(3, 2), OPTIONS)


def step(made: Optimization) -> None:
    made.module(torch.randn(4, 3)).square().sum().backward()
    made.update()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 1 and 2."""
    made = optimization()
    for _ in range(2):
        step(made)
        save(tmp_path, made, {"note": made.step}, keep=3)
    return tmp_path


def newest_step(folder: Path) -> int | None:
    checkpoint = newest(folder, [])
    return checkpoint.step if checkpoint else None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- whole ones


def test_the_newest_is_found_with_its_facts(folder: Path) -> None:
    notices: list[str] = []
    checkpoint = newest(folder, notices)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.facts["note"], notices) == (2, 2, [])
    assert checkpoint.weights_hash == sha256(folder / "step-00000002" / MODEL)
    assert names(folder) == ["step-00000001", "step-00000002"]
    assert names(checkpoint.path) == sorted([MODEL, STATE, FACTS])


@pytest.mark.parametrize("missing", [True, False])
def test_no_checkpoint_is_none(tmp_path: Path, missing: bool) -> None:
    folder = tmp_path / "none" if missing else tmp_path
    assert newest(folder, []) is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    made = optimization()
    for _ in range(5):
        step(made)
        save(tmp_path, made, {}, keep=2)
    assert names(tmp_path) == ["step-00000004", "step-00000005"]


def test_saving_a_step_again_replaces_it(folder: Path) -> None:
    made = optimization()
    for _ in range(2):
        step(made)
    save(folder, made, {"note": "again"}, keep=3)
    checkpoint = newest(folder, [])
    assert checkpoint is not None
    assert checkpoint.facts["note"] == "again"


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    made = optimization()
    step(made)
    random = torch.get_rng_state()
    save(tmp_path, made, {}, {"loss": torch.tensor(3.0)}, keep=1)
    torch.randn(3)
    other = optimization()
    checkpoint = newest(tmp_path, [])
    assert checkpoint is not None
    assert checkpoint.load_state(other) == {"loss": torch.tensor(3.0)}
    assert other.step == 1
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in {**made.module.state_dict(), **made.state()}.items():
        assert torch.equal({**other.module.state_dict(), **other.state()}[name], value)


def test_averages_are_loaded_where_asked_for(folder: Path) -> None:
    made, module = optimization(), nn.Linear(3, 2)
    checkpoint = newest(folder, [])
    assert checkpoint is not None
    checkpoint.load_state(made)
    for averaged, expected in ((False, made.parameters), (True, made.averages)):
        checkpoint.load_weights(module, averaged=averaged)
        assert torch.equal(module.weight, expected["weight"])
    assert not torch.equal(made.parameters["weight"], made.averages["weight"])


def test_weights_that_do_not_fit_name_the_first(folder: Path) -> None:
    checkpoint = newest(folder, [])
    assert checkpoint is not None
    with pytest.raises(ToolkitError, match=r"bias .*weight \(2, 4\) here, \(2, 3\) there") as error:
        checkpoint.load_weights(nn.Linear(4, 2, bias=False), averaged=False)
    assert "bias absent here, (2,) there" in str(error.value)


# -- torn ones


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights cut": lambda p: cut(p / MODEL, 0.9),
    "weights cut in the header": lambda p: cut(p / MODEL, 0.05),
    "weights cut in the length": lambda p: (p / MODEL).write_bytes(b"\x10\x00"),
    "weights empty": lambda p: (p / MODEL).write_bytes(b""),
    "weights missing": lambda p: (p / MODEL).unlink(),
    "weights changed": lambda p: flip(p / MODEL),
    "weights of another step": lambda p: shutil.copy(p.parent / "step-00000001" / MODEL, p / MODEL),
    "state cut": lambda p: cut(p / STATE, 0.5),
    "state missing": lambda p: (p / STATE).unlink(),
    "state changed": lambda p: flip(p / STATE),
    "facts cut": lambda p: cut(p / FACTS, 0.5),
    "facts empty": lambda p: (p / FACTS).write_bytes(b""),
    "facts missing": lambda p: (p / FACTS).unlink(),
    "facts no text": lambda p: (p / FACTS).write_bytes(b"\xff\xfe\x00"),
    "facts a list": lambda p: (p / FACTS).write_text("[1, 2]"),
    "facts without hashes": lambda p: (p / FACTS).write_text('{"step": 2}'),
    "facts with a text for hashes": lambda p: (p / FACTS).write_text('{"step": 2, "sha256": "abc"}'),
    "facts with no step": lambda p: (p / FACTS).write_text('{"step": null, "sha256": {}}'),
    "folder empty": lambda p: [path.unlink() for path in p.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_behind_a_torn_checkpoint_is_the_one_before(folder: Path, damage: str) -> None:
    DAMAGE[damage](folder / "step-00000002")
    notices: list[str] = []
    checkpoint = newest(folder, notices)
    assert checkpoint is not None
    assert checkpoint.step == 1
    (notice,) = notices
    assert "step-00000002 is damaged" in notice
    assert "falling back" in notice


@pytest.mark.parametrize("damage", DAMAGE)
def test_with_none_whole_there_is_nothing_to_go_on_with(folder: Path, damage: str) -> None:
    DAMAGE[damage](folder / "step-00000002")
    shutil.rmtree(folder / "step-00000001")
    with pytest.raises(ToolkitError, match="none of its 1 checkpoints is whole"):
        newest(folder, [])


def test_other_files_are_no_checkpoints(folder: Path) -> None:
    (folder / "step-last").mkdir()
    (folder / ".step-00000009").mkdir()
    (folder / "step-00000009").write_text("no folder")
    assert newest_step(folder) == 2


@pytest.mark.parametrize("name", [MODEL, STATE, FACTS])
def test_any_flipped_bit_is_seen(folder: Path, name: str) -> None:
    """Or changes nothing that is read, such as the space between two words."""
    path = folder / "step-00000002" / name
    before, whole = path.read_bytes(), newest(folder, [])
    places = random.sample(range(8 * len(before)), 60)
    print(places)
    for place in places:
        content = bytearray(before)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(content))
        opened = newest(folder, [])
        assert opened is not None
        if opened.step == 2:
            assert name == FACTS
            assert whole is not None
            assert whole.facts.items() <= opened.facts.items()
    path.write_bytes(before + b"\0")
    assert newest_step(folder) == 1


def test_where_none_is_whole_the_cure_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "a run" / "priors" / "pixelcnn"
    made = optimization()
    save(folder, made, {}, keep=1)
    flip(folder / "step-00000000" / MODEL)
    with pytest.raises(ToolkitError, match="none of its 1 checkpoints is whole") as error:
        newest(folder, [])
    assert f"remove {folder} and start again with toolkit train run='{tmp_path / 'a run'}'" in str(error.value)


def test_checkpoints_are_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save(tmp_path, optimization(), {}, keep=1)
    finally:
        os.umask(before)
    files = list((tmp_path / "step-00000000").iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


def test_a_checkpoint_that_is_deleted_while_it_is_read_is_no_failure(tmp_path: Path) -> None:
    """As a training beside does it."""
    made = optimization()
    step(made)
    save(tmp_path, made, {}, keep=1)
    deleted: list[Path] = []

    def read(checkpoint: Checkpoint) -> int:
        if not deleted:
            deleted.append(checkpoint.path)
            step(made)
            save(tmp_path, made, {}, keep=1)
        checkpoint.load_weights(nn.Linear(3, 2), averaged=True)
        return checkpoint.step

    def opened() -> Checkpoint:
        checkpoint = newest(tmp_path, [])
        assert checkpoint is not None
        return checkpoint

    assert read_newest(opened, read) == 2


def test_a_list_of_checkpoints_that_are_all_deleted_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, listed = optimization(), list[Path]()
    save(tmp_path, made, {}, keep=1)

    def listing(folder: Path) -> list[Path]:
        paths = found(folder)
        if not listed:
            listed.append(folder)
            step(made)
            save(tmp_path, made, {}, keep=1)
        return paths

    monkeypatch.setattr(checkpoint, "found", listing)
    notices: list[str] = []
    assert (opened := newest(tmp_path, notices)) is not None
    assert (opened.step, notices) == (1, [])


# -- foreign and hostile ones


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (open, (str(self.path), "w"))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1, 2]))


def torch_saved(path: Path) -> None:
    torch.save({"weight": torch.zeros(2, 3)}, path)


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


FOREIGN: dict[str, Callable[[Path], object]] = {
    **{
        f"pickle of protocol {protocol}": lambda p, n=protocol: p.write_bytes(pickle.dumps(Trap(p.parent / "trap"), n))  # type: ignore[misc]
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "smallest pickle": lambda p: p.write_bytes(pickle.dumps("", 4)),
    "torch.save": torch_saved,
    "zip": zipped,
    "text": lambda p: p.write_text("these are not the weights you are looking for"),
    "JSON": lambda p: p.write_text('{"weight": [1, 2, 3]}'),
    "zeros": lambda p: p.write_bytes(bytes(1000)),
    "picture": lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50)),
}


@pytest.mark.parametrize("name", [MODEL, STATE])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_safetensors_is_never_passed_over(folder: Path, kind: str, name: str) -> None:
    """Where that is how it was written; else it is damaged as any other. In no case is it unpickled."""
    path = folder / "step-00000002" / name
    path.unlink()
    FOREIGN[kind](path)
    assert newest_step(folder) == 1
    assert not (path.parent / "trap").exists()
    rehash(path)
    with pytest.raises(ToolkitError, match=f"step-00000002/{name} .*is not a safetensors file"):
        newest(folder, [])
    assert not (path.parent / "trap").exists()


def rehash(path: Path) -> None:
    """Makes the facts say that the file is as it was written."""
    facts = json.loads((path.parent / FACTS).read_text())
    facts["sha256"][path.name] = sha256(path)
    facts.pop(CHECKSUM, None)
    (path.parent / FACTS).write_text(json.dumps(facts))


def entry(shape: list[Any], begin: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES: dict[str, bytes] = {
    "shape larger than its place": raw({"a": entry([4], 0, 8)}, bytes(8)),
    "shape smaller than its place": raw({"a": entry([1], 0, 8)}, bytes(8)),
    "place beyond the end": raw({"a": entry([2], 0, 8000)}, bytes(8)),
    "overlap": raw({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "overlap in a short file": raw({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(4)),
    "the same place twice": raw({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, bytes(8)),
    "gap": raw({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "late start": raw({"a": entry([1], 4, 8)}, bytes(8)),
    "backwards": raw({"a": entry([1], 8, 4)}, bytes(8)),
    "negative": raw({"a": entry([-1, -2], 0, 8)}, bytes(8)),
    "file longer than declared": raw({"a": entry([1], 0, 4)}, bytes(100)),
    "data without an entry": raw({}, bytes(100)),
    "unknown type": raw({"a": entry([2], 0, 8, "F31")}, bytes(8)),
    "infinite": raw(b'{"a": {"dtype": "F32", "shape": [1e999], "data_offsets": [0, 1e999]}}', bytes(8)),
    "fractions": raw({"a": entry([1.5], 0, 6)}, bytes(6)),
    "texts": raw({"a": entry(["2"], "0", "8")}, bytes(8)),
    "three offsets": raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}}, bytes(8)),
    "no offsets": raw({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "no entry": raw({"a": 7}, bytes(8)),
    "a list": raw(b'{"a": []}', bytes(8)),
    "infinity by name": raw(b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, Infinity]}}', bytes(8)),
    "nested without end": raw(b'{"a":' * 100_000, bytes(8)),
    "no JSON": raw(b"{" + b"x" * 50, bytes(8)),
    "no text": raw(b"{\xff\xfe}", bytes(8)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_never_passed_over(folder: Path, lie: str) -> None:
    """Where that is how it was written; else it is damaged as any other."""
    path = folder / "step-00000002" / MODEL
    path.write_bytes(LIES[lie])
    assert newest_step(folder) == 1
    rehash(path)
    with pytest.raises(ToolkitError, match=f"step-00000002/{MODEL} has an inconsistent header") as error:
        newest(folder, [])
    assert len(str(error.value).splitlines()) <= 3


def test_a_short_file_that_is_as_it_was_written_lies(folder: Path) -> None:
    path = folder / "step-00000002" / MODEL
    path.write_bytes(raw({"a": entry([1 << 40], 0, 1 << 42)}, bytes(8)))
    assert newest_step(folder) == 1
    rehash(path)
    with pytest.raises(ToolkitError, match="has an inconsistent header"):
        newest(folder, [])


def test_a_header_too_large_for_the_format_is_not_read(folder: Path) -> None:
    path = folder / "step-00000002" / MODEL
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    assert newest_step(folder) == 1
    rehash(path)
    with pytest.raises(ToolkitError, match="is not a safetensors file"):
        newest(folder, [])


def test_sound_files_of_every_kind_are_accepted(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(3.0),
        "half": torch.zeros(3, dtype=torch.bfloat16),
        "flags": torch.ones(3, dtype=torch.bool),
        "bytes": torch.zeros(5, dtype=torch.uint8),
        "labels": torch.zeros(2, 2, dtype=torch.int64),
    }
    for metadata in (None, {"key": "value"}):
        (tmp_path / "f").write_bytes(to_bytes(tensors, metadata))
        subject.check_safetensors(tmp_path / "f")
        shapes = subject.read_shapes(tmp_path / "f")
        assert shapes == {name: subject.Shape.of(tensor) for name, tensor in tensors.items()}
        assert set(subject.read_tensors(tmp_path / "f", shapes)) == set(tensors)


# -- a disk that fails


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_in_safetensors(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error")


def broken(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("target", "name", "failure", "message"),
    [
        (os, "fsync", full, "no space is left on the disk"),
        (os, "fsync", broken, "Input/output error"),
        (os, "replace", full, "no space is left on the disk"),
        (subject, "save_file", full, "no space is left on the disk"),
        (subject, "save_file", full_in_safetensors, "Error while serializing: I/O error"),
        (saving, "write_text", full, "no space is left on the disk"),
    ],
)
def test_a_failed_save_keeps_what_there_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, target: object, name: str, failure: object, message: str
) -> None:
    made = optimization()
    for _ in range(3):
        step(made)
    with monkeypatch.context() as patch:
        patch.setattr(target, name, failure)
        with pytest.raises(ToolkitError, match=f"step 3 .*{message}\nkept: step-00000002"):
            save(folder, made, {}, keep=1)
    assert names(folder) == ["step-00000001", "step-00000002"]
    assert newest_step(folder) == 2
    save(folder, made, {}, keep=1)
    assert names(folder) == ["step-00000003"]


@pytest.mark.parametrize(("free", "message"), [(0, "no space is left on the disk"), (1 << 30, "I/O error")])
def test_a_full_disk_is_seen_by_its_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, message: str
) -> None:
    """safetensors' own error has no number."""
    monkeypatch.setattr(subject, "save_file", full_in_safetensors)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(ToolkitError, match=message):
        save(tmp_path, optimization(), {}, keep=1)


def test_a_kill_in_the_middle_of_a_save_leaves_the_one_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = optimization()
    for _ in range(3):
        step(made)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save(folder, made, {}, keep=1)
    assert newest_step(folder) == 2
    assert [path.name for path in found(folder)] == ["step-00000001", "step-00000002"]
    save(folder, made, {}, keep=3)
    assert names(folder) == ["step-00000001", "step-00000002", "step-00000003"]
