"""Shards of a dataset, as ``toolkit pack`` writes them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from toolkit import Dataset, registry
from toolkit.cli.packing import pack
from toolkit.config import PartConfig
from toolkit.datasets.shards import ShardsDataset

FEW: dict[str, Any] = {"train_size": 30, "val_size": 5, "test_size": 4}


class Quiet:
    """Nobody watches."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> Any:
        return lambda done: None

    def __exit__(self, *_: object) -> None: ...


def packed(
    folder: Path, dataset: Dataset, name: str = "waves", *, form: str = "array", shard_bytes: int = 20_000
) -> ShardsDataset:
    """The dataset in shards of so many bytes, opened."""
    options = SimpleNamespace(shard_mb=shard_bytes / 1_000_000, form=form, workers=0)
    pack(dataset, PartConfig(name, {}), folder, options, Quiet)  # type: ignore[arg-type]
    return opened(folder)


def opened(root: Path | str) -> ShardsDataset:
    return ShardsDataset(partial(registry.load, "dataset"), root=str(root))
