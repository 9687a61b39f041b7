from __future__ import annotations

import gzip
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar_imitation import BYTES, batch

from toolkit import Dataset, ToolkitError
from toolkit.testing.dataset import DatasetSuite
from toolkit_image.cifar10 import ARCHIVE, CLASSES, FOLDER, TRAIN, VARIANCE, CIFAR10Dataset


@pytest.fixture
def lone(tmp_path: Path) -> Path:
    """A folder for a test file alone."""
    (tmp_path / FOLDER).mkdir()
    return tmp_path / FOLDER


def refusal(root: Path, split: str = "test") -> str:
    with pytest.raises(ToolkitError) as caught:
        CIFAR10Dataset(root=str(root)).example(split, 0, None)
    return str(caught.value)


@pytest.fixture(scope="module")
def twice(folder: Path) -> Iterator[Dataset]:
    """The same dataset, read twice, in turn: a law that makes two compares what was read apart."""
    return cycle([CIFAR10Dataset(root=str(folder), flip=True) for _ in range(2)])


class TestCIFAR10(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _datasets(self, twice: Iterator[Dataset]) -> None:
        self.datasets = twice

    def make(self) -> Dataset:
        return next(self.datasets)


def test_the_spec_needs_no_data() -> None:
    dataset = CIFAR10Dataset(root="/nowhere")
    assert (dataset.spec.shape, dataset.spec.levels) == ((3, 32, 32), 256)
    assert dataset.spec.conditions[0].labels == CLASSES
    assert [dataset.size(split) for split in ("train", "val", "test")] == [45_000, 5_000, 10_000]


@pytest.mark.slow
def test_the_real_pixels(real: CIFAR10Dataset) -> None:
    x = torch.stack([real.example("train", i, None)["x"] for i in range(45_000)])
    x = torch.cat([x, torch.stack([real.example("val", i, None)["x"] for i in range(5_000)])])
    levels = [row.double() / 255 for row in x.transpose(0, 1).flatten(1)]
    mean, std = np.array([row.mean() for row in levels]), np.array([row.std() for row in levels])
    assert mean == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=1e-6)
    assert std == pytest.approx([0.24703223, 0.24348513, 0.26158784], abs=1e-6)
    assert pytest.approx(4 * ((std**2).mean() + mean.var()), rel=1e-6) == VARIANCE


@pytest.mark.slow
def test_the_real_labels(real: CIFAR10Dataset) -> None:
    labels = torch.stack([real.example("test", i, None)["class"] for i in range(10_000)])
    assert labels.bincount().tolist() == [1000] * 10
    first = [CLASSES[int(labels[i])] for i in range(4)]
    assert first == ["cat", "ship", "ship", "airplane"]


def test_validation_is_the_end_of_the_training_images(folder: Path) -> None:
    dataset = CIFAR10Dataset(root=str(folder))
    pixels = np.frombuffer(np.random.default_rng(0).bytes(BYTES), np.uint8).reshape(-1, 3, 32, 32)
    for split, index, where in [
        ("train", 0, 0),
        ("train", 44_999, 4_999),
        ("val", 0, 5_000),
        ("val", 4_999, 9_999),
    ]:
        assert np.array_equal(dataset.example(split, index, None)["x"], pixels[where])


def test_the_folder_its_parent_and_the_archive_are_the_same(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / ARCHIVE, "w:gz", compresslevel=1) as archive:
        archive.add(folder / "test_batch", f"{FOLDER}/test_batch")
    expected = CIFAR10Dataset(root=str(folder)).example("test", 9_999, None)
    for root in (folder.parent, tmp_path, tmp_path / ARCHIVE):
        example = CIFAR10Dataset(root=str(root)).example("test", 9_999, None)
        assert torch.equal(example["x"], expected["x"])
        assert example["class"] == expected["class"]


def test_half_of_the_images_are_flipped(folder: Path) -> None:
    plain, flipped = CIFAR10Dataset(root=str(folder)), CIFAR10Dataset(root=str(folder), flip=True)
    generator = torch.Generator().manual_seed(0)
    turned = 0
    for i in range(200):
        x, y = plain.example("test", i, generator)["x"], flipped.example("test", i, generator)["x"]
        assert torch.equal(y, x) or torch.equal(y, x.flip(-1))
        turned += not torch.equal(y, x)
    assert 70 < turned < 130


def test_a_missing_folder_says_where_to_get_it(tmp_path: Path) -> None:
    message = refusal(tmp_path / "data")
    for part in (
        str(tmp_path / "data"),
        FOLDER,
        ARCHIVE,
        "dataset.root=",
        "CIFAR-10 python version",
        "https://",
    ):
        assert part in message


def test_an_unset_folder_is_not_the_current_one() -> None:
    with pytest.raises(ToolkitError, match=r"dataset\.root is empty; dataset\.root=FOLDER"):
        CIFAR10Dataset(root="")


def test_a_missing_batch_is_named(folder: Path, lone: Path) -> None:
    (lone / TRAIN[0]).symlink_to(folder / TRAIN[0])
    (lone / TRAIN[1]).symlink_to(folder / TRAIN[0])
    assert f"{lone}: no data_batch_3, data_batch_4, data_batch_5; " in refusal(lone, "train")
    assert f"{lone}: no test_batch; " in refusal(lone, "test")


def test_a_missing_batch_in_the_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme.html").write_text("hello")
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as archive:
        archive.add(tmp_path / "readme.html", f"{FOLDER}/readme.html")
    assert f"{tmp_path / ARCHIVE}: no test_batch; " in refusal(tmp_path)


@pytest.mark.parametrize("target", ["readme.html", "data_batch_1", "test_batch", "nothing"])
@pytest.mark.parametrize("hard", [False, True])
def test_a_link_in_the_archive_is_refused(target: str, hard: bool, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as archive:
        member = tarfile.TarInfo(f"{FOLDER}/test_batch")
        member.type, member.linkname = tarfile.LNKTYPE if hard else tarfile.SYMTYPE, f"{FOLDER}/{target}"
        archive.addfile(member)
    message = refusal(tmp_path)
    assert f"{FOLDER}/test_batch is no file but a link" in message
    assert "CIFAR-10 python version" in message


def test_a_member_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo(f"{FOLDER}/readme.html")
    member.size = 1 << 40
    with gzip.open(tmp_path / ARCHIVE, "wb") as file:
        file.write(member.tobuf())
    assert "readme.html is 1,099,511,627,776 bytes" in refusal(tmp_path)


def test_a_pipe_in_place_of_a_batch(lone: Path) -> None:
    os.mkfifo(lone / "test_batch")
    assert f"{lone / 'test_batch'}: cannot be opened (it is no file)" in refusal(lone)


def test_a_file_too_large_for_a_batch(lone: Path) -> None:
    with (lone / "test_batch").open("wb") as file:
        file.truncate(1 << 40)
    assert "it has more than 67,108,864 bytes" in refusal(lone)


@pytest.mark.long
@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("keys", [(b"data", b"labels"), ("data", "labels")])
@pytest.mark.few(2)
def test_a_batch_that_numpy_saved_again_is_the_same(
    protocol: int, keys: tuple[object, object], folder: Path, lone: Path
) -> None:
    """NumPy 2 has another name for its core than the files have."""
    pixels = np.frombuffer(np.random.default_rng(1).bytes(BYTES), np.uint8).reshape(-1, 3072)
    expected = CIFAR10Dataset(root=str(folder)).batch("test", range(10_000), None)
    content = pickle.dumps(dict(zip(keys, (pixels.copy(), expected["class"].tolist()), strict=True)), protocol)
    (lone / "test_batch").write_bytes(content)
    again = CIFAR10Dataset(root=str(lone)).batch("test", range(10_000), None)
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def bomb(kind: str) -> bytes:
    """A pickle that would take gigabytes."""
    if kind == "memo":
        return b"\x80\x02}r\x00\x00\x00\x08."
    if kind == "old memo":
        return b"}p134217728\n."
    if kind == "bytes":
        return b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"."
    labels: object = 1
    for _ in range(12):
        labels = [labels] * 10
    return pickle.dumps({b"data": b"", b"labels": labels}, 2)


@pytest.mark.parametrize("kind", ["memo", "old memo", "bytes", "lists"])
def test_a_pickle_that_takes_more_than_its_size_is_refused(kind: str, folder: Path, lone: Path) -> None:
    (lone / "test_batch").write_bytes(bomb(kind))
    tracemalloc.start()
    message = refusal(lone)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"{lone / 'test_batch'}: not a CIFAR-10 batch" in message
    assert most < 100 << 20


def test_a_folder_in_place_of_a_batch(lone: Path) -> None:
    (lone / "test_batch").mkdir()
    assert f"{lone / 'test_batch'}: cannot be opened" in refusal(lone)


@pytest.mark.parametrize("length", [0, 1, 100, 20_000_000])
def test_a_truncated_batch(length: int, folder: Path, lone: Path) -> None:
    with (folder / "test_batch").open("rb") as stream:
        (lone / "test_batch").write_bytes(stream.read(length))
    assert f"{lone / 'test_batch'}: not a CIFAR-10 batch" in refusal(lone)


@pytest.mark.long
@pytest.mark.parametrize("length", [5, 1_000_000])
def test_a_truncated_archive(length: int, folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "whole", "w:gz", compresslevel=1) as archive:
        archive.add(folder / "test_batch", f"{FOLDER}/test_batch")
    (tmp_path / ARCHIVE).write_bytes((tmp_path / "whole").read_bytes()[:length])
    assert str(tmp_path / ARCHIVE) in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a letter, not an archive", bytes(2000)])
def test_a_file_that_is_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    message = refusal(tmp_path / "file")
    assert message.startswith(f"{tmp_path / 'file'}: the archive is damaged (")
    assert "\n" not in message


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (batch(bytes(3072 * 5), [0] * 5, (5, 3072)), r"shapes are \(5, 3072\) and \(5,\)"),
        (batch(bytes(BYTES), [0] * 9_999), r"and \(9999,\)"),
        (batch(bytes(BYTES), [0] * 10_000, (3072, 10_000)), r"shapes are \(3072, 10000\)"),
        (batch(bytes(BYTES), [0] * 9_999 + [10]), "labels are not in 0..9"),
        (batch(bytes(BYTES), [0] * 9_999 + [-1]), "labels are not in 0..9"),
        (batch(bytes(BYTES), [0] * 10_000, dtype=b"f4"), "not of bytes"),
        (batch(bytes(100), [0] * 10_000), "shape"),
        (pickle.dumps({"data": []}, 2), "data"),
        (pickle.dumps([1, 2, 3], 2), "list"),
        (b"a letter, not a pickle", "not a CIFAR-10 batch"),
        (batch(bytes(BYTES), [0] * 10_000).replace(b"\x89", b"\x88", 1), "row by row"),
    ],
    ids=[
        "few",
        "labels",
        "turned",
        "label 10",
        "label -1",
        "floats",
        "short",
        "keys",
        "list",
        "text",
        "columns first",
    ],
)
def test_a_wrong_batch(content: bytes, why: str, lone: Path) -> None:
    (lone / "test_batch").write_bytes(content)
    message = refusal(lone)
    assert message.startswith(f"{lone / 'test_batch'}: not a CIFAR-10 batch (")
    with pytest.raises(ToolkitError, match=why):
        CIFAR10Dataset(root=str(lone)).example("test", 0, None)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cos\nsystem\n(S'touch {}'\ntR.", "os.system"),
        (b'cbuiltins\neval\n(S\'open("{}", "w")\'\ntR.', "builtins.eval"),
        (
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncos\nsystem\n(S'touch {}'\ntRu.",
            "os.system",
        ),
        (b"(S'touch {}'\nios\nsystem\n.", "os.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93(S'{}'\ntR.", "numpy.load"),
        (b"cnumpy\nndarray.tofile\n(S'{}'\ntR.", "numpy.ndarray.tofile"),
    ],
    ids=["system", "eval", "within", "inst", "numpy", "dotted"],
)
def test_a_malicious_pickle_is_refused(content: bytes, name: str, lone: Path) -> None:
    mark = lone / "was-here"
    (lone / "test_batch").write_bytes(content.replace(b"{}", str(mark).encode()))
    message = refusal(lone)
    assert f"{lone / 'test_batch'}" in message
    assert f"it asks for {name}, which is rejected" in message
    assert not mark.exists()
