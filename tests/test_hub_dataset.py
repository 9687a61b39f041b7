"""Tables of the datasets library: any column, by number, as the table has it."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import assert_names

from toolkit import Dataset, ToolkitError, registry
from toolkit.datasets.hub_dataset import HubDataset
from toolkit.testing.dataset import DatasetSuite

datasets = pytest.importorskip("datasets", reason="needs pip install 'discrete-toolkit[datasets]'")
arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

pytestmark = [
    pytest.mark.slow,  # its import takes seconds
    pytest.mark.filterwarnings("ignore"),  # how the library hashes and closes
]
ROWS = 60
X = np.random.default_rng(0).integers(0, 8, (ROWS, 2, 4, 4))
MOODS = ("calm", "wild")
TABLE: dict[str, Any] = {"column": "numbers", "channels": 2, "axes": (4, 4), "levels": 8}


def rows(first: int, behind: int) -> list[dict[str, Any]]:
    return [
        {
            "numbers": X[i].tolist(),
            "wave": (X[i, :1, 0] / 7.0).tolist(),
            "kind": i % 3,
            "mood": MOODS[i % 2],
            "age": i % 5,
            "vector": [i / 60, 1.0],
            "said": None if i == 1 else f"{i} gelbe Flächen",
            "unused": "x",
        }
        for i in range(first, behind)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """A Parquet file, with the library's word for what is a class."""
    schema = None
    if "kind" in rows[0]:
        features = datasets.Features.from_arrow_schema(arrow.Table.from_pylist(rows).schema)
        schema = datasets.Features({**features, "kind": datasets.ClassLabel(names=["a", "b", "c"])}).arrow_schema
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), path)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "all.parquet", rows(0, ROWS))
    loaded = datasets.load_dataset("parquet", data_files={"train": str(tmp_path / "all.parquet")})
    loaded["train"].save_to_disk(str(tmp_path / "table"))
    return tmp_path / "table"


def opened(root: Path | None = None, **options: Any) -> HubDataset:
    given = {**TABLE, **options}
    return HubDataset(partial(registry.load, "dataset"), root=None if root is None else str(root), **given)


class TestTable(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _table(self, root: Path) -> None:
        self.root = root

    def make(self) -> Dataset:
        return opened(self.root, conditions=("kind", "mood", "age", "vector"), texts=("said",))


def test_what_is_no_text_is_no_caption(root: Path) -> None:
    with pytest.raises(ToolkitError, match=r"row 0 of train.*: dataset\.texts=\[vector\]: it has "):
        opened(root, texts=("vector",))


def test_texts_are_cut_at_a_characters_end(root: Path) -> None:
    dataset = opened(root, texts=("said",), text_bytes=11)
    (condition,) = dataset.spec.conditions
    assert (condition.name, condition.size, condition.text) == ("said", 11, True)
    splits = [(split, i) for split in ("train", "val", "test") for i in range(dataset.size(split))]
    texts = {condition.decoded(dataset.example(*each, None)["said"]) for each in splits}
    assert {"", "0 gelbe Fl", "10 gelbe Fl"} <= texts  # an ä has two bytes


def test_rows_and_labels_are_those_of_the_table(root: Path) -> None:
    """A missing val and test are rows of train, which are in no other split."""
    dataset = opened(root, conditions=("kind", "mood", "age", "vector"))
    kind, mood, age, vector = dataset.spec.conditions
    assert (kind.labels, mood.labels, age.size, vector.size) == (("a", "b", "c"), MOODS, 5, 2)
    found = []
    for split in ("train", "val", "test"):
        for index in range(dataset.size(split)):
            row = dataset.example(split, index, None)
            (number,) = np.flatnonzero((row["x"].numpy() == X).all((1, 2, 3)))
            assert (row["kind"], row["mood"], row["age"]) == (number % 3, number % 2, number % 5)
            assert row["vector"].tolist() == pytest.approx([number / 60, 1.0])
            found.append(int(number))
    assert sorted(found) == list(range(ROWS))
    assert min(dataset.size("val"), dataset.size("test")) > 0


def test_parquet_files_are_split_by_their_names(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000-of-00001.parquet", rows(0, 40))
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", rows(40, 60))
    dataset = opened(tmp_path / "data")
    assert dataset.size("val") == 20
    assert dataset.size("train") + dataset.size("test") == 40
    assert torch.equal(dataset.example("val", 3, None)["x"], torch.from_numpy(X[43]))
    assert {Path(file.path).suffix for file in dataset.source_files()} == {".parquet"}
    single = opened(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert sum(map(single.size, ("train", "val", "test"))) == 40


def test_bytes_are_arrays_where_no_dataset_reads_them(tmp_path: Path) -> None:
    def content(array: np.ndarray) -> bytes:
        file = BytesIO()
        np.save(file, array)
        return file.getvalue()

    write(tmp_path / "bytes.parquet", [{"numbers": content(x)} for x in X])
    dataset = opened(tmp_path / "bytes.parquet")
    assert any(np.array_equal(dataset.example("train", 0, None)["x"].numpy(), x) for x in X)


def test_real_numbers(root: Path) -> None:
    dataset = opened(root, column="wave", channels=1, axes=(4,), levels=None)
    x = dataset.example("train", 0, None)["x"]
    assert (x.dtype, tuple(x.shape)) == (torch.float32, (1, 4))
    assert dataset.spec.variance


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"column": "nummers"}, "column=nummers … numbers"),
        ({"conditions": ("moods",)}, "column=moods … mood"),
        ({"axes": (5, 4)}, "dataset= … row … (2, 5, 4)"),
        ({"levels": 4}, "dataset= … row … 0..3"),
        ({"levels": None}, "dataset= … row … int64"),
        ({"repo": "a/b"}, "give root=FOLDER … repo=OWNER/NAME"),
        ({"files": "waves"}, "dataset= … numbers, no files"),
    ],
    ids=str,
)
def test_mistakes_are_told(root: Path, options: dict[str, Any], facts: str) -> None:
    with pytest.raises((ToolkitError, ValueError)) as caught:
        opened(root, **options)
    assert_names(str(caught.value), facts)


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError) as caught:
        opened(tmp_path / "nowhere")
    assert_names(str(caught.value), f"dataset={tmp_path / 'nowhere'} … no such file")
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(ToolkitError) as caught:
        opened(tmp_path / "x.parquet")
    assert_names(str(caught.value), f"dataset={tmp_path / 'x.parquet'} cannot be opened")
