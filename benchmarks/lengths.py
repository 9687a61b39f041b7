"""Speech of unequal lengths: whether it costs in batches what it costs one by one, and how fast it is trained.

    python benchmarks/lengths.py ROOT [--seconds 12] [--examples 40] [--batch 8] [--rounds 3] [--out results.json]

ROOT is a folder that ``audio_folder`` reads, whose files are examples of their own lengths, up to ``--seconds``. All
contestants train the same small parts, for an epoch of the same examples from memory, and take turns:

    by length      batches of about one length, padded to their longest: what toolkit does
    shuffled       batches in any order, padded to their longest
    to longest     every example padded to the longest of all

A ratio is the median over rounds of a contestant's positions per second over that of ``to longest``; positions are the
examples' own. Then the test split is evaluated in batches and one by one, in bits per sample, data and codes apart. It
exits with 1 where these differ by more than 1e-6 of their size, or ``by length`` is less than 1.5 times as fast.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from itertools import islice
from math import log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from toolkit import Dataset
from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch, TrainBatches, split_batches
from toolkit.build import make_dataset
from toolkit.config import PartConfig
from toolkit.dataset import collate
from toolkit.evaluation import evaluate_parts
from toolkit.lengths.known import by_length
from toolkit.lengths.mask import MASK, mask_of
from toolkit.likelihoods.logistic import LogisticLikelihood
from toolkit.objectives.elbo import ELBO
from toolkit.priors.wavenet import WaveNetPrior
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.registry import load
from toolkit.spec import DataSpec
from toolkit.training import Stage

CPU, DIM, CODE = torch.device("cpu"), 32, 128
ASKED, CLOSE = 1.5, 1e-6


class InMemory:
    """Some training examples, read once, in any order."""

    def __init__(self, dataset: Dataset, n: int) -> None:
        size = dataset.size("train")
        self.places = list(range(0, size, max(1, size // n)))[:n]
        self.rows = [dataset.example("train", place, None) for place in self.places]

    def size(self, split: str) -> int:
        return len(self.rows)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": self.rows[index]["x"]}


class OfLength(InMemory):
    """The same, whose lengths are known."""

    def lengths(self, split: str) -> list[int]:
        return [row["x"].shape[1] for row in self.rows]


class ToLongest(InMemory):
    """The same, all as long as the longest."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        x, longest = self.rows[index]["x"], max(row["x"].shape[1] for row in self.rows)
        mask = mask_of(torch.tensor([x.shape[1]]), longest)[0]
        return {"x": pad(x, (0, longest - x.shape[1])), MASK: mask}


def model(data: DataSpec) -> Autoencoder:
    torch.manual_seed(0)
    encoder, decoder = load("encoder", "audio_conv"), load("decoder", "audio_conv")
    likelihood, strides = LogisticLikelihood(data, mixtures=2), (2, 4, 4, 4)
    return Autoencoder(
        data,
        encoder(data, DIM, hidden=32, narrowest=8, strides=strides),
        EMAQuantizer(DIM, codebook_size=256),
        decoder(DIM, (), likelihood, hidden=32, narrowest=8, residual_blocks=1, strides=strides[::-1]),
    )


def epoch(stage: Stage, optimizer: torch.optim.Optimizer, batches: Iterator[Batch]) -> tuple[float, float]:
    """Own positions, and seconds of the loop, in which batches come from memory."""
    positions, begun = 0.0, time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        stage(batch.x, batch.conditions, batch.mask).loss.backward()
        optimizer.step()
        positions += batch.positions * len(batch.x)
    return positions, time.perf_counter() - begun


def shuffled(examples: InMemory, device: torch.device, *, batch_size: int, seed: int, workers: int) -> Iterator[Batch]:
    """An epoch's batches in any order, which toolkit makes of no data of unequal lengths."""
    order = torch.randperm(examples.size("train"), generator=torch.Generator().manual_seed(seed))
    for rows in order.split(batch_size):
        yield Batch(collate(examples, "train", rows.tolist(), None), device)


def race(dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Positions per second of each contestant, by round."""
    kinds = {"to longest": ToLongest, "shuffled": InMemory, "by length": OfLength}
    contestants = {name: kind(dataset, options.examples) for name, kind in kinds.items()}
    stage = Stage(ELBO(), model(dataset.spec)).train()
    optimizer = torch.optim.Adam(stage.parameters(), 3e-4)
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(options.rounds + 1):
        for name, examples in contestants.items():
            count = examples.size("train") // options.batch
            make = TrainBatches if name == "by length" else shuffled
            batches = make(examples, CPU, batch_size=options.batch, seed=number, workers=0)
            positions, seconds = epoch(stage, optimizer, islice(batches, count if number else 1))
            if number:  # the first is for warming up
                speeds[name].append(positions / seconds)
                print(f"round {number}: {name}: {positions / seconds:,.0f} positions per second", flush=True)
    base = speeds["to longest"]
    ratios = {name: statistics.median(a / b for a, b in zip(of, base, strict=True)) for name, of in speeds.items()}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f}x", flush=True)
    return {"positions_per_second": speeds, "ratios": ratios, "model": stage.model}


def bits(parts: Autoencoder, dataset: Dataset, batch_size: int, n: int) -> dict[str, float]:
    """Per sample, of data and codes, of the test split's first examples."""
    torch.manual_seed(1)
    prior = WaveNetPrior(parts.code_spec, (), hidden=16, layers=4, skip=32, head=32)
    places = by_length(dataset.lengths("test") or (), n)
    batches = split_batches(dataset, "test", CPU, batch_size=batch_size, places=places, workers=0)
    begun = time.perf_counter()
    evaluation = evaluate_parts(ELBO(), parts, batches, (), {"wavenet": prior})
    seconds = time.perf_counter() - begun
    print(f"evaluated {evaluation.examples} by {batch_size}: {seconds:.1f} s", flush=True)
    codes = evaluation.code_nats["wavenet"] / (evaluation.dims * log(2))
    return {"data": evaluation.bits(evaluation.nll), "codes": codes, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    own = {"root": str(options.root), "seconds": options.seconds, "lengths": "own", "grain": CODE, "on_error": "skip"}
    dataset = make_dataset(PartConfig("audio_folder", own))
    raced = race(dataset, options)
    parts = raced.pop("model")
    batches, one_by_one = (bits(parts, dataset, size, options.examples) for size in (options.batch, 1))
    apart = {name: abs(batches[name] / one_by_one[name] - 1) for name in ("data", "codes")}
    print(f"bits per sample: {batches} in batches, {one_by_one} one by one; {apart} of their size apart", flush=True)
    results = {
        "date": date.today().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "options": {name: value for name, value in vars(options).items() if name not in ("root", "out")},
        **raced,
        "bits": {"batches": batches, "one by one": one_by_one, "apart": apart},
    }
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    return int(max(apart.values()) > CLOSE or raced["ratios"]["by length"] < ASKED)


if __name__ == "__main__":
    sys.exit(main())
