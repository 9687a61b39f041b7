"""Pictures in shards and tables: those of their folder, decoded from memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from packed import packed
from test_folder import fill, make

from toolkit import ToolkitError, registry
from toolkit.datasets.foreign import Fitting
from toolkit.datasets.hub_dataset import HubDataset
from toolkit.datasets.shard_stream import ShardStreamDataset
from toolkit.testing.dataset import assert_same
from toolkit_image.folder import FolderDataset

NAMES = [f"{split}/{kind}/{i}.png" for split in ("train", "val", "test") for kind in "ab" for i in range(4)]


def test_shards_of_files_are_the_folder(tmp_path: Path) -> None:
    """By number and as a stream; what is written is pictures."""
    folder = make(fill(tmp_path / "photos", NAMES), 16)
    shards = packed(tmp_path / "shards", folder, "image_folder", form="file")
    assert shards.index.members["x"] == ("x.png", "uint8")
    for split in ("train", "val", "test"):
        for index in range(folder.size(split)):
            own, expected = shards.example(split, index, None), folder.example(split, index, None)
            assert_same(own, expected, "shards and their folder")
            assert own["x"].dtype == expected["x"].dtype
    stream = ShardStreamDataset(partial(registry.load, "dataset"), root=str(tmp_path / "shards"))
    for streamed in stream.stream("train", 0, 0, 1, None):
        index = int(streamed.key.rpartition("/")[2])
        assert_same(streamed.example, folder.example("train", index, None), "a stream and its folder")
    shards.write(folder.example("val", 0, None)["x"], shards.spec, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_picture_in_memory_is_named(tmp_path: Path) -> None:
    folder = make(fill(tmp_path / "photos", NAMES), 16)
    content = (tmp_path / "photos" / NAMES[0]).read_bytes()
    fitting = Fitting(FolderDataset, folder.spec, "random")
    assert torch.equal(
        fitting.of_bytes(content, "a.png", None), folder.read(tmp_path / "photos" / NAMES[0], folder.spec)
    )
    for broken in (b"", content[: len(content) // 2], b"GIF89a"):
        with pytest.raises(ToolkitError, match=r"^a\.png: "):
            fitting.of_bytes(broken, "a.png", None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # how the library hashes and closes
def test_a_table_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="needs pip install 'discrete-toolkit[datasets]'")
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = make(fill(tmp_path / "photos", NAMES), 16)
    paths = [tmp_path / "photos" / name for name in sorted(NAMES) if name.startswith("train")]
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    kinds = [int(path.parent.name == "b") for path in paths]
    pictures = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    rows = [{"image": picture, "kind": kind} for picture, kind in zip(pictures, kinds, strict=True)]
    (tmp_path / "table").mkdir()
    for split in ("train", "test", "validation"):
        table = arrow.Table.from_pylist(rows, schema=features.arrow_schema)
        parquet.write_table(table, tmp_path / "table" / f"{split}-0.parquet")
    own = HubDataset(
        partial(registry.load, "dataset"),
        root=str(tmp_path / "table"),
        files="image_folder",
        axes=(16, 16),
        conditions=("kind",),
    )
    for index, path in enumerate(paths):
        row = own.example("train", index, None)
        assert torch.equal(row["x"], folder.read(path, folder.spec))
        assert row["kind"] == int(path.parent.name == "b")
