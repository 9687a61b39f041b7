"""Splits that lie on the device: the same batches, in the same order, with the same random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from messages import assert_names
from stranger.stranger_plugin import SpecksDataset
from torch import Tensor
from toys import TILES, VQ, plugged_in, trainers

from toolkit import on_device
from toolkit.batches import Batch, TrainBatches
from toolkit.cli.config.compose import compose
from toolkit.dataset import Dataset, Examples, gather
from toolkit.datasets.waves import WavesDataset
from toolkit.errors import ToolkitError
from toolkit.on_device import table_on
from toolkit.options import OnDevice
from toolkit.runs.codes import CachedCodes
from toolkit.stages.run import train
from toolkit.tables import Table

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CODES = {
    "codes": np.random.default_rng(0).integers(0, 500, (37, 2, 3, 3)),
    "kind": np.arange(37) % 3,
    "pitch": np.random.default_rng(1).random((37, 1), np.float32),
}


def cached(dtype: str) -> CachedCodes:
    return CachedCodes({"train": {**CODES, "codes": (CODES["codes"] % 200).astype(dtype)}})


DATASETS = {
    "specks": SpecksDataset,
    "waves": lambda: WavesDataset(train_size=37),
    "uint8 codes": lambda: cached("uint8"),
    "uint16 codes": lambda: cached("uint16"),
    "int32 codes": lambda: cached("int32"),
}


@pytest.fixture(params=DATASETS)
def examples(request: pytest.FixtureRequest) -> Examples:
    made: Examples = DATASETS[request.param]()
    return made


def on_cpu(examples: Examples) -> Table:
    table = table_on(CPU, examples, "train", True, reads=0, note=lambda _: None)
    assert table is not None
    return table


def batches(examples: Examples, start: int = 0, table: Table | None = None, **words: int) -> Iterator[Batch]:
    return TrainBatches(examples, CPU, batch_size=5, seed=3, start=start, table=table, **words)


def assert_equal(ours: Sequence[Batch], theirs: Sequence[Batch]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.x, b.x)
        assert a.x.dtype == b.x.dtype
        assert a.conditions.keys() == b.conditions.keys()
        for name, value in a.conditions.items():
            assert torch.equal(value, b.conditions[name])
            assert value.dtype == b.conditions[name].dtype


@pytest.mark.parametrize("start", [0, 4])
def test_batches_from_a_table_are_the_same(examples: Examples, start: int) -> None:
    """Over several epochs, and from any batch on."""
    table = on_cpu(examples)
    assert_equal(list(islice(batches(examples, start, table), 20)), list(islice(batches(examples, start), 20)))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_takes_its_share_from_a_table(rank: int) -> None:
    specks = SpecksDataset()
    ours, theirs = (islice(batches(specks, 1, table, rank=rank, ranks=2), 12) for table in (on_cpu(specks), None))
    assert_equal(list(ours), list(theirs))


def test_processes_draw_what_is_random() -> None:
    specks = SpecksDataset()
    table = on_cpu(specks)
    assert table.random
    assert_equal(list(islice(batches(specks, 0, table, workers=2), 6)), list(islice(batches(specks), 6)))


def test_where_nothing_is_random_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = cached("uint8")
    table = on_cpu(codes)
    assert not table.random
    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter.__init__", None)
    assert_equal(list(islice(batches(codes, 0, table, workers=2), 3)), list(islice(batches(codes), 3)))


def test_a_batch_of_codes_is_the_tables() -> None:
    codes = cached("uint16")
    ours, theirs = gather(codes, codes.table("train"), "train", [5, 0, 5], None), codes.batch("train", [5, 0, 5], None)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) and value.dtype == theirs[name].dtype for name, value in ours.items())


class Bare:
    """Examples without a table."""

    def size(self, split: str) -> int:
        return 10

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": torch.tensor([index])}


class Many(SpecksDataset):  # type: ignore[misc]
    """Each of 256 MiB, of which none is made."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": torch.empty(1 << 28, dtype=torch.uint8, device="meta")}

    def table(self, split: str) -> dict[str, Tensor]:
        raise AssertionError("a table that does not fit is not made")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose memory is asked for, but which gets no tensor."""
    monkeypatch.setattr(on_device, "free_memory", lambda device: 64 << 30)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_, **__: self)


def decided(device: torch.device, examples: Examples, wanted: OnDevice, reads: int) -> tuple[bool, list[str]]:
    notes: list[str] = []
    return table_on(device, examples, "train", wanted, reads=reads, note=notes.append) is not None, notes


@pytest.mark.usefixtures("gpu")
def test_what_auto_decides() -> None:
    specks = SpecksDataset()
    kept, notes = decided(GPU, specks, "auto", 48)
    assert kept
    assert notes == ["train: all 48 examples lie on cuda, in 0 MiB"]
    assert decided(CPU, specks, "auto", 48) == (False, [])
    assert decided(GPU, specks, "auto", 47) == (False, []), "it is read once at most"
    assert decided(GPU, specks, False, 48) == (False, [])
    assert decided(GPU, Bare(), "auto", 48) == (False, [])
    assert decided(GPU, Many(), "auto", 48)[0] is False
    [note] = decided(GPU, Many(), "auto", 48)[1]
    assert_names(note, "train … 12288 MiB … 1/8 of the 65536 MiB … cuda … data_on_device=true")


def test_what_has_no_table_says_so_where_one_is_wanted() -> None:
    with pytest.raises(ToolkitError) as error:
        decided(CPU, Bare(), True, 1)
    assert_names(str(error.value), "data_on_device=true … Bare … one by one … data_on_device=auto")


@pytest.mark.slow
def test_a_run_tells_once_what_lies_on_the_device(tmp_path: Path) -> None:
    with plugged_in():
        words = ["dataset=waves", "dataset.axes=[8,8]", *TILES[1:], *VQ, *trainers("steps=2", "batch_size=4")]
        train(compose([*words, "stage=autoencoder", "trainer.data_on_device=true"]).config, tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("train: all 20000 examples lie on cpu") == 1


def test_a_dataset_says_by_a_method_of_its_own_that_it_has_a_table() -> None:
    assert Dataset.table(SpecksDataset(), "train") is None
    assert SpecksDataset().table("train") is not None


@pytest.mark.parametrize("value", ["maybe", "1"])
def test_another_choice_is_refused(value: str) -> None:
    with plugged_in(), pytest.raises(ToolkitError) as error:
        compose([*TILES, f"trainer.data_on_device={value}"])
    assert_names(str(error.value), f"trainer.data_on_device: … auto, true, false … {value}")
