"""What several ranks save where they share a split: validation, and encoding for stage two.

    python benchmarks/ranks.py [--ranks 2] [--examples 4096] [--rounds 5] [--out results.json]

One rank and ``ranks`` of them take turns, in fresh processes of one thread each; a ratio is the median over rounds of
their seconds over one rank's. The model is ``experiment=image_cifar10_notebook`` over noise, which costs the same as
images. The costs of the codes must be the same bits, and the files of codes the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import statistics
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
from toolkit.batches import split_batches
from toolkit.build import build_autoencoder, build_metrics, build_objective
from toolkit.cli.config.compose import compose
from toolkit.evaluation import can_share, evaluate_parts
from toolkit.report import Silence
from toolkit.runs.code_cache import CodeCache

CPU = torch.device("cpu")


class Noise:
    """Images that are a function of their index."""

    def __init__(self, size: int) -> None:
        self.examples = size

    def size(self, split: str) -> int:
        return self.examples if split == "val" else 0

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(index))}


def work(rank: int, ranks: int, folder: Path, examples: int) -> None:
    """One rank: prints its seconds and what it measured, as JSON."""
    torch.set_num_threads(1)
    if ranks == 1:
        print(json.dumps(measured(folder, examples)))
        return
    with distributed.process_group(f"file://{folder}/meeting", rank, ranks, rank), distributed.collective_timeout(10):
        row = measured(folder, examples)
    if rank == 0:
        print(json.dumps(row))


def measured(folder: Path, examples: int) -> dict[str, Any]:
    from toolkit_image.cifar10 import CIFAR10Dataset

    config = compose(["experiment=image_cifar10_notebook"]).config
    torch.manual_seed(0)
    model = build_autoencoder(config, CIFAR10Dataset().spec).eval()
    objective, data = build_objective(config, model), Noise(examples)
    warm = split_batches(data, "val", CPU, batch_size=64, limit=64, workers=0)
    evaluate_parts(objective, model, warm, build_metrics(config, model))  # a run imports what metrics need but once
    metrics = build_metrics(config, model)
    together()
    start = time.perf_counter()
    batches = split_batches(
        data, "val", CPU, batch_size=64, workers=0, rank=distributed.rank(), ranks=distributed.ranks()
    )
    evaluation = evaluate_parts(objective, model, batches, metrics, shared=can_share(metrics))
    together()
    validated = time.perf_counter()
    CodeCache(folder / "codes", model, model.code_spec, (), CPU, 64, 0, Silence(), shard=1 << 13).read(data)
    together()
    return {
        "validation": validated - start,
        "encoding": time.perf_counter() - validated,
        "nll": evaluation.nll,
        "codes": hashlib.sha256(
            b"".join(path.read_bytes() for path in sorted((folder / "codes").iterdir()))
        ).hexdigest(),
    }


def together() -> None:
    distributed.all_reduce_sum(torch.zeros(1))


def started(ranks: int, examples: int) -> dict[str, Any]:
    """What rank 0 of so many measured."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--folder", folder, "--ranks", str(ranks), "--examples", str(examples)]
        processes = [
            subprocess.Popen([*words, "--rank", str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(ranks)
        ]
        outputs = [process.communicate()[0] for process in processes]
    row: dict[str, Any] = json.loads(outputs[0].splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--examples", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        work(args.rank, args.ranks, args.folder, args.examples)
        return
    rounds = [{n: started(n, args.examples) for n in (1, args.ranks)} for _ in range(args.rounds)]
    assert len({row["nll"] for pair in rounds for row in pair.values()}) == 1, "the costs differ"
    assert len({row["codes"] for pair in rounds for row in pair.values()}) == 1, "the codes differ"
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": "CPU, one thread for each rank",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toolkit": toolkit.__version__,
        "arguments": {"ranks": args.ranks, "examples": args.examples, "rounds": args.rounds},
    }
    for what in ("validation", "encoding"):
        ratios = [pair[args.ranks][what] / pair[1][what] for pair in rounds]
        seconds = {n: statistics.median(pair[n][what] for pair in rounds) for n in (1, args.ranks)}
        facts[what] = {"seconds": seconds, "ratio": statistics.median(ratios), "ratios": sorted(ratios)}
        print(f"{what:12} {seconds[1]:8.2f} s  {seconds[args.ranks]:8.2f} s  ratio {facts[what]['ratio']:.3f}")
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
