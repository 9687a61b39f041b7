"""What each level of a two-level model carries: photos decoded without one of them, by frequency band.

    python benchmarks/levels.py --root photos [--out levels] [--steps 3000] [--results results.json]

Trains ``hierarchy_ema`` (VQ-VAE-2) on a folder of images at 64 x 64, to 8 x 8 top and 16 x 16 bottom codes: once as it
is, and once with half of the training examples using their first n levels, n uniform. Runs are kept below the folder
``out``; where there are such already, these are looked at. Then held-out images are decoded from both levels, from the
top alone and from the bottom alone, a dropped level's latents being 0. ``sheet.png`` shows each as a row, below the
images, first with dropout of levels, then without. Figures are by octave of spatial frequency, in cycles an image:

    lost by dropping    of a band's energy in what both levels decode to, the share that the difference has: 0 where the
                        level does not matter, 1 and above where nothing is left of it

The first band is the mean color. Layout is what is slow, up to 4 cycles an image, and texture what is fast, from 8 on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import toolkit
from toolkit.nn.parts import split_parts
from toolkit.quantizers.hierarchy import HierarchyQuantizer

BANDS = [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 33)]
DROPOUT = {"dropout of levels": 0.5, "plain": 0.0}
WORDS = [
    "dataset=image_folder",
    "dataset.size=64",
    "dataset.flip=true",
    "encoder=image_conv",
    "decoder=image_conv",
    "encoder.hidden=32",
    "decoder.hidden=32",
    "encoder.residual_hidden=16",
    "decoder.residual_hidden=16",
    "dim=32",
    "likelihood=normal",
    "quantizer=hierarchy_ema",
    "quantizer.grid=[16,16]",
    "quantizer.hidden=32",
    "quantizer.residual_hidden=16",
    "quantizer.codebook_dim=16",
    "quantizer.inner.codebook_size=256",
    "quantizer.inner.commitment=192",
    "quantizer.inner.dead_code_threshold=0.1",
    "stage=autoencoder",
    "trainer.batch_size=16",
    "trainer.learning_rate=1e-3",
    "trainer.schedule=cosine",
    "trainer.workers=0",
    "trainer.validate_examples=64",
    "trainer.pictures_every=100000",
]


def trained(name: str, args: argparse.Namespace) -> toolkit.Model:
    run = args.out / name.replace(" ", "-")
    if not run.exists():
        every = [f"trainer.{option}={args.steps}" for option in ("steps", "checkpoint_every", "validate_every")]
        own = [f"dataset.root={args.root}", f"quantizer.dropout={DROPOUT[name]}"]
        toolkit.train(toolkit.compose(*WORDS, *own, *every), run)
    return toolkit.load(run, "cpu")


@torch.no_grad()
def decoded(model: toolkit.Model, codes: Tensor) -> dict[str, Tensor]:
    """Pictures ``(batch, 3, 64, 64)`` in [-1, 1] from both levels, and from one alone."""
    quantizer = model.autoencoder.quantizer
    assert isinstance(quantizer, HierarchyQuantizer)
    top, _ = split_parts(codes, quantizer.levels)
    stage = quantizer.stages[0]
    latents = {"both": quantizer.embed(codes), "top alone": quantizer.embed(top.flatten(2))}
    embed = stage.embed
    stage.embed = lambda codes: torch.zeros_like(embed(codes))  # type: ignore[assignment, method-assign]
    latents["bottom alone"] = quantizer.embed(codes)
    stage.embed = embed  # type: ignore[method-assign]
    means = {name: model.autoencoder.decode(z, {}).mean for name, z in latents.items()}
    return {name: mean.clamp(-1, 1) for name, mean in means.items() if mean is not None}


def energies(pictures: Tensor) -> Tensor:
    """``(bands,)``: energy by octave, summed over pictures and channels; the first is that of their means."""
    spectrum = torch.fft.fft2(pictures.double()).abs().square().sum((0, 1))
    cycles = torch.fft.fftfreq(spectrum.shape[0]) * spectrum.shape[0]
    radius = (cycles.square().unsqueeze(1) + cycles.square()).sqrt()
    return torch.stack([spectrum[(radius >= low) & (radius < high)].sum() for low, high in BANDS])


def sheet(rows: list[Tensor], path: Path) -> None:
    pixels = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    Image.fromarray(((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy().astype(np.uint8)).save(path)


def looked_at(name: str, model: toolkit.Model, x: Tensor) -> tuple[list[dict[str, Any]], list[Tensor]]:
    """The figures of a model, and what images ``(batch, 3, 64, 64)`` are decoded to."""
    pictures = decoded(model, torch.cat([model.encode(part) for part in x.split(32)]))
    whole, data = pictures["both"], model.spec.scale(x)
    errors = {kept: float((picture - data).square().mean() / data.var()) for kept, picture in pictures.items()}
    rows: list[dict[str, Any]] = [{"what": name, "figure": "error over variance", **errors}]
    for what, kept in (("top", "bottom alone"), ("bottom", "top alone")):
        lost = (energies(whole - pictures[kept]) / energies(whole)).tolist()
        bands = [f"{low} to {high} cycles" for low, high in BANDS]
        rows.append({"what": name, "figure": f"lost by dropping the {what}", **dict(zip(bands, lost, strict=True))})
    for row in rows:
        shown = list(row.items())[2:]
        print(f"{name:18} {row['figure']:28}", *(f"{key}: {value:.3f} " for key, value in shown))
    return rows, list(pictures.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--out", type=Path, default=Path("levels"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    models = {name: trained(name, args) for name in DROPOUT}
    first = next(iter(models.values()))
    count = min(args.examples, first.dataset.size("test"))
    x = torch.stack([first.dataset.example("test", index, None)["x"] for index in range(count)])
    rows, shown = [], [first.spec.scale(x[:12])]
    for name, model in models.items():
        found, pictures = looked_at(name, model, x)
        rows += found
        shown += [picture[:12] for picture in pictures]
    sheet(shown, args.out / "sheet.png")
    if args.results:
        facts = {
            "date": time.strftime("%Y-%m-%d"),
            "device": f"CPU, {args.threads} thread of {os.cpu_count()} cores, shared",
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "toolkit": toolkit.__version__,
            "steps": args.steps,
            "examples": count,
            "rows": rows,
        }
        args.results.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
