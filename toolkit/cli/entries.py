"""What each entry of a codebook decodes to by itself, as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.model import Model

MOST, COLUMNS = 256, 16
"""Entries on the sheet, the first of them, and how many in a row."""
AROUND = 2
"""Positions on each side of the one that is shown: a code is rarely all that a pixel depends on."""
NAME = "entries.png"


def plot_entries(model: Model, folder: Path) -> list[Path]:
    """Of two axes, each entry of the first depth on a grid of its own, of which the middle is shown.

    Nothing where codes belong to no position, the decoder has no mean, or it takes no other grid than its own.
    """
    patches = _patches(model)
    if patches is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    spec = replace(model.spec, axes=tuple(patches.shape[2:]))
    model.files.plot(patches.split(COLUMNS), spec, path)
    return [path]


@torch.no_grad()
def _patches(model: Model) -> Tensor | None:
    codes, grid = model.code_spec, model.autoencoder.grid
    if model.base is not None or len(grid) != 2 or not codes.depth or codes.parts or codes.grid != grid:
        return None
    stride = [axis // positions for axis, positions in zip(model.data.axes, grid, strict=False)]
    side = 2 * AROUND + 1
    entries = torch.arange(min(MOST, codes.codebook_sizes[0]), device=model.device)
    parts = []
    for some in entries.split(64):
        try:
            z = model.autoencoder.embed(some.view(-1, 1, 1, 1).expand(-1, 1, side, side))
            mean = model.autoencoder.decode(z, {}).mean
        except (RuntimeError, ValueError, ToolkitError):  # a decoder of one size, or one that needs its conditions
            return None
        if mean is None or tuple(mean.shape[2:]) != tuple(side * step for step in stride):
            return None
        middle = (slice(None), slice(None), *(slice(AROUND * step, (AROUND + 1) * step) for step in stride))
        parts.append(model.data.unscale(mean[middle]).cpu())
    return torch.cat(parts)
