"""CIFAR-10's three baselines and their modern relation, trained alike on few images: bits per dim.

    python benchmarks/baselines.py --root data [--steps 1000] [--images 5000] [--out results.json] [NAME …]

Each model is its experiment (``image_cifar10_vae``, ``_vqvae``, ``_vimco``, ``_modern``) with encoder and decoder cut
to a size for the CPU, a likelihood of few numbers per pixel, the same batches, seed and learning rate. What is kept is
what they differ in. Training sees the first ``images`` images; the figures are ``toolkit evaluate``'s, of held-out
ones, with the data's and the codes' share apart. It compares the models with one another at this size and length, and
says nothing of the paper's figures, which need its sizes and 250 000 steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import toolkit
from toolkit.batches import TrainBatches, split_batches
from toolkit.build import build_autoencoder, build_metrics, build_objective
from toolkit.cli.config.compose import compose
from toolkit.evaluation import Evaluation, evaluate_parts
from toolkit.optimization import Optimization
from toolkit.runs.folder import Run
from toolkit.stages.recorder import Recorder
from toolkit.training import Stage, train_steps
from toolkit_image.cifar10 import CIFAR10Dataset

SMALL = [
    "encoder.hidden=32",
    "decoder.hidden=32",
    "likelihood=logistic",
    "likelihood.mixtures=2",
    "trainer.batch_size=16",
    "trainer.learning_rate=1e-3",
    "trainer.workers=0",
]
OWN = {
    "vae": [],
    "vqvae": ["dim=80", "quantizer.inner.commitment=96"],
    "vqvae beta=0.25": ["dim=80", "quantizer.inner.commitment=0.25"],
    "vimco": ["dim=80"],
    "modern": ["trainer.warmup=50", "trainer.ema=0.99"],
}
"""The rows, and what each sets beside the sizes: 8 numbers per code; a warm-up and an average that fit the steps.
``vqvae`` weighs beta = 0.25 against means over dims, 0.25 x 3072 / 8, and the row below it against the sum of nats."""
KEPT = ("data_bits_per_dim", "code_bits_per_dim", "bits_per_dim", "mse", "psnr", "usage", "perplexity", "rate")


class Few:
    """The first examples of each split."""

    def __init__(self, dataset: CIFAR10Dataset, count: int) -> None:
        self.dataset, self.count = dataset, count

    def size(self, split: str) -> int:
        return min(self.count, self.dataset.size(split))

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return self.dataset.example(split, index, generator)


class Lines:
    """A report of plain lines."""

    def begin(self, stage: str, done: int, steps: int) -> None: ...
    def step(self, done: int) -> None: ...
    def note(self, text: str) -> None: ...

    def metrics(self, split: str, step: int, metrics: Any) -> None:
        shown = ("loss", "nll", "kl", "baseline", "batch_perplexity", "steps_per_second")
        print(f"  {step:6}", *(f"{name} {metrics[name]:.5g}" for name in shown if name in metrics), flush=True)


def trained(config: Any, data: Few) -> tuple[Stage, Optimization, float]:
    """A model after its first stage, and the seconds that it took."""
    torch.manual_seed(config.seed)
    model = build_autoencoder(config, data.dataset.spec)
    stage, options = Stage(build_objective(config, model), model), config.trainer
    optimization = Optimization(stage, options)
    batches = TrainBatches(data, torch.device("cpu"), batch_size=options.batch_size, seed=0, workers=0)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        recorder = Recorder(run, "autoencoder", run.autoencoder, optimization, Lines())
        began = time.perf_counter()
        recorder.follow(train_steps(stage, batches, optimization), batches)
    return stage, optimization, time.perf_counter() - began


def measured(stage: Stage, config: Any, data: Few, split: str, examples: int) -> Evaluation:
    batches = split_batches(data, split, torch.device("cpu"), batch_size=32, limit=examples)
    return evaluate_parts(stage.objective, stage.model, batches, build_metrics(config, stage.model))


def row_of(name: str, args: argparse.Namespace) -> dict[str, Any]:
    ends = ("steps", "checkpoint_every", "validate_every", "pictures_every")
    steps = [f"trainer.log_every={args.steps // 6}", *(f"trainer.{key}={args.steps}" for key in ends)]
    words = [
        f"experiment=image_cifar10_{name.split()[0]}",
        *SMALL,
        *OWN[name],
        *steps,
    ]
    data = Few(CIFAR10Dataset(root=args.root), args.images)
    print(" ".join(words), flush=True)
    config = compose(words).config
    stage, optimization, seconds = trained(config, data)
    began = time.perf_counter()
    with optimization.averaged():
        found = {
            split: measured(stage, config, data, split, args.examples).metrics_by_name() for split in ("train", "test")
        }
    return {
        "what": name,
        "words": words,
        "parameters": sum(p.numel() for p in stage.model.parameters()),
        "training_seconds": seconds,
        "evaluation_seconds": time.perf_counter() - began,
        **{key: found["test"][key] for key in KEPT if key in found["test"]},
        "train_bits_per_dim": found["train"]["bits_per_dim"],
    }


def show(rows: list[dict[str, Any]]) -> None:
    columns = ("bits_per_dim", "data_bits_per_dim", "code_bits_per_dim", "train_bits_per_dim", "training_seconds")
    print(f"{'':14}", *(f"{name:>18}" for name in columns))
    for row in rows:
        print(f"{row['what']:14}", *(f"{row[name]:18.4g}" for name in columns))


def facts(args: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": f"CPU, {args.threads} thread of {os.cpu_count()} cores, shared",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toolkit": toolkit.__version__,
        "steps": args.steps,
        "training images": args.images,
        "held-out images": args.examples,
        "what it took, seconds": sum(row["training_seconds"] + row["evaluation_seconds"] for row in rows),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(OWN), metavar="NAME", help=f"of {', '.join(OWN)}; all")
    parser.add_argument("--root", default="data")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.names:
        rows.append(row_of(name, args))
        if args.out:  # after each, so that what is done is kept
            args.out.write_text(json.dumps(facts(args, rows), indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
