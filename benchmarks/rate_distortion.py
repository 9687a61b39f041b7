"""Every quantizer at 8 bits a position, trained alike on few CIFAR-10 images: distortion, use, and what its codes cost.

    python benchmarks/rate_distortion.py --root data [--steps 1000] [--seeds 1] [--out results.json] [NAME …]

Each row has the encoder, the decoder, the likelihood, the batches, the learning rate and the seeds of the others, and
512 bits an image, 8 for each of 8 by 8 positions (``lattice e8`` has 506, and where codes lie on several grids, 511).
Its own is the quantizer, and how many channels that asks of the encoder; ``fsq, slow encoder`` alone has a learning
rate of its own. Losses of a codebook are weighed for nats, as in ``image_cifar10_vqvae``. A small prior then learns the
codes of the same images: a PixelCNN, and ``coarse_to_fine`` with one of them for each grid where there are several.
Figures are of held-out images:

    nmse, psnr           of reconstructions
    usage, perplexity    of the codebooks, as `toolkit evaluate` has them
    code_bits            a position of the encoder, under the prior, of ``rate`` at most
    step_ms              a training step's time of the process, median, after the first five
    peak_mib             the most that training took beside what the process held before
    prior_parameters     of the prior

Each row is a process, and is written to ``--out`` as it is measured, the first seed of all quantizers before the
second; what is there already, of the same sizes, is not measured again.

It compares quantizers at this size and length. With ``--hidden 256 --images 45000 --steps 250000 --threads 16`` it is
the same at the paper's size.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from math import log
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import toolkit
from toolkit.autoencoder import Autoencoder
from toolkit.batches import TrainBatches, split_batches
from toolkit.build import build_autoencoder, build_metrics, build_objective, build_prior
from toolkit.cli.config.compose import compose
from toolkit.evaluation import evaluate_parts
from toolkit.optimization import Optimization
from toolkit.training import Stage, train_steps
from toolkit_image.cifar10 import CIFAR10Dataset

DATA = ["dataset=image_cifar10", "encoder=image_conv", "decoder=image_conv", "likelihood=logistic", "dim=16"]
TABLE = ["quantizer.codebook_size=256", "quantizer.commitment=24"]
INNER = ["quantizer.inner.codebook_size=256", "quantizer.inner.commitment=24"]
HALVES = ["quantizer.inner.codebook_size=16", "quantizer.inner.commitment=24"]
SCALES = ["quantizer.grid=[8,8]", "quantizer.inner.commitment=24", "quantizer.inner.codebook_size=65"]
LEVELS = ["quantizer.grid=[8,8]", "quantizer.inner.commitment=24", "quantizer.inner.codebook_size=84"]
BETWEEN = ["quantizer.codebook_dim=16", "quantizer.hidden=24", "quantizer.residual_hidden=24"]
SPLIT = [
    f"quantizer.{part}.{word}"
    for part in ("first", "second")
    for word in ("name=projected", "inner.name=vq", "inner.codebook_size=16", "inner.commitment=24")
]
FACTORS = "quantizer.inner.inner"
"""The table of ``projected`` within another quantizer."""
OWN = {
    "vq": ["quantizer=vq", *TABLE],
    "vq revived": ["quantizer=vq", *TABLE, "quantizer.dead_code_threshold=0.1"],
    "vq rotation": ["quantizer=vq", *TABLE, "quantizer.gradient=rotation"],
    "vq direction": ["quantizer=vq", *TABLE, "quantizer.gradient=direction", "quantizer.dead_code_threshold=0.1"],
    "vq cosine": ["quantizer=vq_cosine", *INNER],
    "projected vq": ["quantizer=projected", "quantizer.inner.name=vq", *INNER],
    "ema": ["quantizer=ema", *TABLE],
    "simvq": ["quantizer=simvq", *TABLE],
    "simvq mlp": ["quantizer=simvq", *TABLE, "quantizer.map=mlp"],
    "simvq attention": ["quantizer=simvq", *TABLE, "quantizer.map=attention"],
    "ibq": ["quantizer=ibq", *TABLE],
    "ibq products": ["quantizer=ibq", *TABLE, "quantizer.compare=product"],
    "fsq": ["quantizer=fsq", "quantizer.levels=[4,4,4,4]"],
    "fsq even": ["quantizer=fsq", "quantizer.levels=[4,4,4,4]", "quantizer.bound=even", "quantizer.spacing=middles"],
    "fsq symmetric": ["quantizer=fsq", "quantizer.levels=[4,4,4,4]", "quantizer.spacing=symmetric"],
    "fsq noise": ["quantizer=fsq", "quantizer.levels=[4,4,4,4]", "quantizer.spacing=middles", "quantizer.noise=1"],
    "fsq, slow encoder": [
        *("quantizer=fsq", "quantizer.levels=[4,4,4,4]", "trainer.learning_rate_factors.encoder=0.1"),
    ],
    "projected fsq": ["quantizer=projected", "quantizer.inner.name=fsq", "quantizer.inner.levels=[4,4,4,4]"],
    "lfq": ["quantizer=lfq", "quantizer.bits=8", "quantizer.heads=1"],
    "bsq": ["quantizer=bsq", "quantizer.bits=8", "quantizer.heads=1"],
    "lattice e8": ["quantizer=lattice", "quantizer.points=e8"],
    "categorical": ["quantizer=categorical", "quantizer.codebook_size=256"],
    "residual": ["quantizer=residual", "quantizer.depth=2", *HALVES],
    "residual beams": ["quantizer=residual", "quantizer.depth=2", "quantizer.beams=8", *HALVES],
    "residual ema": ["quantizer=residual_ema", "quantizer.depth=2", *HALVES],
    "residual cosine": [
        *("quantizer=residual_cosine", "quantizer.depth=2", "quantizer.dropout=0"),
        *(f"{FACTORS}.codebook_size=16", f"{FACTORS}.commitment=24"),
    ],
    "residual fsq": ["quantizer=residual_fsq", "quantizer.depth=2", f"{FACTORS}.levels=[4,4]"],
    "product": ["quantizer=product", "quantizer.groups=2", *HALVES],
    "product ema": ["quantizer=product_ema", "quantizer.groups=2", *HALVES],
    "product categorical": ["quantizer=product_categorical", "quantizer.groups=2", "quantizer.inner.codebook_size=16"],
    "split": ["quantizer=split", *SPLIT],
    "multiscale": ["quantizer=multiscale", *SCALES],
    "multiscale ema": ["quantizer=multiscale_ema", *SCALES],
    "multiscale projected": [
        *("quantizer=multiscale_projected", "quantizer.grid=[8,8]"),
        *(f"{FACTORS}.codebook_size=65", f"{FACTORS}.commitment=24"),
    ],
    "hierarchy": ["quantizer=hierarchy", *LEVELS, *BETWEEN],
    "hierarchy ema": ["quantizer=hierarchy_ema", *LEVELS, *BETWEEN],
}
PRIOR = ["prior=pixelcnn", "prior.hidden=24", "prior.layers=3"]
OF_PARTS = [
    *("prior=coarse_to_fine", "prior.inner.name=pixelcnn", "prior.inner.hidden=24", "prior.inner.layers=3"),
    *("prior.hidden=24", "prior.residual_blocks=2"),
]
KEPT = ("nmse", "mse", "psnr", "usage", "perplexity", "data_bits_per_dim")
SIZES = ("hidden", "steps", "prior_steps", "images", "examples")
FIGURES = (*KEPT, "code_bits", "rate", "step_ms", "peak_mib")
POSITIONS = 64
"""Of the encoder's grid, by which an image's bits are divided whatever the codes' own grids."""


class Few:
    """The first examples of each split."""

    def __init__(self, dataset: CIFAR10Dataset, count: int) -> None:
        self.dataset, self.count = dataset, count

    def size(self, split: str) -> int:
        return min(self.count, self.dataset.size(split))

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return self.dataset.example(split, index, generator)


def words_of(name: str, seed: int, args: argparse.Namespace) -> list[str]:
    sizes = [f"encoder.hidden={args.hidden}", f"decoder.hidden={args.hidden}", "likelihood.mixtures=2"]
    training = [f"trainer.steps={args.steps}", "trainer.batch_size=16", "trainer.learning_rate=1e-3"]
    prior = OF_PARTS if name.startswith(("multiscale", "hierarchy")) else PRIOR
    return [*DATA, f"dataset.root={args.root}", *sizes, *training, *prior, *OWN[name], f"seed={seed}"]


def timed(steps: Iterator[Any]) -> list[float]:
    """Each step's time of the process."""
    times, began = [], time.process_time()
    for _ in steps:
        times.append(time.process_time() - began)
        began = time.process_time()
    return times


def row_of(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    data, words = Few(CIFAR10Dataset(root=args.root), args.images), words_of(name, seed, args)
    config = compose(words).config
    torch.manual_seed(seed)
    model = build_autoencoder(config, data.dataset.spec)
    stage = Stage(build_objective(config, model), model)
    batches = TrainBatches(data, torch.device("cpu"), batch_size=config.trainer.batch_size, seed=seed, workers=0)
    data.example("train", 0, None)  # reads the files, which is no part of what training takes
    before = held()
    times = timed(iter(train_steps(stage, batches, Optimization(stage, config.trainer, stage.groups(config.trainer)))))
    took = mib("VmHWM") - before
    stage.eval()
    held_out = split_batches(data, "test", torch.device("cpu"), batch_size=32, limit=args.examples)
    found = evaluate_parts(stage.objective, model, held_out, build_metrics(config, model)).metrics_by_name()
    bits, parameters = prior_bits(model, config, data, args)
    return {
        "what": name,
        "seed": seed,
        "words": [word for word in words if not word.startswith("dataset.root=")],
        **{key: found[key] for key in KEPT if key in found},
        "code_bits": bits / POSITIONS,
        "rate": model.code_spec.rate / POSITIONS,
        "step_ms": 1e3 * statistics.median(times[5:] or times),
        "peak_mib": took,
        "prior_parameters": parameters,
    }


def held() -> float:
    """MiB that the process holds, from where on its most is counted: without what it has freed and glibc has kept."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return mib("VmRSS")


def mib(what: str) -> float:
    """Of the process, as Linux has it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def prior_bits(model: Autoencoder, config: Any, data: Few, args: argparse.Namespace) -> tuple[float, int]:
    """Bits for an example's codes under a prior that has learned those of the training images; its parameters."""
    train, test = (codes_of(model, data, split, args) for split in ("train", "test"))
    torch.manual_seed(config.seed)
    prior = build_prior(config, model.code_spec, data.dataset.spec)
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-3)
    for _ in range(args.prior_steps):
        loss = prior.loss(train[torch.randint(len(train), (32,))], {}).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prior.eval()
    with torch.no_grad():
        nats = torch.cat([prior.loss(codes, {}) for codes in test.split(64)])
    return float(nats.mean()) / log(2), sum(parameter.numel() for parameter in prior.parameters())


def in_its_own_process(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """A row; what a process has held at most never falls, and so cannot be shared by rows."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as process:
        return process.submit(row_of, name, seed, args).result()


@torch.no_grad()
def codes_of(model: Autoencoder, data: Few, split: str, args: argparse.Namespace) -> Tensor:
    limit = min(args.images if split == "train" else args.examples, data.size(split))
    batches = split_batches(data, split, torch.device("cpu"), batch_size=64, limit=limit)
    return torch.cat([model.quantize(batch.x).codes for batch in batches])


def show(rows: list[dict[str, Any]]) -> None:
    """Means over seeds ± their sample standard deviation."""
    print(f"{'':16}", *(f"{name:>17}" for name in FIGURES))
    for name in dict.fromkeys(row["what"] for row in rows):
        print(f"{name:16}", *(f"{_mean(rows, name, figure):>17}" for figure in FIGURES))


def _mean(rows: list[dict[str, Any]], name: str, figure: str) -> str:
    values = [row[figure] for row in rows if row["what"] == name and figure in row]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"


def measured(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of an earlier call that was cut short."""
    if not (args.out and args.out.exists()):
        return []
    found = json.loads(args.out.read_text())
    sizes = [(kept, found["arguments"][kept], getattr(args, kept)) for kept in SIZES]
    for kept, before, now in sizes:
        if before != now:
            raise SystemExit(
                f"{args.out} has rows of --{kept.replace('_', '-')} {before}, not {now}: give another --out"
            )
    return list(found["rows"])


def facts(args: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": f"CPU, {args.threads} thread of {os.cpu_count()} cores, shared",
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toolkit": toolkit.__version__,
        "arguments": {k: v for k, v in vars(args).items() if k not in ("out", "root", "names")},
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(OWN), metavar="NAME", help=f"of {', '.join(OWN)}; all")
    parser.add_argument("--root", default="data")
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--prior-steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = measured(args)
    for seed in range(args.seeds):  # outside, so that a table cut short has every quantizer
        for name in args.names:
            if any((row["what"], row["seed"]) == (name, seed) for row in rows):
                continue
            rows.append(in_its_own_process(name, seed, args))
            show(rows[-1:])
            if args.out:  # after each, so that what is done is kept
                args.out.write_text(json.dumps(facts(args, rows), indent=1) + "\n")
    show(rows)


if __name__ == "__main__":
    main()
