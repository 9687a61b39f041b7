"""What each level of a two-level model carries: photos decoded without one of them, by frequency band.

    python benchmarks/levels.py --root photos [--out levels] [--steps 1200] [--results results.json]

Trains ``hierarchy_ema`` (VQ-VAE-2) on a folder of images at 64 x 64, to 8 x 8 top and 16 x 16 bottom codes, into the
folder ``out``; where there is a run already, looks at that. Then held-out images are decoded from both levels, from the
top alone and from the bottom alone, a dropped level's latents being 0. ``sheet.png`` shows each as a row, below the
images. Figures are by octave of spatial frequency, in cycles an image:

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
from toolkit.cli.config.compose import compose
from toolkit.nn.parts import split_parts
from toolkit.quantizers.hierarchy import HierarchyQuantizer

BANDS = [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 33)]
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
    "quantizer.inner.commitment=6",
    "quantizer.inner.dead_code_threshold=0.1",
    "stage=autoencoder",
    "trainer.batch_size=16",
    "trainer.learning_rate=1e-3",
    "trainer.schedule=cosine",
    "trainer.workers=0",
    "trainer.validate_examples=64",
    "trainer.pictures_every=100000",
]


def trained(args: argparse.Namespace) -> toolkit.Model:
    run = args.out / "run"
    if not run.exists():
        every = [f"trainer.{name}={args.steps}" for name in ("steps", "checkpoint_every", "validate_every")]
        toolkit.train(compose([*WORDS, f"dataset.root={args.root}", *every]).config, run)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--out", type=Path, default=Path("levels"))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    model = trained(args)
    count = min(args.examples, model.dataset.size("test"))
    x = torch.stack([model.dataset.example("test", index, None)["x"] for index in range(count)])
    pictures = decoded(model, torch.cat([model.encode(part) for part in x.split(32)]))
    whole, data = pictures["both"], model.spec.scale(x)
    rows: list[dict[str, Any]] = []
    for what, kept in (("top", "bottom alone"), ("bottom", "top alone")):
        lost = energies(whole - pictures[kept]) / energies(whole)
        names = [f"{low} to {high} cycles" for low, high in BANDS]
        rows.append({"what": f"lost by dropping the {what}", **dict(zip(names, lost.tolist(), strict=True))})
        print(f"{rows[-1]['what']:28}", *(f"{name}: {share:.3f} " for name, share in list(rows[-1].items())[1:]))
    errors = {name: float((picture - data).square().mean() / data.var()) for name, picture in pictures.items()}
    print("error over variance", errors)
    sheet([data[:12], *(picture[:12] for picture in pictures.values())], args.out / "sheet.png")
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
            "nmse": errors,
            "rows": rows,
        }
        args.results.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
