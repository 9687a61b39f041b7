"""How fast shards are read: against the folder they were packed from, and against other libraries' own loaders.

    python benchmarks/shards.py [--examples 20000] [--size 32] [--rounds 3] [--workers 0] [--folder DIR]
        [--out results.json]

Small PNG pictures of noise over a gradient, in a folder, in shards as files and as arrays, and in a table of the
datasets library. An epoch of batches of 64, decoded to uint8 tensors ``(64, 3, size, size)``; contestants take turns,
and a ratio is the median over rounds of a contestant's pictures per second over the folder's. ``cold``: what the system
has cached of the files is dropped before an epoch, where that is possible. Memory is that of the process during an
epoch of its own, in quarters: it must not grow. webdataset and datasets join in where they are installed. DIR keeps the
files for another time, which packs none.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import util
from io import BytesIO
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from toolkit import Dataset
from toolkit.batches import TrainBatches
from toolkit.cli.packing import pack
from toolkit.cli.report import progress
from toolkit.config import PartConfig
from toolkit.stream_batches import StreamBatches

CPU = torch.device("cpu")
BATCH = 64
QUARTERS = 4
Epoch = Callable[[], Iterable[Tensor]]


def write_pictures(folder: Path, count: int, size: int) -> None:
    """So many PNG files in ten class folders, the same at every call."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 200, size)
    for i in range(count):
        pixels = (ramp[None, :, None] + ramp[:, None, None]) / 2 + random.integers(0, 56, (size, size, 3))
        path = folder / "train" / f"c{i % 10}" / f"{i:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)


def opened(name: str, **options: Any) -> Dataset:
    """A dataset by its name."""
    from toolkit.build import make_dataset

    return make_dataset(PartConfig(name, options))


def of_batches(make: Callable[[], Iterator[Any]], count: int) -> Epoch:
    """An epoch of toolkit's training batches."""
    return lambda: (batch.x for batch in islice(make(), count // BATCH))


def contestants(folder: Path, size: int, count: int, workers: int) -> dict[str, Epoch]:
    """By name a function that gives an epoch of batches."""
    options = {"batch_size": BATCH, "seed": 0, "workers": workers}
    found: dict[str, Epoch] = {}
    roots = {
        "folder": ("image_folder", {"root": str(folder / "pictures"), "size": size}),
        "shards of arrays": ("shards", {"root": str(folder / "arrays")}),
        "shards of files": ("shards", {"root": str(folder / "files")}),
    }
    for name, (kind, given) in roots.items():
        found[name] = of_batches(partial(TrainBatches, opened(kind, **given), CPU, **options), count)
    for name in ("arrays", "files"):
        stream = opened("shard_stream", root=str(folder / name))
        found[f"stream of {name}"] = of_batches(partial(StreamBatches, stream, CPU, **options), count)
    found |= of_webdataset(folder, workers) if util.find_spec("webdataset") else {}
    found |= of_datasets(folder, size, count, workers) if util.find_spec("datasets") else {}
    return found


def tensor(content: bytes) -> Tensor:
    """A PNG file's pixels, with nothing around Pillow."""
    return torch.from_numpy(np.array(Image.open(BytesIO(content)).convert("RGB"))).permute(2, 0, 1).contiguous()


def of_webdataset(folder: Path, workers: int) -> dict[str, Epoch]:
    """The library's own reader of the same tar files, with its shuffle buffer."""
    import webdataset

    def epoch(name: str, decode: Callable[[dict[str, bytes]], Tensor]) -> Iterable[Tensor]:
        urls = [str(path) for path in sorted((folder / name).glob("train-*.tar"))]
        rows = webdataset.WebDataset(urls, shardshuffle=100, empty_check=False).shuffle(1000).map(decode)
        return DataLoader(rows.batched(BATCH, collation_fn=torch.stack), batch_size=None, num_workers=workers)

    return {
        "webdataset of files": partial(epoch, "files", lambda row: tensor(row["x.png"])),
        "webdataset of arrays": partial(
            epoch, "arrays", lambda row: torch.from_numpy(np.load(BytesIO(row["x.npy"]), allow_pickle=False))
        ),
    }


def of_datasets(folder: Path, size: int, count: int, workers: int) -> dict[str, Epoch]:
    """The library's own map-style reader of the same files in an Arrow table, and ours of the same table."""
    import datasets
    import pyarrow as arrow
    from pyarrow import parquet

    datasets.disable_progress_bars()
    root = folder / "table"
    if not root.exists():
        paths = sorted((folder / "pictures" / "train").rglob("*.png"))
        rows = [{"image": {"bytes": path.read_bytes(), "path": path.name}} for path in paths]
        schema = datasets.Features({"image": datasets.Image()}).arrow_schema
        parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), folder / "table.parquet")
        loaded = datasets.load_dataset("parquet", data_files={"train": str(folder / "table.parquet")})
        loaded["train"].save_to_disk(str(root))
    table = datasets.load_from_disk(str(root))
    ours = opened("hub_dataset", root=str(root), files="image_folder", axes=[size, size])

    def stacked(rows: list[dict[str, Any]]) -> Tensor:
        return torch.stack([torch.from_numpy(np.array(row["image"].convert("RGB"))).permute(2, 0, 1) for row in rows])

    def epoch() -> Iterable[Tensor]:
        return DataLoader(table, batch_size=BATCH, shuffle=True, num_workers=workers, collate_fn=stacked)

    options = {"batch_size": BATCH, "seed": 0, "workers": workers}
    return {
        "datasets": epoch,
        "hub_dataset": of_batches(partial(TrainBatches, ours, CPU, **options), min(count, ours.size("train"))),
    }


def run(epoch: Epoch) -> float:
    """Pictures per second of an epoch."""
    begun, seen = time.perf_counter(), 0
    for batch in epoch():
        seen += len(batch)
    return seen / (time.perf_counter() - begun)


def memory(epoch: Epoch, count: int) -> list[float]:
    """MiB of the process behind each quarter of an epoch."""
    sizes, pages = [], os.sysconf("SC_PAGE_SIZE")
    for number, _ in enumerate(epoch(), 1):
        if number % max(1, count // BATCH // QUARTERS) == 0:
            resident = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(round(resident * pages / (1 << 20), 1))
    return sizes


def drop_cached(folder: Path) -> None:
    """Asks the system to forget what it has cached of the files; one that keeps it is as warm as before."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def write_shards(folder: Path, size: int) -> dict[str, float]:
    """Both forms; returns how many seconds they take."""
    seconds = {}
    pictures = opened("image_folder", root=str(folder / "pictures"), size=size)
    for name, form in (("arrays", "array"), ("files", "file")):
        begun = time.perf_counter()
        part = PartConfig("image_folder", {"size": size})
        options = SimpleNamespace(shard_mb=8, form=form, workers=0)
        pack(pictures, part, folder / name, options, progress)
        seconds[name] = round(time.perf_counter() - begun, 1)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "pictures").exists():
            write_pictures(folder / "pictures", options.examples, options.size)
        packing = {} if (folder / "files").exists() else write_shards(folder, options.size)
        count = options.examples * 9 // 10
        found = contestants(folder, options.size, count, options.workers)
        rates: dict[str, list[float]] = {name: [] for name in found}
        cold = {}
        for round_ in range(options.rounds + 1):
            for name, epoch in found.items():
                if round_ == 0:
                    drop_cached(folder)
                    cold[name] = run(epoch)
                else:
                    rates[name].append(run(epoch))
                print(f"{name}: {(rates[name] or [cold[name]])[-1]:.0f} pictures/s", flush=True)
        rows = {
            name: {
                "pictures_per_second": round(statistics.median(rates[name])),
                "of_folder": round(
                    statistics.median(a / b for a, b in zip(rates[name], rates["folder"], strict=True)), 3
                ),
                "cold_pictures_per_second": round(cold[name]),
                "memory_mib_by_quarter": memory(epoch, count),
            }
            for name, epoch in found.items()
        }
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "examples": options.examples,
        "size": options.size,
        "workers": options.workers,
        **({"seconds_to_pack": packing} if packing else {}),
        "contestants": rows,
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
