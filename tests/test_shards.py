"""Shards: a packed dataset gives the examples that were packed, from wherever it lies."""

from __future__ import annotations

import json
import re
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import assert_names
from packed import FEW, opened, packed
from toy.toy_plugin import TilesDataset

from toolkit import Dataset, registry
from toolkit.__main__ import run as command
from toolkit.batches import split_batches
from toolkit.dataset import SPLITS
from toolkit.datasets.shard_stream import ShardStreamDataset
from toolkit.datasets.tars.members import BLOCK, members, split_key, walk, write_members
from toolkit.datasets.tars.tensors import from_npy
from toolkit.datasets.waves import WavesDataset
from toolkit.errors import ToolkitError
from toolkit.model import load
from toolkit.testing.dataset import DatasetSuite, assert_same


@pytest.fixture(scope="module")
def waves() -> WavesDataset:
    return WavesDataset(**FEW)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, waves: WavesDataset) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "waves"
    packed(folder, waves)
    return folder


class TestShards(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _shards(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Dataset:
        return opened(self.folder)


@pytest.mark.parametrize(
    "made",
    [lambda: WavesDataset(**FEW), lambda: WavesDataset(axes=(40,), channels=2, levels=None, **FEW), TilesDataset],
)
def test_examples_are_those_that_were_packed(made: Any, tmp_path: Path, toys: None) -> None:
    dataset: Dataset = made()
    shards = packed(tmp_path / "out", dataset, "waves" if isinstance(dataset, WavesDataset) else "toy_tiles")
    assert shards.spec == dataset.spec
    for split in SPLITS:
        assert shards.size(split) == dataset.size(split)
        for index in range(dataset.size(split)):
            own, expected = shards.example(split, index, None), dataset.example(split, index, None)
            assert_same(own, expected, "the dataset and its shards")
            assert {name: value.dtype for name, value in own.items()} == {n: v.dtype for n, v in expected.items()}
    assert len(list((tmp_path / "out").glob("train-*.tar"))) > 1


def test_other_programs_read_the_members(folder: Path, waves: WavesDataset) -> None:
    found = {}
    for path in sorted(folder.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file
                found[member.name] = file.read()
    assert len(found) == 2 * FEW["train_size"]
    row = waves.example("train", 7, None)
    x = np.load(BytesIO(found["000000007.x.npy"]))
    assert x.dtype == np.uint8
    assert torch.equal(torch.from_numpy(x).long(), row["x"])
    assert int(found["000000007.pace.cls"]) == row["pace"]


def test_training_examples_lie_mixed(folder: Path) -> None:
    with (folder / "train-000000.tar").open("rb") as file:
        keys = [int(key) for key, _, _ in walk(file)]
    assert len(keys) > 3
    assert keys != sorted(keys)


def test_the_net_gives_the_same(folder: Path, waves: WavesDataset) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").put(str(folder), "/waves", recursive=True)
    shards = opened("memory://waves")
    assert_same(shards.example("train", 11, None), waves.example("train", 11, None), "files and a store")
    assert list(shards.source_files()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_same(folder: Path, waves: WavesDataset) -> None:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(folder.glob("train-*.tar"))]
    rows = {row["__key__"]: row for row in webdataset.WebDataset(urls, shardshuffle=False).decode()}
    assert len(rows) == FEW["train_size"]
    row, expected = rows["000000003"], waves.example("train", 3, None)
    assert np.array_equal(row["x.npy"], expected["x"].numpy())
    assert row["pace.cls"] == expected["pace"]


# -- tar files


NAMES = ["a.x.npy", "a.cls", "deep/er/b.png", f"{'long/' * 30}c.png", "d.d.x"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_pythons_tarfile_wrote(form: int) -> None:
    contents = {name: name.encode() * 100 * i for i, name in enumerate(NAMES)}
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    assert dict(members(file.getvalue())) == contents
    stretches = list(walk(file))
    assert [key for key, _, _ in stretches] == ["a", "deep/er/b", f"{'long/' * 30}c", "d"]
    for key, begin, end in stretches:
        own = dict(members(file.getvalue()[begin:end]))
        assert own == {name: content for name, content in contents.items() if split_key(name)[0] == key}
    assert [key for key, _, _ in walk(file, stretches[2][1])] == [f"{'long/' * 30}c", "d"]


def test_what_is_written_is_read() -> None:
    file = BytesIO()
    contents = {"x.npy": bytes(1000), "cls": b"3", "empty": b""}
    assert write_members(file, "0007", contents.items()) == len(file.getvalue()) == 3 * BLOCK + 2 * BLOCK + BLOCK
    assert dict(members(file.getvalue())) == {f"0007.{name}": content for name, content in contents.items()}


@pytest.mark.parametrize(
    ("array", "why"),
    [(np.array([{}], dtype=object), "object"), (np.asfortranarray(np.ones((2, 3))), "Fortran"), (None, "no .npy")],
)
def test_arrays_that_are_none(array: Any, why: str) -> None:
    file = BytesIO()
    if array is not None:
        np.save(file, array, allow_pickle=True)
    with pytest.raises(ValueError, match=why):
        from_npy(file.getvalue())


# -- damage


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def read_all(root: Path) -> None:
    shards = opened(root)
    for index in range(shards.size("train")):
        shards.example("train", index, None)


def refused(root: Path) -> str:
    with pytest.raises(ToolkitError) as caught:
        read_all(root)
    return str(caught.value)


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    assert_names(refused(tmp_path), f"{tmp_path / 'index.json'} … toolkit pack")


def test_damage_is_told(damaged: Path) -> None:
    """Of an index, of places, of a shard that is gone, cut short, changed or another one."""
    whole = {path.name: path.read_bytes() for path in damaged.iterdir()}

    def after(name: str, content: bytes | None) -> str:
        path = damaged / name
        path.unlink() if content is None else path.write_bytes(content)
        text = refused(damaged)
        path.write_bytes(whole[name])
        return text

    index = json.loads(whole["index.json"])
    index["spec"]["levels"] = 9
    first, second = "train-000000.tar", "train-000001.tar"
    assert_names(after("index.json", json.dumps(index).encode()), f"{damaged / 'index.json'} … not what was written")
    assert_names(after("index.json", b"[[["), f"{damaged / 'index.json'} … cannot be read")
    assert_names(after("index.json", b"[]"), f"{damaged / 'index.json'} … is no index")
    assert_names(after("train.npy", whole["train.npy"][:-24]), f"{damaged / 'train.npy'}")
    assert_names(after("train.npy", whole["val.npy"]), f"{damaged / 'train.npy'} … places")
    assert_names(after(first, None), f"{damaged / first} … no such file")
    assert_names(after(first, whole[first][:-BLOCK]), f"{damaged / first} … bytes … were written")
    if len(whole[first]) == len(whole[second]):
        assert_names(after(first, whole[second]), f"{damaged / first} … is where")
    assert_names(after(first, bytes(len(whole[first]))), f"{damaged / first} … example")


def test_a_shard_is_named_by_what_is_in_the_folder(damaged: Path) -> None:
    """An index of a stranger leads to no other file."""
    text = (damaged / "index.json").read_text()
    values = json.loads(text)
    values["shards"]["train"][0][0] = "../../secret.tar"
    from toolkit.datasets.tars import layout

    values["sha256"] = layout._digest({key: value for key, value in values.items() if key != "sha256"})
    (damaged / "index.json").write_text(json.dumps(values))
    assert_names(refused(damaged), f"{damaged / 'index.json'} … secret.tar")


# -- commands

TINY = [
    *("encoder=conv", "encoder.hidden=8", "decoder=conv", "decoder.hidden=8", "likelihood=categorical", "dim=4"),
    *("quantizer=vq", "quantizer.codebook_size=16", "trainer.steps=2", "trainer.batch_size=4"),
]
PACK = ["pack", "dataset=waves", "dataset.axes=[8,8]", *(f"dataset.{name}={size}" for name, size in FEW.items())]


@pytest.mark.long
def test_a_run_over_shards_needs_them_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its codes are packed, too, and read as a dataset by itself."""
    shards, folder, codes = tmp_path / "shards", tmp_path / "run", tmp_path / "codes"
    assert command([*PACK, f"out={shards}"]) == 0
    assert "30 train, 5 val, 4 test" in capsys.readouterr().out
    words = ["dataset=shards", f"dataset.root={shards}", *TINY, "stage=autoencoder", f"hydra.run.dir={folder}"]
    assert command(["train", *words]) == 0, capsys.readouterr().err
    model = load(folder)
    assert model.files is WavesDataset
    assert command(["pack", "dataset=codes", f"dataset.run={folder}", f"out={codes}"]) == 0, capsys.readouterr().err
    expected = model.encode(torch.stack([model.dataset.example("test", i, None)["x"] for i in range(4)]))
    shards.rename(tmp_path / "gone")
    own = opened(codes)
    assert own.spec.levels == 16
    assert not own.spec.ordered
    assert torch.equal(torch.stack([own.example("test", i, None)["x"] for i in range(4)]), expected.cpu())
    own.plot([expected.cpu()], own.spec, tmp_path / "codes.png")
    assert (tmp_path / "codes.png").stat().st_size > 100


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ([*PACK], "no out given"),
        ([*PACK, "out=o", "encoder=conv"], "encoder=conv … dataset=NAME"),
        (["pack", "out=o"], "no dataset"),
        ([*PACK, "out=o", "shard_mb=0"], "shard_mb=0 … 1"),
        ([*PACK, "out=o", "form=x"], "form=x … array, file"),
        ([*PACK, "out=here"], "here … already"),
        (["train", "dataset=shards", "dataset.root=", *TINY], "dataset=shards: root … toolkit pack"),
    ],
)
def test_mistakes_are_told(
    words: list[str], facts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "index.json").touch()
    assert command(words) == 2
    assert_names(capsys.readouterr().err.partition(": ")[2], facts)


class Rounding(WavesDataset):  # type: ignore[misc]
    """Its files lose the last bit."""

    @classmethod
    def write(cls, x: torch.Tensor, spec: Any, path: Path) -> None:
        WavesDataset.write(x // 2 * 2, spec, path)


def test_files_that_lose_something_are_refused(tmp_path: Path) -> None:
    shards = packed(tmp_path / "whole", WavesDataset(**FEW), form="file")
    assert shards.index.members["x"] == ("x.npy", "int64")
    with pytest.raises(ToolkitError, match=r"form=file: \.npy"):
        packed(tmp_path / "rounded", Rounding(**FEW), form="file")


# -- a server


class Parts(SimpleHTTPRequestHandler):
    """A server of plain files that sends parts of them, where ``ranged`` says so."""

    ranged = True
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.ranged else None
        begin = int(asked[1]) if asked else 0
        end = int(asked[2]) + 1 if asked and asked[2] else len(content)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{min(end, len(content)) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes" if self.ranged else "none")
        self.send_header("Content-Length", str(len(content[begin:end])))
        self.end_headers()
        self.wfile.write(content[begin:end])

    def log_message(self, *_: object) -> None: ...


class WholeFiles(Parts):
    ranged = False


@contextmanager
def served(folder: Path, handler: type[Parts]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_examples_of_unequal_lengths_are_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sentence, before a file is written."""
    monkeypatch.setattr(WavesDataset, "lengths", lambda self, split: [4] * self.size(split))
    with pytest.raises(ToolkitError) as error:
        packed(tmp_path / "out", WavesDataset(axes=(4, 4), **FEW))
    assert_names(str(error.value), "dataset.lengths … shards … one length … leave it out … equal")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_server_of_files_gives_the_same(folder: Path, waves: WavesDataset) -> None:
    """By number, in loading processes, too; and as a stream, whose files are named."""
    pytest.importorskip("aiohttp", reason="needs pip install 'discrete-toolkit[remote]'")
    with served(folder, Parts) as url:
        shards = opened(url)
        batches = split_batches(shards, "train", torch.device("cpu"), batch_size=4, workers=2)
        x = torch.cat([batch.x for batch in batches])
        assert torch.equal(x, torch.stack([waves.example("train", i, None)["x"] for i in range(FEW["train_size"])]))
        stream = ShardStreamDataset(partial(registry.load, "dataset"), root=url, shuffle=4)
        near = ShardStreamDataset(partial(registry.load, "dataset"), root=str(folder), shuffle=4)
        for own, expected in zip(
            stream.stream("train", 1, 0, 2, None), near.stream("train", 1, 0, 2, None), strict=True
        ):
            assert own.key == expected.key
            assert_same(own.example, expected.example, "a server and a folder")
    with served(folder, WholeFiles) as url, pytest.raises(ToolkitError, match="knows ranges"):
        opened(url).example("train", 0, None)
