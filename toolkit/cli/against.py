"""``toolkit compare RUNS against=[…]``: runs beside everyday codecs, on the same examples, in bytes and in error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.blame import blame
from toolkit.cli.alike import Row, unequal_data
from toolkit.cli.curves import Curve, Example, Point, curve_of_codec, curve_of_run, read_examples
from toolkit.cli.differences import labels
from toolkit.cli.files import build_dataset_of
from toolkit.cli.items import file_items
from toolkit.cli.reading import split_items
from toolkit.cli.report import notes, number, progress, table
from toolkit.errors import ToolkitError, printable
from toolkit.file_codec import FileCodec
from toolkit.model import Model, load
from toolkit.registry import did_you_mean
from toolkit.runs.folder import Run
from toolkit.spec import DataSpec
from toolkit.writing import write_into, write_text

if TYPE_CHECKING:
    from toolkit.cli.compare import CompareOptions

HEAD = ("", "at", "bytes", "of them header", "bits/dim", "nmse")
NONE = "\N{EN DASH}"


def compare_with_codecs(folders: Sequence[Path], options: CompareOptions, out: Path) -> list[Path]:
    """Prints the table, and writes it and the plot; the files that were written."""
    models = _opened(folders, options.device, options.checkpoint)
    _check_alike(models, options.files is None)
    first = models[0]
    codecs = _chosen(first, options.against)
    if options.files:
        named = file_items(first, [options.files])[: options.examples]
    else:
        dataset = build_dataset_of(first.bottom, {})
        named = split_items(first, dataset, options.split, options.workers, options.examples)
    examples = read_examples(first, named)
    curves = _runs(models, examples, options)
    for name, codec in codecs.items():
        with progress(name, len(codec.qualities) * len(examples)) as report:
            curves.append(curve_of_codec(name, codec, first.spec, examples, report))
    dims = sum(example.x.numel() for example in examples)
    header, cells = _cells(curves, first.spec, len(examples), dims)
    of = str(options.files) if options.files else f"{options.split} split"
    table(f"{of}, {len(examples)} examples of {dims / len(examples):,.10g} numbers; bytes for each", header, cells)
    try:
        return _write(out, curves, examples, first.spec, of, (header, cells))
    except OSError as e:
        raise ToolkitError(f"out={out}: {e.strerror or e}") from e


def _opened(folders: Sequence[Path], device: str, checkpoint: str | None) -> list[Model]:
    models = []
    for folder in folders:
        try:
            models.append(load(folder, device, checkpoint=checkpoint))
            notes(models[-1].notices)
        except ToolkitError as e:
            notes([f"{folder} is left out: {e}"])
        except Exception as e:  # whatever is wrong with one run, the others can be compared
            notes([f"{folder} is left out: {blame(e)}"])
    if not models:
        raise ToolkitError("none of these runs can be compared")
    return models


def _check_alike(models: Sequence[Model], split: bool) -> None:
    """ToolkitError where one file would be other numbers to another run; a note where splits are others."""
    first = models[0]
    for model in models[1:]:
        if _form(model.spec) != _form(first.spec):
            raise ToolkitError(
                f"{model.run.path} is of {_described(model.spec)}, {first.run.path} of {_described(first.spec)}: "
                "compare runs of the same data on the same files"
            )
        if split and model.spec.conditions != first.spec.conditions:
            raise ToolkitError(
                f"{model.run.path} and {first.run.path} have other conditions: compare them on files=DIR, not a split"
            )
    if split:
        notes(unequal_data([Row(m.run.path, m.bottom.config, {}, "") for m in models]))


def _form(spec: DataSpec) -> tuple[object, ...]:
    return spec.shape, spec.levels, spec.varying, spec.rates


def _described(spec: DataSpec) -> str:
    of = "floats" if spec.levels is None else f"{spec.levels} levels"
    rates = [f"{rate:g}" for rate in spec.rates if rate]
    return f"data {spec.shape} of {of}" + (f" at {', '.join(rates)} per second" if rates else "")


def _chosen(model: Model, names: Sequence[str]) -> dict[str, FileCodec]:
    """The codecs of these names; ToolkitError for one that the data has not, or that is not installed."""
    name = model.bottom.config.dataset.name
    try:
        known = model.files.codecs(model.spec)
    except ValueError as e:
        raise ToolkitError(f"against: dataset={name}: {e}") from e
    for wanted in names:
        if wanted not in known:
            have = ", ".join(known) or "nothing"
            raise ToolkitError(
                f"against={wanted}: dataset={name} has no codec {wanted}{did_you_mean(wanted, known)}: it has {have}"
            )
        if known[wanted].missing:
            raise ToolkitError(f"against={wanted}: {known[wanted].missing}; leave it out, or install it")
    return {wanted: known[wanted] for wanted in names}


def _runs(models: Sequence[Model], examples: Sequence[Example], options: CompareOptions) -> list[Curve]:
    """Curves of the runs that can code the examples; ToolkitError for none."""
    curves = []
    names = labels(
        [model.config.values() for model in models], [Run(model.run.path.resolve()).title for model in models]
    )
    for model, label in zip(models, names, strict=True):
        given = (options.prior, options.condition, options.lossless)
        try:
            with progress(label, len(examples)) as report:
                curve, notices = curve_of_run(model, label, examples, *given, report)
            notes([f"{model.run.path}: {notice}" for notice in notices])
            curves.append(curve)
        except ToolkitError as e:
            notes([f"{model.run.path} is left out: {e}"])
        except Exception as e:
            notes([f"{model.run.path} is left out: {blame(e)}"])
    if not curves:
        raise ToolkitError("none of these runs can be compared")
    return curves


def _ratio(spec: DataSpec) -> str:
    """What is shown: the ratio to the data's own strength of signals, which have no peak to speak of, else PSNR."""
    return "snr" if spec.rank == 1 else "psnr"


def _cells(curves: Sequence[Curve], spec: DataSpec, n: int, dims: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    ratio = _ratio(spec)
    rows = [
        (
            f"{curve.label}, prior={curve.prior}" if curve.prior else curve.label,
            point.at,
            f"{point.size / n:,.1f}",
            f"{point.header / n:,.1f}",
            number(_bits(point, dims)),
            *(number(point.metrics[name]) if name in point.metrics else NONE for name in ("nmse", ratio)),
        )
        for curve in curves
        for point in curve.points
    ]
    return (*HEAD, f"{ratio}, dB"), rows


def _bits(point: Point, dims: int) -> float:
    """Bits per dim, without headers."""
    return 8 * (point.size - point.header) / dims


def _write(
    out: Path,
    curves: Sequence[Curve],
    examples: Sequence[Example],
    spec: DataSpec,
    of: str,
    shown: tuple[tuple[str, ...], list[tuple[str, ...]]],
) -> list[Path]:
    """The comparison as JSON, as Markdown and as a picture."""
    from toolkit.cli.compare import markdown

    dims = sum(prod(example.x.shape) for example in examples)
    values = {
        "of": of,
        "examples": len(examples),
        "dims": dims,
        "curves": [_values(curve, dims) for curve in curves],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "against.json", json.dumps(values, indent=1, ensure_ascii=False))
    write_text(out / "against.md", markdown(*shown))
    return [out / "against.json", out / "against.md", *write_into(out, partial(_plot, curves, spec, dims))]


def _values(curve: Curve, dims: int) -> dict[str, Any]:
    points: list[Mapping[str, Any]] = [
        {"at": p.at, "bytes": p.size, "header": p.header, "bits_per_dim": _bits(p, dims), **p.metrics}
        for p in curve.points
    ]
    run = {"run": str(curve.run), "prior": curve.prior} if curve.run else {}
    return {"label": curve.label, **run, "points": points}


def _plot(curves: Sequence[Curve], spec: DataSpec, dims: int, folder: Path) -> list[Path]:
    from toolkit.plots.curves import Line, plot_curves

    ratio = _ratio(spec)
    lines = [
        Line(
            printable(curve.label),
            [(_bits(point, dims), point.metrics.get(ratio)) for point in curve.points],
            ours=curve.run is not None,
        )
        for curve in curves
    ]
    path = folder / "against.png"
    return [path] if plot_curves(path, lines, "bits per dim, without headers", f"{ratio.upper()}, dB") else []
