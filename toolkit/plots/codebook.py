"""A plot of how often the entries of each codebook are used."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 5
"""Most panels in a row."""


class DepthUse(NamedTuple):
    """Usage of one depth's codebook."""

    shares: Sequence[float]
    """Shares of all codes by entry, most used first."""
    usage: float
    perplexity: float
    nearest_pair: float | None
    counted: int | None = None
    """Codes that the shares are of."""

    @property
    def used(self) -> int:
        """Number of entries that were used."""
        return sum(share > 0 for share in self.shares)


def plot_codebooks(path: Path, depths: Sequence[DepthUse], quantization_error: float | None) -> None:
    """A panel per depth: share of codes by rank of the entry, even use as a line, dead entries shaded."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(depths))
    rows = ceil(len(depths) / columns)
    size = (7.0, 4.4) if len(depths) == 1 else (2.6 * columns + 0.8, 2.3 * rows + 0.9)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes, use in zip(panels, depths, strict=False):
        _panel(axes, use)
    if len(depths) > 1:
        for number, (axes, use) in enumerate(zip(panels, depths, strict=False)):
            axes.set_title(_panel_title(number, use), fontsize=7.5)
    for axes in panels[len(depths) :]:
        axes.remove()
    least = min(share for use in depths for share in use.shares if share > 0)
    panels[0].set_ylim(least / 2, 1.5)
    panels[0].legend(loc="upper right", fontsize=7, frameon=False)
    figure.supxlabel("entry, the most used first", fontsize=9)
    figure.supylabel("share of codes", fontsize=9)
    figure.suptitle(_title(depths, quantization_error), fontsize=9.5)
    figure.savefig(path)


def _panel(axes: Axes, use: DepthUse) -> None:
    size, used = len(use.shares), use.used
    marker = "." if used < 5 else ""  # a line needs length to be seen
    axes.plot(range(1, used + 1), use.shares[:used], color="#0072b2", linewidth=1.6, marker=marker, label="in use")
    axes.axhline(1 / size, color="#555555", linewidth=1, linestyle="--", label="even use")
    axes.axvspan(used + 0.5, size + 0.5, color="#d55e00", alpha=0.15, linewidth=0, label="dead")
    axes.set_yscale("log")
    axes.set_xlim(1 - 0.02 * size, size + 0.5)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _panel_title(depth: int, use: DepthUse) -> str:
    pair = "" if use.nearest_pair is None else f"\nnearest pair {use.nearest_pair:.3g}"
    size = len(use.shares)
    return f"depth {depth}: {size - use.used:,} of {size:,} dead, perplexity {use.perplexity:.1f}{pair}"


def _title(depths: Sequence[DepthUse], quantization_error: float | None) -> str:
    """Means over depths, as the metric computes them."""
    entries, used = sum(len(use.shares) for use in depths), sum(use.used for use in depths)
    perplexity = sum(use.perplexity for use in depths) / len(depths)
    pairs = [use.nearest_pair for use in depths if use.nearest_pair is not None]
    use = f"usage {sum(use.usage for use in depths) / len(depths):.1%}"
    first = f"{use}   perplexity {perplexity:,.1f}   {entries - used:,} of {entries:,} entries dead"
    few = [use.counted for use in depths if use.counted is not None and use.counted < len(use.shares)]
    second = [
        *([f"only {min(few):,} codes counted"] if few else []),
        *([f"nearest pair {min(pairs):.3g}"] if pairs else []),
        *([] if quantization_error is None else [f"quantization error {quantization_error:.3g}"]),
    ]
    return "\n".join(filter(None, [first, "   ".join(second)]))
