"""What sharding a prior over ranks saves: peak memory of each rank, with the losses of one process.

    python benchmarks/sharded.py [--hidden 768] [--layers 14] [--grid 4,8] [--batch 2] [--steps 20]
        [--ways "one;ddp;shard"] [--out results.json]

A transformer prior, of 100 million parameters by default, trains on random codes in float32 with Adam: in one process
on the joined batch, and in two gloo ranks of one thread each, whole on both (``ddp``), sharded (``shard``), and sharded
with activations computed again (``shard, again``). Every process is a fresh one. The memory is what the system gave it
(peak resident size, reset after the first step, when moments and gradients' buckets are there) above what it had before
the prior was built, with everything imported; glibc is told to give back what is freed (``MALLOC_MMAP_THRESHOLD_``),
so that nothing is counted that waits to be used again. ``saving`` is the same while a checkpoint is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import toolkit
from toolkit import distributed
from toolkit.batches import TrainBatches
from toolkit.config import PartConfig
from toolkit.optimization import Optimization
from toolkit.options import PriorTrainerOptions
from toolkit.part import make
from toolkit.runs.saving import save
from toolkit.sharding import checkpoint_activations, shard
from toolkit.spec import CodeSpec
from toolkit.training import PriorStage, train_steps

CPU = torch.device("cpu")
WAYS = {"one": 1, "ddp": 2, "shard": 2, "shard, again": 2}
"""By name, how many processes."""
ENTRIES = 512


class Codes:
    """Random codes that are a function of their index."""

    def __init__(self, grid: tuple[int, ...]) -> None:
        self.grid = grid

    def size(self, split: str) -> int:
        return 1024

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": torch.randint(ENTRIES, (1, *self.grid), generator=torch.Generator().manual_seed(index))}


def work(args: argparse.Namespace) -> dict[str, Any]:
    """One rank: its losses and its memory."""
    torch.set_num_threads(1)
    ranks = WAYS[args.way]
    if ranks == 1:
        return warmed(args)
    with (
        distributed.process_group(f"file://{args.folder}/meeting", args.rank, ranks, args.rank),
        distributed.collective_timeout(10),
    ):
        return warmed(args)


def warmed(args: argparse.Namespace) -> dict[str, Any]:
    """The same after a small prior, which imports what training and saving need."""
    small = {"hidden": 64, "layers": 1, "steps": 2, "folder": args.folder / "small"}
    trained(argparse.Namespace(**{**vars(args), **small}))
    return trained(args)


def trained(args: argparse.Namespace) -> dict[str, Any]:
    grid = tuple(int(size) for size in args.grid.split(","))
    options = PriorTrainerOptions(steps=args.steps, batch_size=args.batch * 2 // WAYS[args.way], clip=1.0)
    before = resident("VmRSS")
    torch.manual_seed(0)
    network = {"hidden": args.hidden, "layers": args.layers, "heads": args.hidden // 64}
    prior = make("prior", PartConfig("transformer", network), code_spec=CodeSpec(grid, (ENTRIES,)), conditions=())
    numbers = sum(p.numel() for p in prior.parameters())
    if "again" in args.way:
        checkpoint_activations(prior)
    if args.way.startswith("shard"):
        shard(prior, CPU, options.precision)
    optimization = Optimization(PriorStage(prior), options)
    batches = TrainBatches(
        Codes(grid),
        CPU,
        batch_size=options.batch_size,
        seed=0,
        workers=0,
        rank=distributed.rank(),
        ranks=distributed.ranks(),
    )
    losses, start = list[float](), time.perf_counter()
    for metrics in train_steps(optimization.module, batches, optimization):  # type: ignore[arg-type]
        loss = metrics["loss"].clone()
        distributed.all_reduce_mean(loss)
        losses.append(float(loss))
        if optimization.step == 1:
            forget_peak()
            start = time.perf_counter()
    seconds, training = time.perf_counter() - start, resident("VmHWM") - before
    forget_peak()
    save(args.folder / args.way.replace(", ", "-"), optimization, {}, keep=1)
    return {
        "parameters": numbers,
        "mib": training >> 10,
        "saving_mib": (resident("VmHWM") - before) >> 10,
        "seconds_per_step": seconds / (args.steps - 1),
        "losses": losses,
    }


def resident(what: str) -> int:
    """KiB of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def started(way: str, words: list[str]) -> list[dict[str, Any]]:
    """What the ranks of one way found."""
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--folder", folder, "--way", way, *words]
        processes = [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True, env=env)
            for rank in range(WAYS[way])
        ]
        outputs = [process.communicate()[0] for process in processes]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--grid", default="4,8")
    parser.add_argument("--batch", type=int, default=2, help="examples of each rank")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--ways", default="one;ddp;shard;shard, again", help="some of these, between semicolons")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        print(json.dumps(work(args)))
        return
    names = ("hidden", "layers", "grid", "batch", "steps")
    words = [word for name in names for word in (f"--{name}", str(getattr(args, name)))]
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": "CPU, one thread for each rank, two gloo ranks",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toolkit": toolkit.__version__,
        "arguments": {name: getattr(args, name) for name in names},
    }
    for way in args.ways.split(";"):
        by_rank = started(way, words)
        facts[way] = {**by_rank[0], **{f"{what}s": [r[what] for r in by_rank] for what in ("mib", "saving_mib")}}
        first = facts[args.ways.split(";")[0]]
        apart = max(abs(a - b) / b for a, b in zip(facts[way]["losses"], first["losses"], strict=True))
        facts[way]["apart"] = apart
        memory = max(facts[way]["mibs"])
        of_ddp = memory / max(facts["ddp"]["mibs"]) if "ddp" in facts else float("nan")
        print(
            f"{way:13} {memory:6,} MiB per rank ({of_ddp:.2f} of ddp), {max(facts[way]['saving_mibs']):6,} while saving"
            f", {facts[way]['seconds_per_step']:6.2f} s per step, losses within {apart:.1e} of the first's",
            flush=True,
        )
        if args.out:
            args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
