"""Examples in rows, as one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
CURVE = (160, 48)
"""Width and height in pixels of an example with one axis."""
LEGIBLE = 96
"""Small tiles are enlarged to at most this many pixels on the longer side."""
NARROW, WIDE = 1, 8
"""Pixels between the tiles of an example, and between examples."""
PAPER = 1.0
"""Value between tiles: white."""


def plot_sheet(path: Path, rows: Sequence[np.ndarray]) -> None:
    """Rows of examples ``(batch, channels, *axes)`` in [-1, 1].

    With one axis, an example is a curve per channel, in different colors. With more, it is gray tiles, -1 black and 1
    white: the last two axes are those of an image, and positions along the others, such as time, are side by side, with
    a line per channel.
    """
    if rows[0].ndim == 3:
        _curves(path, rows)
    else:
        _tiles(path, rows)


def _curves(path: Path, rows: Sequence[np.ndarray]) -> None:
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows)
    width, height = CURVE[0] * columns, CURVE[1] * len(rows)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    for i, row in enumerate(rows):
        for j, curves in enumerate(row):
            across = j + np.linspace(0.04, 0.96, curves.shape[-1])
            axes.plot(across[[0, -1]], [-i, -i], color="#cccccc", linewidth=0.6)
            for channel, curve in enumerate(curves):
                axes.plot(across, 0.45 * curve - i, color=COLORS[channel % len(COLORS)], linewidth=1)
    axes.set_xlim(0, columns)
    axes.set_ylim(0.5 - len(rows), 0.5)
    axes.set_axis_off()
    figure.savefig(path)


def _tiles(path: Path, rows: Sequence[np.ndarray]) -> None:
    from matplotlib.image import imsave

    sheet = _stacked([_beside([_example(x) for x in row], WIDE) for row in rows], WIDE)
    imsave(path, np.pad(sheet, WIDE, constant_values=PAPER), cmap="gray", vmin=-1, vmax=1)


def _example(x: np.ndarray) -> np.ndarray:
    """The tiles of one example ``(channels, *axes)``, enlarged by an integer factor."""
    factor = max(1, LEGIBLE // max(x.shape[-2:]))
    tiles = x.reshape(len(x), -1, *x.shape[-2:]).repeat(factor, -2).repeat(factor, -1)
    return _stacked([_beside(list(line), NARROW) for line in tiles], NARROW)


def _beside(parts: Sequence[np.ndarray], gap: int) -> np.ndarray:
    return _stacked([part.T for part in parts], gap).T


def _stacked(parts: Sequence[np.ndarray], gap: int) -> np.ndarray:
    """One below another, narrower ones padded with white on the right."""
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(p, ((0, gap), (0, width - p.shape[1])), constant_values=PAPER) for p in parts]
    return np.concatenate(padded)[:-gap]
