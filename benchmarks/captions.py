"""Samples under captions whose combination of shape and color no training example has.

    python benchmarks/captions.py OUT [--n 200] [--guidance 1 2 3] [--temperature 1] [--seed 0] [--prior transformer]
        [--steps 4000] [--sheet FILE] [--out FILE]

Trains a small model of ``image_shapes_residual`` in the folder OUT on one thread, unless it is there: an autoencoder,
and a prior that reads captions. Nine of the 72 combinations are in no training and no validation example: each shape
once. Then it samples pictures under the captions of these nine in turn, and asks a network what they show: which shape,
and which color. That network is trained on true pictures of all combinations; beside its verdict on the samples stand
its accuracy on true pictures of the nine that it was not trained on, and on their reconstructions.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from datetime import date
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import toolkit
from toolkit.dataset import collate
from toolkit.model import Model
from toolkit_image.shapes import COLORS, SHAPES, ShapesDataset, caption_of

UNSEEN = [(shape, list(COLORS)[(i + 4) % len(COLORS)]) for i, shape in enumerate(SHAPES)]
"""Shapes and colors: a red star, a teal circle, …"""
WORDS = [
    "experiment=image_shapes_residual",
    "dataset.captions=true",
    "dataset.train_size=60000",
    f"dataset.unseen=[{','.join(f'{color} {shape}' for shape, color in UNSEEN)}]",
    "conditions.prior=[caption]",
    "trainer.steps=7000",
    *("trainer.pictures_every=100000", "prior_trainer.pictures_every=100000"),
]
PRIOR = {
    "transformer": ["hidden=128", "layers=5", "heads=4", "head=192"],
    "maskgit": ["hidden=128", "layers=4", "heads=4"],
}
READER = ["conditioner.hidden=64", "conditioner.layers=2", "conditioner.dropout=0.2", "condition_dropout=0.2"]
TRAINER = ["batch_size=32", "learning_rate=2e-3", "warmup=100", "schedule=cosine"]


def train(out: Path, prior: str, steps: int) -> None:
    options = [f"prior.{word}" for word in PRIOR[prior] + READER]
    options += [f"prior_trainer.{word}" for word in [*TRAINER, f"steps={steps}"]]
    toolkit.train(toolkit.compose(*WORDS, f"prior={prior}", *options), out)


class Judge(nn.Module):
    """Which shape, and which color, a picture ``(batch, 3, 32, 32)`` in [-1, 1] shows."""

    def __init__(self) -> None:
        super().__init__()
        layers = list[nn.Module]()
        for one, other in pairwise([3, 32, 64, 128]):
            layers += [nn.Conv2d(one, other, 3, 2, 1), nn.BatchNorm2d(other), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.shape, self.color = nn.Linear(128 * 16, len(SHAPES)), nn.Linear(128 * 16, len(COLORS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.dropout(self.layers(x).flatten(1), 0.3, self.training)
        return self.shape(h), self.color(h)


def judge(examples: int = 24_000, passes: int = 10) -> Judge:
    """Trained on true pictures of all combinations, a little blurred and noisy, as those of a small model are."""
    torch.manual_seed(0)
    data, network = ShapesDataset(train_size=examples), Judge()
    table, size = data.table("train"), 64
    x = data.spec.scale(table["x"])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, passes * (examples // size))
    for _ in range(passes):
        for rows in torch.randperm(examples)[: examples // size * size].split(size):
            shape, color = network(_worse(x[rows]))
            loss = F.cross_entropy(shape, table["shape"][rows]) + F.cross_entropy(color, table["color"][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return network.eval()


def _worse(x: Tensor) -> Tensor:
    blurred, share = F.avg_pool2d(x, 3, 1, 1), torch.rand(len(x), 1, 1, 1)
    return x + share * (blurred - x) + 0.05 * torch.randn_like(x)


@torch.no_grad()
def shares(network: Judge, x: Tensor, shape: Tensor, color: Tensor) -> dict[str, float]:
    """How many of some pictures, in the data's own form, show what they should."""
    shapes, colors = (logits.argmax(1) for logits in network(ShapesDataset().spec.scale(x)))
    right = {"shape": shapes == shape, "color": colors == color}
    right["both"] = right["shape"] & right["color"]
    return {name: round(float(value.double().mean()), 4) for name, value in right.items()}


def true_pictures(n: int) -> dict[str, Tensor]:
    """Of the unseen combinations, which only the test split has."""
    data = ShapesDataset(test_size=40 * n)
    indices = [list(SHAPES).index(shape) + 100 * list(COLORS).index(color) for shape, color in UNSEEN]
    rows = collate(data, "test", range(data.size("test")), None)
    own = torch.isin(rows["shape"] + 100 * rows["color"], torch.tensor(indices))
    return {name: value[own][:n] for name, value in rows.items()}


def sampled(
    model: Model, network: Judge, combinations: list[tuple[str, str]], n: int, sheet: Path | None, **options: Any
) -> dict[str, float]:
    """What samples under the captions of some combinations, in turn, show; ``options`` of sampling."""
    samples = model.sample(n, {"caption": [caption_of(*one) for one in combinations]}, **options)
    shown = [combinations[i % len(combinations)] for i in range(n)]
    shape = torch.tensor([list(SHAPES).index(one) for one, _ in shown])
    color = torch.tensor([list(COLORS).index(one) for _, one in shown])
    if sheet is not None:
        rows = 10 * len(combinations)
        model.files.plot(samples.x[:rows].cpu().split(len(combinations)), model.spec, sheet)
    return shares(network, samples.x.cpu(), shape, color)


def measured(model: Model, n: int, choices: list[dict[str, Any]], sheet: Path | None) -> dict[str, Any]:
    began, network = time.perf_counter(), judge()
    print(f"the judge is trained: {time.perf_counter() - began:.0f} s", flush=True)
    true = true_pictures(n)
    labels = true["shape"], true["color"]
    results: dict[str, Any] = {"true pictures": shares(network, true["x"], *labels)}
    results["reconstructions"] = shares(network, model.reconstruct(true["x"]).cpu(), *labels)
    print(json.dumps(results), flush=True)
    seen = [(shape, color) for shape in SHAPES for color in COLORS if (shape, color) not in UNSEEN]
    for options in choices:
        for name, combinations in (("unseen", UNSEEN), ("seen", seen[::7])):
            row = ", ".join([f"{name} combinations", *(f"{option} {value:g}" for option, value in options.items())])
            shown = sheet if name == "unseen" else None
            results[row] = sampled(model, network, combinations, n, shown, **options)
            print(json.dumps({row: results[row]}), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="OUT")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 3.0])
    parser.add_argument("--temperature", type=float, nargs="+", default=[1.0])
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--prior", default="transformer")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    torch.set_num_threads(1)
    if not (words.run / "priors").is_dir():
        began = time.perf_counter()
        train(words.run, words.prior, words.steps)
        print(f"trained: {time.perf_counter() - began:.0f} s", flush=True)
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "toolkit": toolkit.__version__}
    result: dict[str, Any] = {"date": date.today().isoformat(), "machine": platform.machine(), **versions}
    result |= {"prior": words.prior, "steps": words.steps, "n": words.n}
    each = product(words.guidance, words.temperature, words.seed)
    choices = [{"guidance": guidance, "temperature": temperature, "seed": seed} for guidance, temperature, seed in each]
    result |= measured(toolkit.load(words.run), words.n, choices, words.sheet)
    if words.out:
        words.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
