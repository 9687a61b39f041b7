"""A plot of what runs spend on codes against their reconstruction error."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from warnings import catch_warnings, filterwarnings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
MARKERS = "os^Dv*"
NEAR = 5
OFFSETS = [(x, y) for far in (NEAR, 12, 22, 34) for x in (far, -far) for y in (far, -far, 0)]
"""Offsets of a label from its run's marker, in typographic points; nearest first."""

PANELS = {"data_bits": "data bits per dim", "psnr": "PSNR, dB"}


class Point(NamedTuple):
    """One run."""

    label: str
    """What identifies it within its group."""
    group: str
    """Runs of one color."""
    code_bits: float | None
    """Per dim."""
    data_bits: float | None
    """Per dim; None for a density."""
    psnr: float | None


class _Spot(NamedTuple):
    """A run in one panel."""

    label: str
    group: str
    x: float
    y: float


def plot_comparison(path: Path, points: Sequence[Point]) -> bool:
    """Data bits and PSNR over code bits, a panel for each that some run has; False where there is nothing to plot."""
    from matplotlib.figure import Figure

    shown = {name: spots for name in PANELS if (spots := _spots(points, name))}
    if not shown:
        return False
    figure = Figure(figsize=(0.6 + 6.2 * len(shown), 5.0), dpi=120, layout="constrained")
    panels = list(figure.subplots(1, len(shown), squeeze=False)[0])
    groups = list(dict.fromkeys(point.group for point in points))
    for axes, (name, spots) in zip(panels, shown.items(), strict=True):
        _panel(axes, spots, groups)
        axes.set_xlabel("code bits per dim", fontsize=9)
        axes.set_ylabel(PANELS[name], fontsize=9)
        if name == "data_bits":
            _best_line(axes, spots)
    panels[0].legend(fontsize=8, frameon=False)
    with catch_warnings():
        filterwarnings("ignore", "Glyph .* missing")  # letters that no installed font has become boxes
        _label(figure, dict(zip(panels, shown.values(), strict=True)))
        figure.savefig(path)
    return True


def _spots(points: Sequence[Point], name: str) -> list[_Spot]:
    """The runs with both values of a panel."""
    pairs = [(point, point.code_bits, getattr(point, name)) for point in points]
    return [_Spot(p.label, p.group, x, y) for p, x, y in pairs if x is not None and y is not None and isfinite(x + y)]


def _panel(axes: Axes, spots: Sequence[_Spot], groups: Sequence[str]) -> None:
    for number, group in enumerate(groups):
        color, marker = COLORS[number % len(COLORS)], MARKERS[number // len(COLORS) % len(MARKERS)]
        some = [spot for spot in spots if spot.group == group]
        points = [spot.x for spot in some], [spot.y for spot in some]
        axes.plot(*points, marker=marker, color=color, linestyle="", markersize=6, label=group)
    axes.margins(0.18)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)


def _best_line(axes: Axes, spots: Sequence[_Spot]) -> None:
    """The line on which data and code bits sum to those of the best run."""
    best = min(spots, key=lambda spot: spot.x + spot.y)
    label = f"{best.x + best.y:.4g} in total"
    axes.axline((best.x, best.y), slope=-1, color="#555555", linewidth=1, linestyle="--", label=label)


def _label(figure: Figure, panels: dict[Axes, list[_Spot]]) -> None:
    """Puts each label beside its marker, where it covers least of the others."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # positions measured from here on do not change
    for axes, spots in panels.items():
        markers = [axes.transData.transform((spot.x, spot.y)) for spot in spots]
        taken = [Bbox.from_extents(x - NEAR, y - NEAR, x + NEAR, y + NEAR) for x, y in markers]
        if legend := axes.get_legend():
            taken.append(legend.get_window_extent())
        for spot in spots:
            if spot.label:
                taken.append(_place(axes, spot, taken))


def _place(axes: Axes, spot: _Spot, taken: Sequence[Bbox]) -> Bbox:
    """Writes a label at the nearest free offset, or else the one that covers least; returns its box."""
    tried = []
    for offset in OFFSETS:
        text = _write(axes, spot, offset)
        box = text.get_window_extent()
        text.remove()
        outside = _overlap(box, box) - _overlap(box, axes.bbox)
        tried.append((sum(_overlap(box, other) for other in taken) + outside, offset))
        if tried[-1][0] <= 0:
            break
    return _write(axes, spot, min(tried, key=lambda attempt: attempt[0])[1]).get_window_extent()


def _write(axes: Axes, spot: _Spot, offset: tuple[int, int]) -> Annotation:
    x, y = offset
    return axes.annotate(
        spot.label,
        (spot.x, spot.y),
        offset,
        textcoords="offset points",
        fontsize=7.5,
        ha="left" if x > 0 else "right",
        va="bottom" if y > 0 else "top" if y < 0 else "center",
        arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#888888"} if abs(x) > NEAR else None,
        parse_math=False,
    )


def _overlap(one: Bbox, other: Bbox) -> float:
    """The area that two boxes share."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, wide) * max(0.0, high))
