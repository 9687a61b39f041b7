"""Metrics over steps as charts: the geometry of an SVG, and the numbers that a pointer reads from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil, floor, isfinite, log10
from typing import Any, NamedTuple

from toolkit.runs.best import Best

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 54, 18, 10, 24
"""Pixels, and those of them around the plot."""
POINTS = 500
"""Of a line, at most: those of a longer one are thinned evenly."""
TICKS = 4
WIDE = 30.0
"""Where the largest value is so many times the smallest, and all are positive, an axis is logarithmic."""

FIRST = ("loss", "bits_per_dim", "nll", "mse", "nmse", "psnr", "ssim", "usage", "perplexity", "batch_perplexity")
"""The metrics that a reader looks for first, in this order."""
TRAINING = ("grad_norm", "critic_grad_norm", "learning_rate")
"""How it was trained; these come next, and all others are folded away."""
LEFT_OUT = ("step", "stage", "split", "total_steps", "seconds_left")


class Series(NamedTuple):
    """One line."""

    label: str
    color: int
    """Which of the page's colors."""
    dashed: bool
    points: list[tuple[float, float]]


class Tick(NamedTuple):
    at: float
    text: str


class Mark(NamedTuple):
    """The step of the best checkpoint, of the figure that it was chosen by, or of another one beside it."""

    step: int
    at: float
    """Pixels."""
    dot: tuple[float, float] | None
    """Where its value stands, of that figure."""


class Chart(NamedTuple):
    """One chart, drawn."""

    title: str
    minor: bool
    """Whether it is folded away at first."""
    series: list[Series]
    lines: list[str]
    """Of each series, an SVG path."""
    dots: list[list[tuple[float, float]]]
    """Of each series, the places of its points, where they are shown as dots."""
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    axes: dict[str, Any]
    """How a pointer's place is turned into a value."""
    best: Mark | None


def stages_of(
    runs: Mapping[str, Iterable[Mapping[str, Any]]], best: Mapping[str, Best] | None = None
) -> dict[str, list[Chart]]:
    """Charts by stage, from the lines of each run's log by its label; ``autoencoder`` first.

    ``best``: a single run's best checkpoint of each stage, which is marked.
    """
    found: dict[str, dict[str, dict[tuple[str, str], list[tuple[float, float]]]]] = {}
    for label, lines in runs.items():
        for line in lines:
            metrics = found.setdefault(str(line["stage"]), {})
            for name, value in line.items():
                if name not in LEFT_OUT and isinstance(value, int | float) and isfinite(value):
                    metrics.setdefault(name, {}).setdefault((label, str(line["split"])), []).append(
                        (float(line["step"]), float(value))
                    )
    labels = list(runs)
    order = sorted(found, key=lambda stage: (stage != "autoencoder", stage))
    return {
        stage: [
            chart(name, _series(found[stage][name], labels), name not in (*FIRST, *TRAINING), (best or {}).get(stage))
            for name in sorted(found[stage], key=_rank)
        ]
        for stage in order
    }


def scatter(title: str, points: Mapping[str, tuple[float, float]]) -> Chart:
    """A dot per label."""
    series = [Series(label, i, False, [point]) for i, (label, point) in enumerate(points.items())]
    return chart(title, series)


def chart(title: str, series: Sequence[Series], minor: bool = False, best: Best | None = None) -> Chart:
    """Draws lines that share their axes; a line with one point is a dot.

    ``best``: the checkpoint that is marked, where its step lies on the axis.
    """
    thinned = [line._replace(points=list(_thinned(line.points))) for line in series if line.points]
    x_axis = _axis([x for line in thinned for x, _ in line.points], LEFT, WIDTH - RIGHT, wide=False)
    y_axis = _axis([y for line in thinned for _, y in line.points], HEIGHT - BOTTOM, TOP, wide=True)
    places = [[(round(x_axis.at(x), 1), round(y_axis.at(y), 1)) for x, y in line.points] for line in thinned]
    return Chart(
        title,
        minor,
        thinned,
        [_path(points) for points in places],
        [points if len(points) <= TICKS else [] for points in places],
        x_axis.ticks(),
        y_axis.ticks(),
        {"x": list(x_axis.ends), "left": LEFT, "right": WIDTH - RIGHT},
        _mark(title, best, x_axis, y_axis) if best else None,
    )


def _mark(title: str, best: Best, x_axis: _Axis, y_axis: _Axis) -> Mark | None:
    if not x_axis.ends[0] <= best.step <= x_axis.ends[1]:
        return None
    at = round(x_axis.at(best.step), 1)
    figure = best.figure.partition("/")[2] == title and y_axis.ends[0] <= best.value <= y_axis.ends[1]
    return Mark(best.step, at, (at, round(y_axis.at(best.value), 1)) if figure else None)


def shown(value: float) -> str:
    """A number in few characters."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.3g}"


class _Axis(NamedTuple):
    low: float
    high: float
    ends: tuple[float, float]
    """The values at both ends, as they are read."""
    start: float
    stop: float
    """Pixels."""
    logarithmic: bool

    def at(self, value: float) -> float:
        place = log10(value) if self.logarithmic else value
        return self.start + (place - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self) -> list[Tick]:
        if self.logarithmic:
            powers = range(ceil(self.low - 1e-9), floor(self.high + 1e-9) + 1)
            values = [10.0**power for power in powers][:: max(1, len(powers) // TICKS)]
        else:
            values = _round_values(self.low, self.high)
        return [Tick(round(self.at(value), 1), shown(value)) for value in values]


def _axis(values: Sequence[float], start: float, stop: float, wide: bool) -> _Axis:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if wide and low > 0 and high > WIDE * low:
        a, b = log10(low), log10(high)
        return _Axis(floor(a), ceil(b), (low, high), start, stop, True)
    if low == high:
        low, high = low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1)
    margin = 0.04 * (high - low) if wide else 0.0
    return _Axis(low - margin, high + margin, (low, high), start, stop, False)


def _round_values(low: float, high: float) -> list[float]:
    """Some round numbers from low to high."""
    step = 10.0 ** floor(log10((high - low) / TICKS))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= TICKS + 1)
    return [i * step for i in range(ceil(low / step), floor(high / step) + 1)]


def _series(lines: Mapping[tuple[str, str], list[tuple[float, float]]], labels: Sequence[str]) -> list[Series]:
    """A run's splits have one color, and different ones where there is one run."""
    splits = {split: i for i, split in enumerate(sorted({split for _, split in lines}))}
    several = len(labels) > 1
    return [
        Series(
            f"{label} {split}" if several else split,
            labels.index(label) if several else splits[split],
            several and split != "val" and len(splits) > 1,
            sorted(points),
        )
        for (label, split), points in sorted(lines.items(), key=lambda item: (labels.index(item[0][0]), item[0][1]))
    ]


def _thinned(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    step = ceil(len(points) / POINTS)
    for i, point in enumerate(points):
        if i % step == 0 or i == len(points) - 1:
            yield point


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points) if len(points) > 1 else ""


def _rank(name: str) -> tuple[int, str]:
    known = (*FIRST, *TRAINING)
    return (known.index(name), "") if name in known else (len(known), name)
