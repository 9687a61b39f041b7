from __future__ import annotations

import logging
import os
import re
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit import Dataset, ToolkitError
from toolkit.testing.dataset import DatasetSuite
from toolkit_image import folder, layout
from toolkit_image.folder import FolderDataset, allotted

KOREAN = "고양이 [1], a=b"


def put(path: Path, seed: int = 0, size: tuple[int, int] = (24, 20)) -> Path:
    """An image of noise, ``(height, width)``, and the folders to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def fill(folder: Path, names: list[str], seed: int = 0) -> Path:
    for i, name in enumerate(names):
        put(folder / name, seed + i)
    return folder


def make(root: Path, size: int = 16, **options: object) -> FolderDataset:
    return FolderDataset(root=str(root), size=size, **options)


class TestFolder(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.root = tmp_path / "그림 [x], y=z"
        fill(self.root, [f"{name}/{i}.png" for name in ("cat", KOREAN) for i in range(40)])

    def make(self) -> Dataset:
        return make(self.root, crop="random", flip=True)


class TestGreyWithoutClasses(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.root = fill(tmp_path / "flat", [f"{i}.webp" for i in range(60)])

    def make(self) -> Dataset:
        return make(self.root, channels=1)


def test_split_folders(tmp_path: Path) -> None:
    fill(tmp_path, ["train/cat/a.png", "train/dog/b.JPG", "train/dog/deep/er/c.jpeg", "val/dog/d.webp"])
    fill(tmp_path, ["test/bird/e.png", "test/bird/notes.png"])
    dataset = make(tmp_path)
    assert dataset.splits["train"] == ["train/cat/a.png", "train/dog/b.JPG", "train/dog/deep/er/c.jpeg"]
    assert [dataset.example_name("train", i) for i in range(3)] == dataset.splits["train"]
    assert [dataset.size(split) for split in ("train", "val", "test")] == [3, 1, 2]
    assert dataset.spec.conditions[0].labels == ("bird", "cat", "dog")
    assert [int(dataset.example("train", i, None)["class"]) for i in range(3)] == [1, 2, 2]
    assert int(dataset.example("val", 0, None)["class"]) == 2
    assert int(dataset.example("test", 0, None)["class"]) == 0


def test_without_class_folders_there_is_no_condition(tmp_path: Path) -> None:
    dataset = make(fill(tmp_path, ["train/a.png", "val/b.png", "test/c.png"]))
    assert dataset.spec.conditions == ()
    assert set(dataset.example("val", 0, None)) == {"x"}


def test_a_test_split_without_classes_is_of_no_known_class(tmp_path: Path) -> None:
    dataset = make(fill(tmp_path, ["train/cat/a.png", "train/dog/b.png", "val/cat/b.png", "test/c.png"]))
    assert int(dataset.example("test", 0, None)["class"]) == dataset.spec.conditions[0].size == 2


def test_files_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    names = ["Z/a.png", "a/B.png", "a/a.png", "a b/c.png", "가/a.png", "a-b/c.png", "é/a.png"]
    fill(tmp_path, ["val/Z/a.png", "test/Z/a.png"])
    dataset = make(fill(tmp_path / "train", names).parent)
    assert dataset.splits["train"] == [f"train/{name}" for name in sorted(names, key=str.encode)]
    assert dataset.spec.conditions[0].labels == ("Z", "a", "a b", "a-b", "é", "가")


def test_the_hash_of_the_path_decides_and_nothing_else(tmp_path: Path) -> None:
    names = [f"{name}/{i}.png" for name in ("cat", KOREAN) for i in range(40)]
    whole = make(fill(tmp_path / "whole", names))
    for split, paths in whole.splits.items():
        assert paths == sorted((name for name in names if allotted(name) == split), key=str.encode)
    part = make(fill(tmp_path / "part" / "train", names[::2], seed=7).parent)
    for split, paths in part.splits.items():
        assert {path.removeprefix("train/") for path in paths} <= set(whole.splits[split])


def test_the_hash_never_changes() -> None:
    """Or images of an old run's test split would become training images."""
    assert [allotted(f"cat/{i}.png") for i in (0, 1, 25, 26, 37)] == ["train", "test", "test", "val", "val"]


def test_the_hash_gives_ninety_five_and_five_percent() -> None:
    counts = Counter(allotted(f"class/{i}.jpg") for i in range(10_000))
    assert counts["train"] == pytest.approx(9000, abs=120)
    assert counts["val"] == pytest.approx(500, abs=90)


def test_only_what_is_missing_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"cat/{i}.png" for i in range(80)]
    fill(tmp_path, [f"train/{name}" for name in names] + ["val/cat/x.png", "spare/cat/y.png"])
    with caplog.at_level(logging.INFO):
        dataset = make(tmp_path)
    assert dataset.splits["val"] == ["val/cat/x.png"]
    held_out = [name for name in names if allotted(name) == "test"]
    assert dataset.splits["test"] == [f"train/{name}" for name in sorted(held_out)]
    assert dataset.size("train") == 80 - len(held_out)
    assert "test set aside by a hash of the path" in caplog.text
    assert "passed over: the folder spare" in caplog.text


def test_the_log_says_how_the_images_were_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        make(fill(tmp_path, ["train/a.png", "val/b.png", "test/c.png"]))
    assert f"{tmp_path}: 1 train, 1 val, 1 test images, split by folder" in caplog.text


def test_hidden_and_other_files_are_not_seen(tmp_path: Path) -> None:
    fill(tmp_path, ["train/cat/a.png", "val/cat/b.png", "test/cat/c.png"])
    for name in (
        "train/.DS_Store",
        "train/readme.txt",
        "train/cat/._a.png",
        "train/cat/a.txt",
        ".cache/x.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    dataset = make(tmp_path)
    assert dataset.classes == {"cat": 0}
    assert dataset.splits["train"] == ["train/cat/a.png"]


def test_a_linked_class_folder_is_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", ["a.png"])
    fill(tmp_path / "root", ["train/dog/b.png", "val/dog/b.png", "test/dog/b.png"])
    (tmp_path / "root" / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    assert make(tmp_path / "root").splits["train"] == ["train/cat/a.png", "train/dog/b.png"]


def test_a_link_inside_a_class_is_followed_and_one_that_leads_back_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "elsewhere", ["c.png"])
    fill(tmp_path / "root", ["train/cat/a.png", "train/dog/b.png", "val/cat/v.png", "test/cat/t.png"])
    (tmp_path / "root" / "train" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "train" / "cat" / "up").symlink_to("..")
    (tmp_path / "root" / "val" / "cat" / "train").symlink_to("../../train")
    with caplog.at_level(logging.INFO):
        dataset = make(tmp_path / "root")
    assert dataset.splits["train"] == ["train/cat/a.png", "train/cat/more/c.png", "train/dog/b.png"]
    assert dataset.splits["val"] == ["val/cat/v.png"]
    assert "passed over: 2 linked folders" in caplog.text


def test_splits_in_other_words_are_no_classes(tmp_path: Path) -> None:
    fill(tmp_path, ["Train/cat/a.png", "Validation/cat/b.png", "TEST/cat/c.png"])
    dataset = make(tmp_path)
    assert dataset.splits == {
        "train": ["Train/cat/a.png"],
        "val": ["Validation/cat/b.png"],
        "test": ["TEST/cat/c.png"],
    }
    assert dataset.classes == {"cat": 0}
    (tmp_path / "TEST").rename(tmp_path / "test_images")
    assert "test_images: looks like a split" in refusal(tmp_path)


def test_pictures_of_every_format_are_found_and_the_others_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    suffixes = ("png", "jpg", "jfif", "webp", "bmp", "gif", "tif", "tiff", "avif", "ppm", "tga", "jp2")
    names = [f"{suffix}.{suffix}" for suffix in suffixes]
    fill(tmp_path, [f"train/{name}" for name in names] + ["val/a.png", "test/a.png"])
    (tmp_path / "train" / "phone.heic").write_bytes(b"not read by Pillow")
    with caplog.at_level(logging.INFO):
        dataset = make(tmp_path)
    assert dataset.splits["train"] == sorted(f"train/{name}" for name in names)
    assert {dataset.example("train", i, None)["x"].shape for i in range(len(names))} == {(3, 16, 16)}
    assert "passed over: 1 .heic" in caplog.text


def ramp(path: Path) -> Path:
    """An image whose level says the column, 3 times as wide as high."""
    path.parent.mkdir(parents=True)
    Image.fromarray(np.tile(np.arange(48, dtype=np.uint8) * 5, (16, 1))).save(path)
    return path.parent.parent


def test_the_crop_is_in_the_middle_or_anywhere(tmp_path: Path) -> None:
    root = ramp(tmp_path / "train" / "a.png")
    fill(root, ["val/a.png", "test/a.png"])
    middle, anywhere = make(root), make(root, crop="random")
    generator = torch.Generator().manual_seed(0)
    assert int(middle.example("train", 0, generator)["x"][0, 0, 0]) == 16 * 5
    assert torch.equal(anywhere.example("train", 0, None)["x"], middle.example("train", 0, None)["x"])
    left = [int(anywhere.example("train", 0, generator)["x"][0, 0, 0]) for _ in range(50)]
    assert min(left) < 5 * 5
    assert max(left) > 27 * 5


def test_half_of_the_images_are_flipped(tmp_path: Path) -> None:
    root = ramp(tmp_path / "train" / "a.png")
    fill(root, ["val/a.png", "test/a.png"])
    dataset, generator = make(root, flip=True), torch.Generator().manual_seed(0)
    plain = dataset.example("train", 0, None)["x"]
    seen = [dataset.example("train", 0, generator)["x"] for _ in range(100)]
    assert all(torch.equal(x, plain) or torch.equal(x, plain.flip(-1)) for x in seen)
    assert 30 < sum(torch.equal(x, plain) for x in seen) < 70


def test_the_variance_is_that_of_the_training_images(tmp_path: Path) -> None:
    dataset = make(fill(tmp_path, ["train/a.png", "train/b.png", "val/c.png", "test/d.png"]))
    x = torch.stack([dataset.example("train", i, None)["x"] for i in range(2)]).double() / 127.5 - 1
    assert dataset.spec.variance == pytest.approx(x.var(correction=0).item(), rel=1e-6)
    assert make(tmp_path).spec == dataset.spec


def test_not_every_image_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, [f"train/{i:03}.png" for i in range(300)] + ["val/a.png", "test/a.png"])
    decoded: list[Path] = []
    decode = folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda *words: (decoded.append(words[0]), decode(*words))[1])
    assert make(tmp_path).size("train") == 300
    assert len(decoded) == 100


def test_a_second_start_opens_no_image_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, [f"train/{name}.png" for name in "abc"] + ["val/a.png", "test/a.png"])
    first = make(tmp_path)
    opened: list[Path] = []
    monkeypatch.setattr(layout, "image_size", lambda path: (opened.append(path), [16, 16])[1])
    assert make(tmp_path).splits == first.splits
    assert opened == []
    put(tmp_path / "train" / "b.png", size=(40, 40))
    make(tmp_path)
    assert opened == [tmp_path / "train" / "b.png"]


def refusal(root: Path, **options: object) -> str:
    with pytest.raises(ToolkitError) as caught:
        make(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_root(tmp_path: Path) -> None:
    message = refusal(tmp_path / "none")
    assert str(tmp_path / "none") in message
    assert "dataset.root=" in message


def test_no_images_at_all(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    assert refusal(tmp_path) == f"{tmp_path}: no images (.png, .jpg, .jpeg, .webp, …)"


def test_an_empty_class_folder(tmp_path: Path) -> None:
    fill(tmp_path, ["train/cat/a.png"])
    (tmp_path / "train" / KOREAN).mkdir()
    assert f"{tmp_path / 'train' / KOREAN}: a class folder without images" in refusal(tmp_path)


def test_an_empty_split_folder(tmp_path: Path) -> None:
    fill(tmp_path, ["train/cat/a.png"])
    (tmp_path / "val").mkdir()
    assert f"{tmp_path / 'val'}: no images" in refusal(tmp_path)


def test_no_training_folder(tmp_path: Path) -> None:
    assert "there is val and test but no train" in refusal(fill(tmp_path, ["val/a.png", "test/a.png"]))


def test_images_beside_class_folders(tmp_path: Path) -> None:
    fill(tmp_path, ["train/cat/a.png", "train/b.png"])
    assert f"{tmp_path / 'train' / 'b.png'}: is beside class folders" in refusal(tmp_path)


def test_too_few_images_to_split(tmp_path: Path) -> None:
    assert allotted("10.png") != "train"
    assert "too few images" in refusal(fill(tmp_path, ["10.png"]))


@pytest.mark.parametrize("options", [{"size": 0}, {"channels": 2}])
def test_options_that_make_no_sense(options: dict[str, int], tmp_path: Path) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"^{name}={value}: "):
        make(fill(tmp_path, ["train/a.png"]), **options)


def test_an_image_smaller_than_the_crop(tmp_path: Path) -> None:
    fill(tmp_path, ["train/a.png", "test/a.png"])
    put(tmp_path / "val" / "small.png", size=(30, 15))
    with pytest.raises(ToolkitError, match=r"small\.png: the image is 15 x 30 .* 16 x 16; .* dataset\.size"):
        make(tmp_path)


def test_a_damaged_image(tmp_path: Path) -> None:
    fill(tmp_path, ["train/a.png", "test/a.png", "val/a.png"])
    (tmp_path / "val" / "a.png").write_text("a letter")
    with pytest.raises(ToolkitError, match=r"val/a\.png: not a PNG, JPEG, WebP or other image"):
        make(tmp_path)


def picture_of(width: int, height: int) -> bytes:
    """A PNG that says it has this size, and has nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def spoil(path: Path, damage: str) -> str:
    """Makes an image that cannot be used; why."""
    if damage == "text":
        path.write_text("a letter")
        return "not a PNG, JPEG, WebP or other image"
    if damage == "pipe":
        os.mkfifo(path)
        return r"cannot be read as an image \(it is no file\)"
    if damage == "bomb":
        path.write_bytes(picture_of(40_000, 40_000))
        return "more than"
    if damage == "small":
        put(path, size=(30, 15))
        return "the image is 15 x 30"
    path.write_bytes(put(path).read_bytes()[:700])  # its header is whole
    return "cannot be read as an image"


@pytest.mark.parametrize("damage", ["text", "small", "truncated", "pipe", "bomb"])
def test_an_image_that_cannot_be_used_stops_the_run_or_is_skipped(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, [f"train/cat/{name}.png" for name in "acd"] + ["val/cat/a.png", "test/dog/a.png"])
    why = spoil(tmp_path / "train" / "cat" / "b.png", damage)
    with pytest.raises(ToolkitError, match=rf"train/cat/b\.png: {why}.*\ndataset\.on_error=skip"):
        make(tmp_path)
    dataset = make(tmp_path, on_error="skip")
    seen = {dataset.example("train", i, None)["x"].numpy().tobytes() for i in range(dataset.size("train"))}
    assert len(seen) == 3
    assert dataset.size("train") == (4 if damage == "truncated" else 3)  # which shows only when it is decoded
    assert dataset.policy.skipped == {"train/cat/b.png"}
    assert re.search(rf"b\.png: {why}", caplog.text)
    assert caplog.text.count("1 files skipped so far") == 1
