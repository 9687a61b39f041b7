"""Codes in files of their own: which code belongs to which file, and files from codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from messages import assert_names
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy.toy_plugin import TilesDataset
from toys import PIXELCNN, TILES, TWO_STEPS, VQ

import toolkit
from toolkit import Model
from toolkit.__main__ import run as command
from toolkit.cli import encoding
from toolkit.cli.config.compose import compose
from toolkit.cli.long import LongFile
from toolkit.cli.named import targets
from toolkit.cli.reading import split_items
from toolkit.stages.run import train

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]
WORDS = [*VQ, *PIXELCNN, *TWO_STEPS, "stage=autoencoder"]


@pytest.fixture(scope="module")
def run(toys: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiles"
    train(compose([*TILES, *WORDS, "conditions.decoder=[kind]"]).config, folder)
    return folder


@pytest.fixture
def model(run: Path) -> Model:
    return toolkit.load(run)


@pytest.fixture
def photos(model: Model, tmp_path: Path) -> Path:
    """Three files in two folders, one of which no grammar likes."""
    for i, name in enumerate(("dress/1.json", "hat [x], a=b/모자.json", "dress/deep/2.json")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        model.files.write(model.dataset.example("test", i, None)["x"], model.spec, path)
    return tmp_path / "photos"


def names(path: Path) -> list[str]:
    """As the page of the format reads them."""
    return [bytes(row).rstrip(b"\0").decode() for row in load_file(path)["files"].numpy()]


def encode(run: Path, out: Path, *words: object) -> dict[str, torch.Tensor]:
    assert command(["encode", f"run={run}", *map(str, words), f"out={out}"]) == 0
    return load_file(out)


def decode(run: Path, codes: Path, out: Path, *words: str) -> list[str]:
    assert command(["decode", f"run={run}", str(codes), f"out={out}", *words]) == 0
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_a_folder_is_encoded_with_names_and_decoded_to_them(
    run: Path, model: Model, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = encode(run, tmp_path / "c.safetensors", photos)
    told = names(tmp_path / "c.safetensors")
    assert told == ["dress/1.json", "dress/deep/2.json", "hat [x], a=b/모자.json"]
    assert tensors["codes"].dtype == torch.uint8
    for name, codes in zip(told, tensors["codes"].long(), strict=True):
        x = model.files.read(photos / name, model.spec)
        assert torch.equal(codes, model.encode(x[None])[0])
    assert "files: 3, bits each: 64, in " in capsys.readouterr().out
    assert decode(run, tmp_path / "c.safetensors", tmp_path / "back") == told
    for name, codes in zip(told, tensors["codes"].long(), strict=True):
        x = model.files.read(tmp_path / "back" / name, model.spec)
        assert torch.equal(x, model.decode(codes[None])[0])


def test_files_have_names_below_the_folder_that_holds_all(run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"
    for words, told in (
        ([photos / "dress" / "1.json"], ["1.json"]),
        ([photos / "dress" / "deep", photos / "dress" / "1.json"], ["deep/2.json", "1.json"]),
        ([photos / "dress", photos / "hat [x], a=b"], ["dress/1.json", "dress/deep/2.json", "hat [x], a=b/모자.json"]),
    ):
        encode(run, out, *words)
        assert names(out) == told


def test_a_split_keeps_labels(run: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"
    tensors = encode(run, out, "split=val")
    rows = [model.dataset.example("val", i, None) for i in range(8)]
    assert torch.equal(tensors["kind"], torch.stack([row["kind"] for row in rows]))
    assert torch.equal(tensors["codes"].long(), model.encode(torch.stack([row["x"] for row in rows])))
    assert names(out) == [f"val/{i:06d}" for i in range(8)]
    metadata = safe_open(out, "pt").metadata()  # type: ignore[no-untyped-call]
    assert json.loads(metadata["labels"]) == {"kind": ["a", "b", "한 글"]}
    assert json.loads(metadata["data_shape"]) == [2, 8, 8]
    assert json.loads(metadata["codebook_sizes"]) == [16]
    assert metadata["weights"] == model.checkpoint.weights_hash


class Patchy(TilesDataset):  # type: ignore[misc]
    """One file cannot be read, which is known once that was tried: the next one takes its place."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[int] = set()

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, torch.Tensor]:
        if index == 5:
            self.broken.add(index)
        return super().example(split, index + (index in self.broken), generator)

    def example_name(self, split: str, index: int) -> str:
        return super().example_name(split, index + (index in self.broken))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_example_has_the_name_of_the_file_that_was_read(
    model: Model, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.cli.reading.BATCH", 3)
    items = split_items(model, Patchy(), "test", workers)
    for i, item in enumerate(items):
        assert item.name() == f"test/{i:06d}"
        row = item.read()
        assert not isinstance(row, LongFile)
        assert item.name() == f"test/{i + (i == 5):06d}"
        assert torch.equal(row["x"], model.dataset.example("test", i + (i == 5), None)["x"])
        assert set(row) == {"x", "kind"}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.few(1)
def test_commands_that_read_a_split_do_it_with_any_number_of_processes(run: Path, workers: int, tmp_path: Path) -> None:
    """And get the same."""
    words = (f"run={run}", f"workers={workers}", "device=cpu")
    for command_words in (
        ["encode", *words, "split=test", f"out={tmp_path / 'c.safetensors'}"],
        ["reconstruct", *words, "examples=5", f"out={tmp_path / 'out'}"],
        ["evaluate", *words, "examples=5"],
        ["compare", str(run), f"workers={workers}", "split=val", f"out={tmp_path / 'compared'}"],
    ):
        assert command(command_words) == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    written |= {name: (tmp_path / name).read_bytes() for name in ("c.safetensors", "compared/compare.json")}
    written["evaluation"] = (run / "evaluation.json").read_bytes()
    assert len(written) == 4
    assert written == EARLIER.setdefault(run, written)


EARLIER: dict[Path, dict[str, bytes]] = {}
"""What the commands wrote with another number of processes."""


def test_the_number_of_processes_has_bounds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, bound in (("-1", "at least 0"), ("257", "at most 256")):
        assert command(["evaluate", f"run={run}", f"workers={number}"]) == 2
        assert_names(capsys.readouterr().err, f"toolkit evaluate: workers={number}: … {bound}")


def test_labels_that_are_kept_are_the_decoders(
    run: Path, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.safetensors"
    tensors = encode(run, out, "split=test")
    codes, kinds = tensors["codes"].long(), tensors["kind"]
    assert len(decode(run, out, tmp_path / "own")) == 8
    assert "the decoder sees kind" not in capsys.readouterr().err
    decode(run, out, tmp_path / "other", "condition.kind=b")
    for folder, labels in (("own", kinds), ("other", torch.ones(8).long())):
        x = model.decode(codes, {"kind": labels})
        written = [json.loads((tmp_path / folder / "test" / f"{i:06d}.json").read_text()) for i in range(8)]
        assert torch.equal(torch.tensor(written), x)
    save_file({**tensors, "kind": kinds + 9}, out)
    assert command(["decode", f"run={run}", str(out), f"out={tmp_path / 'no'}"]) == 2
    assert_names(capsys.readouterr().err.splitlines()[-1], f"toolkit decode: {out}: … kind")


def test_files_are_read_some_at_a_time(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are; and those that are encoded are not in memory any more."""
    sizes: list[int] = []
    plain = encoding.encode_examples
    monkeypatch.setattr(encoding, "BATCH", 2)
    monkeypatch.setattr(encoding, "encode_examples", lambda model, x: sizes.append(len(x)) or plain(model, x))
    encode(run, tmp_path / "c.safetensors", photos)
    assert sizes == [2, 1]
    monkeypatch.setattr(encoding, "MOST", 100)  # numbers: one file has 128
    encode(run, tmp_path / "c.safetensors", photos)
    assert sizes == [2, 1, 1, 1, 1]


def test_codes_of_before_are_decoded_to_numbers(run: Path, model: Model, tmp_path: Path) -> None:
    """A file as version 0.2 wrote it: no names."""
    codes = model.encode(torch.stack([model.dataset.example("test", i, None)["x"] for i in range(2)]))
    metadata = {"format": "1", "weights": model.checkpoint.weights_hash}
    save_file({"codes": codes.to(torch.uint8)}, tmp_path / "old.safetensors", metadata)
    assert decode(run, tmp_path / "old.safetensors", tmp_path / "back") == ["old-0000.json", "old-0001.json"]


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["a.json", "b/c.wav"], ["a.json", "b/c.json"]),
        (["a.jpg", "a.json", "a.jpg"], ["a.json", "a.json.json", "a.jpg.json"]),
        (
            ["../../a", "/etc/b", "c/./../d", "..", "/"],
            ["a.json", "etc/b.json", "c/d.json", "s-0003.json", "s-0004.json"],
        ),
        (["a", "a-1", "a"], ["a.json", "a-1.json", "a-2.json"]),
        (["a", "a-2", "a"], ["a.json", "a-2.json", "a-3.json"]),
    ],
)
def test_names_lead_nowhere_else_and_no_two_to_one_place(names: list[str], paths: list[str]) -> None:
    told = [path.as_posix() for path in targets(names, ".json", "s")]
    assert len(set(told)) == len(names)
    assert told == paths
    assert all(not path.startswith("/") and ".." not in path.split("/") for path in told)


def test_a_strangers_names_write_nothing_outside(
    run: Path, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor through links that are there, nor what a terminal would take for a command."""
    codes = model.encode(torch.stack([model.dataset.example("test", i, None)["x"] for i in range(3)]))
    path, out, away = tmp_path / "c.safetensors", tmp_path / "out", tmp_path / "away"

    def with_names(*told: bytes) -> None:
        rows = torch.zeros(len(told), 40, dtype=torch.uint8)
        for row, name in zip(rows, told, strict=True):
            row[: len(name)] = torch.frombuffer(bytearray(name), dtype=torch.uint8)
        save_file({"codes": codes.to(torch.uint8), "files": rows}, path)

    away.mkdir()
    (away / "kept.json").write_text("mine")
    with_names(b"../away/kept.json", b"/tmp/x\x1b[2J.json", b"\xff\xfe")
    assert decode(run, path, out) == ["away/kept.json", "tmp/x\x1b[2J.json", "\udcff\udcfe.json"]
    assert "\x1b" not in capsys.readouterr().out
    (out / "link.json").symlink_to(away / "kept.json")
    (out / "folder").symlink_to(away)
    with_names(b"link", b"a", b"b")
    decode(run, path, out)
    assert not (out / "link.json").is_symlink()
    with_names(b"c", b"folder/kept.json", b"d")
    assert command(["decode", f"run={run}", str(path), f"out={out}"]) == 2
    assert_names(capsys.readouterr().err.splitlines()[-1], f"toolkit decode: {out}/folder … link … out=")
    assert (away / "kept.json").read_text() == "mine"
    with_names(b"a", b"b")
    assert command(["decode", f"run={run}", str(path), f"out={out}"]) == 2
    assert_names(capsys.readouterr().err.splitlines()[-1], f"toolkit decode: {path}: … files")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no files: … split="),
        (["split=test", "FILE"], "files and split: "),
        (["split=tset"], "split=tset: "),
        (["EMPTY"], "EMPTY: no files"),
        (["BROKEN"], "BROKEN/a.json: not a file of numbers"),
        (["FILE/nowhere"], "FILE/nowhere: no such file"),
    ],
)
def test_what_cannot_be_encoded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    for name in ("EMPTY", "BROKEN"):
        (tmp_path / name).mkdir()
    (tmp_path / "EMPTY" / ".hidden.json").write_text("")
    (tmp_path / "BROKEN" / "a.json").write_text("{")
    words = [word if "=" in word else str(tmp_path / word) for word in words]
    assert command(["encode", f"run={run}", *words, f"out={tmp_path / 'c.safetensors'}"]) == 2
    begins = message if message[0].islower() else f"{tmp_path}/{message}"
    assert_names(capsys.readouterr().err.splitlines()[-1], f"toolkit encode: {begins}")
    assert not (tmp_path / "c.safetensors").exists()


def test_a_file_that_may_not_be_read_is_what_is_told(
    run: Path,
    model: Model,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read(path: Path, spec: object) -> torch.Tensor:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(model.files, "read", read)
    assert command(["encode", f"run={run}", str(photos), f"out={tmp_path / 'c.safetensors'}"]) == 2
    assert_names(capsys.readouterr().err, f"toolkit encode: {photos}/dress/1.json: Permission denied")


def test_other_files_in_a_folder_are_passed_over_and_counted(
    run: Path,
    model: Model,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos / "README.txt").write_text("mine")
    monkeypatch.setattr(model.files, "suffixes", (".json", ".jsn"))
    encode(run, tmp_path / "c.safetensors", photos)
    assert len(names(tmp_path / "c.safetensors")) == 3
    assert "photos: 3 files; passed over: 1 .txt" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_codes_take_the_place_of_no_device_and_no_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    out = tmp_path / "out.safetensors"
    os.mkfifo(out) if kind == "pipe" else out.mkdir()
    before = out.stat().st_ino
    assert command(["encode", f"run={run}", "split=test", f"out={out}"]) == 2
    assert f"out={out}: this is a {'device or a pipe' if kind == 'pipe' else 'folder'}" in capsys.readouterr().err
    assert out.stat().st_ino == before
