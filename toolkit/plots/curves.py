"""A plot of error over bytes, with a curve for each run and codec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from warnings import catch_warnings, filterwarnings

from toolkit.plots.comparison import COLORS, MARKERS


class Line(NamedTuple):
    """One curve."""

    label: str
    points: Sequence[tuple[float, float | None]]
    """Bits, and decibels; None where nothing is lost, which no decibels tell."""
    ours: bool
    """Whether it is a run's, and drawn through."""


def plot_curves(path: Path, lines: Sequence[Line], bits: str, decibels: str) -> bool:
    """Decibels over bits, on a logarithmic axis, and lossless points as upright lines; False where there are none."""
    from matplotlib.figure import Figure

    shown = [line._replace(points=[point for point in line.points if point[0] > 0]) for line in lines]
    if not any(line.points for line in shown):
        return False
    figure = Figure(figsize=(7.4, 5.0), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    for i, line in enumerate(shown):
        color, marker = COLORS[i % len(COLORS)], MARKERS[i // len(COLORS) % len(MARKERS)]
        lossy = [(x, y) for x, y in line.points if y is not None]
        if lossy:
            style, width = ("-", 2.0) if line.ours else ("--", 1.0)
            axes.plot(*zip(*lossy, strict=True), style, marker=marker, color=color, linewidth=width, label=line.label)
        for x in (x for x, y in line.points if y is None):
            axes.axvline(x, color=color, linestyle="-" if line.ours else ":", label=f"{line.label}, lossless")
    axes.set_xlabel(bits, fontsize=9)
    axes.set_ylabel(decibels, fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
    with catch_warnings():
        filterwarnings("ignore", "Glyph .* missing")  # letters that no installed font has become boxes
        figure.savefig(path)
    return True
