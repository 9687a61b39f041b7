"""A model as others might publish it, for the toy family: written out by hand, and computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

WIDTH, DIM, ENTRIES = 6, 4, 16
SETTINGS = {"model_type": "toy", "width": WIDTH, "activation": "relu"}


def weights(seed: int = 0) -> dict[str, Tensor]:
    """Random ones, by the names of the toy family's layout."""
    shapes = {
        "enc.first.parametrizations.weight.original0": (WIDTH, 1, 1, 1),
        "enc.first.parametrizations.weight.original1": (WIDTH, 2, 4, 4),
        "enc.first.bias": (WIDTH,),
        "enc.block.wide.weight": (WIDTH, WIDTH, 3, 3),
        "enc.block.wide.bias": (WIDTH,),
        "enc.block.narrow.weight": (WIDTH, WIDTH, 1, 1),
        "enc.block.narrow.bias": (WIDTH,),
        "enc.last.weight": (DIM, WIDTH, 1, 1),
        "enc.last.bias": (DIM,),
        "quantizer.table": (DIM, ENTRIES),
        "quantizer.ready": (1,),
        "dec.first.weight": (WIDTH, DIM, 3, 3),
        "dec.first.bias": (WIDTH,),
        "dec.block.wide.weight": (WIDTH, WIDTH, 3, 3),
        "dec.block.wide.bias": (WIDTH,),
        "dec.block.narrow.weight": (WIDTH, WIDTH, 1, 1),
        "dec.block.narrow.bias": (WIDTH,),
        "dec.last.weight": (WIDTH, 16, 4, 4),
        "dec.last.bias": (16,),
    }
    draws = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=draws) / 3 for name, shape in shapes.items()}
    norm = "enc.first.parametrizations.weight.original0"
    return made | {norm: made[norm].abs(), "quantizer.ready": torch.ones(1)}


def codes(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published model's own arithmetic: levels ``(n, 2, 8, 8)`` to codes ``(n, 1, 4, 4)``."""
    norm, direction = (tensors[f"enc.first.parametrizations.weight.original{part}"] for part in (0, 1))
    first = direction * norm / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    h = F.conv2d(x.float() * (2 / 7) - 1, first, tensors["enc.first.bias"], stride=2, padding=1)
    wide = F.conv2d(h.relu(), tensors["enc.block.wide.weight"], tensors["enc.block.wide.bias"], padding=1)
    h = h + F.conv2d(wide.relu(), tensors["enc.block.narrow.weight"], tensors["enc.block.narrow.bias"])
    z = F.conv2d(h.relu(), tensors["enc.last.weight"], tensors["enc.last.bias"])
    distances = (z.unsqueeze(2) - tensors["quantizer.table"].view(1, DIM, ENTRIES, 1, 1)).square().sum(1)
    return distances.argmin(1, keepdim=True)


def publish(folder: Path, tensors: dict[str, Tensor] | None = None, **settings: Any) -> Path:
    """A folder with weights, settings and a license."""
    folder.mkdir(parents=True)
    save_file(weights() if tensors is None else tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SETTINGS | settings))
    (folder / "LICENSE").write_text("Do as you like.\n")
    return folder


def write_data(root: Path, each: int = 6) -> Path:
    """Files for ``toy_files``, of two classes; none to validate on, which would be plotted."""
    draws = torch.Generator().manual_seed(1)
    for split in ("train", "test"):
        for label in ("flat", "round"):
            (root / split / label).mkdir(parents=True)
            for i in range(each):
                x = torch.randint(8, (2, 8, 8), generator=draws)
                (root / split / label / f"{i}.json").write_text(json.dumps(x.tolist()))
    return root


def decoded(tensors: dict[str, Tensor], codes: Tensor) -> Tensor:
    """Codes to the mean of its distribution over levels ``(n, 2, 8, 8)``, from -1 to 1."""
    z = tensors["quantizer.table"].T[codes[:, 0]].movedim(-1, 1)
    h = F.conv2d(z, tensors["dec.first.weight"], tensors["dec.first.bias"], padding=1)
    wide = F.conv2d(h.relu(), tensors["dec.block.wide.weight"], tensors["dec.block.wide.bias"], padding=1)
    h = h + F.conv2d(wide.relu(), tensors["dec.block.narrow.weight"], tensors["dec.block.narrow.bias"])
    last = F.conv_transpose2d(h.relu(), tensors["dec.last.weight"], tensors["dec.last.bias"], stride=2, padding=1)
    levels = torch.linspace(-1, 1, 8).view(1, 8, 1, 1, 1)
    return (last.unflatten(1, (8, 2)).softmax(1) * levels).sum(1)
