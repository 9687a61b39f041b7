"""A plot of what each position costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

COLUMNS = 3
"""Most panels in a row."""


class Panel(NamedTuple):
    """A number at every position of one to three axes."""

    title: str
    values: np.ndarray


def plot_positions(path: Path, panels: Sequence[Panel]) -> None:
    """A curve for one axis, a map for two; of three, such as of film, a curve over the first and a map of its mean."""
    from matplotlib.figure import Figure

    drawn = [panel for each in panels for panel in _flat(each)]
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.9 * rows), dpi=110, layout="constrained")
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(cells, drawn, strict=False):
        heat = _draw(axes, panel)
        if heat is not None:
            figure.colorbar(heat, ax=axes, shrink=0.85)
    for axes in cells[len(drawn) :]:
        axes.remove()
    figure.savefig(path)


def _flat(panel: Panel) -> list[Panel]:
    if panel.values.ndim < 3:
        return [panel]
    over = tuple(range(1, panel.values.ndim))
    return [
        Panel(f"{panel.title}, over the first axis", panel.values.mean(over)),
        Panel(f"{panel.title}, mean of the first axis", panel.values.mean(0)),
    ]


def _draw(axes: Axes, panel: Panel) -> ScalarMappable | None:
    """A line, or a map of colors, which is returned."""
    axes.set_title(panel.title, fontsize=8)
    axes.tick_params(labelsize=7)
    if panel.values.ndim == 2:
        return axes.imshow(panel.values, cmap="viridis", interpolation="nearest")
    axes.plot(panel.values, color="#0072b2", linewidth=1.4, marker="." if len(panel.values) < 3 else "")
    axes.set_ylim(bottom=min(0.0, float(panel.values.min())))
    axes.spines[["top", "right"]].set_visible(False)
    return None
