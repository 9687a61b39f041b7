"""A run's graphs, written with what they need beside them, and tried."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from toolkit.dataset import Dataset
from toolkit.errors import ToolkitError
from toolkit.exporting import onnx_file, torch_file, walking
from toolkit.exporting.comparing import Run, compared
from toolkit.exporting.described import described, described_prior
from toolkit.exporting.graphs import NAMES, Graph, Graphs, stage_one
from toolkit.exporting.stepping import Stepping, stepping
from toolkit.exporting.tensors import random_condition, random_data
from toolkit.exporting.tracing import ExportError, traced
from toolkit.lengths.mask import shortest
from toolkit.model import Model, load
from toolkit.registry import did_you_mean
from toolkit.writing import write_into

Format = Literal["onnx", "torch"]

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
PACKAGES = {"onnx": ("torch", *onnx_file.NEEDED), "torch": ("torch",)}
"""What a format's files depend on."""


class Batch(NamedTuple):
    """What graphs are tried on."""

    tensors: Mapping[str, Tensor]
    """``x`` and the conditions, as ``Dataset.batch`` gives them."""
    source: str
    """Where they are from."""


def export(
    run: str | Path | Model,
    out: str | Path,
    *,
    format: Format = "onnx",
    graphs: Sequence[str] = (),
    prior: str | None = None,
    split: str = "test",
    examples: int = 64,
) -> dict[str, Any]:
    """Writes a run's first stage into a folder as graphs that need no toolkit; returns what ``export.json`` holds.

    ``encoder`` gives codes for data, ``decoder`` data for codes, as far as its distribution has a mean, and ``embed``
    the decoder's latents; ``graphs`` chooses some of them. ``prior`` adds those of a trained prior that goes code by
    code: its start and its step. The batch is free, and so are axes that vary in the data.
    Beside them are ``spec.json`` and ``run.py``. Every graph is tried on ``examples`` of a split beside the model, or
    on noise where the dataset is not there. ToolkitError where the run cannot be opened, the extra of ``format=onnx``
    is not installed, or a part cannot be exported: with the operation.
    """
    check_folder(Path(out))
    opened = run.checkpoint.step if isinstance(run, Model) else None
    model = load(run.run.path if isinstance(run, Model) else run, "cpu", checkpoint=opened)
    batch = batch_of(model, lambda: model.bottom.dataset, split, examples)
    report: dict[str, Any] = {}

    def write(folder: Path) -> list[Path]:
        report.update(write_graphs(model, folder, format, graphs, batch, prior))
        return sorted(folder.iterdir())

    write_into(Path(out), write)
    return report


def batch_of(model: Model, dataset: Callable[[], Dataset], split: str, n: int) -> Batch:
    """The first n examples of a split, or noise where the dataset is not there."""
    try:
        opened = dataset()
        size = min(n, opened.size(split))
        if not size:
            raise ToolkitError(f"split={split} has no examples")
        return Batch(shortest(opened.batch(split, range(size), None)), f"{size} examples of split={split}")
    except (ToolkitError, OSError) as e:
        seed = torch.Generator().manual_seed(0)
        tensors = {"x": random_data(model.spec, n, model.spec.axes, seed)}
        tensors |= {c.name: random_condition(c, n, model.spec.axes[0], seed) for c in model.spec.conditions}
        return Batch(tensors, f"{n} examples of noise, as the dataset cannot be read ({e})")


def write_graphs(
    model: Model, folder: Path, format: Format, names: Sequence[str], batch: Batch, prior: str | None = None
) -> dict[str, Any]:
    """Everything, into an empty folder; the report. ``names``: of the graphs (none: all that there are)."""
    check_names(names)
    if format == "onnx":
        onnx_file.require()
    steps = stepping(model, prior) if prior else None
    possible = stage_one(model)
    written = _written(model, possible, _chosen(names, possible), folder, format)
    others = {name: _write(graph, folder / f"{name}{SUFFIXES[format]}", format) for name, graph in _of(steps).items()}
    paths = {name: folder / f"{name}{SUFFIXES[format]}" for name in (*written.graphs, *others)}
    spec = described(model, written.graphs, {name: path.name for name, path in paths.items()})
    if steps:
        spec["prior"] = described_prior(model, steps, {name: path.name for name, path in paths.items()})
        spec["graphs"] |= spec["prior"].pop("graphs")
    (folder / "spec.json").write_text(json.dumps(spec, indent=1, ensure_ascii=False), encoding="utf-8")
    for source, name in ((f"run_{format}.txt", "run.py"), *((("sample.txt", "sample.py"),) if steps else ())):
        script = files("toolkit.exporting").joinpath(source).read_text(encoding="utf-8")
        (folder / name).write_text(script, encoding="utf-8")
    opened: Callable[[Path], Run] = onnx_file.Session if format == "onnx" else torch_file.Program
    runs = {name: opened(path) for name, path in paths.items()}
    tried = compared(model, written.graphs, runs, batch.tensors)
    report = {
        "format": format,
        "step": model.checkpoint.step,
        "weights": model.checkpoint.weights_hash,
        "tried_on": batch.source,
        "threads": torch.get_num_threads(),
        "graphs": {name: {"bytes": paths[name].stat().st_size, **tried[name]} for name in written.graphs},
        "left_out": possible.left_out,
        "fixed": written.fixed,
        "versions": {name: version(name) for name in PACKAGES[format]},
    }
    if steps:
        own = {name: runs[name] for name in others}
        sizes = {name: paths[name].stat().st_size for name in others}
        report["prior"] = {"bytes": sizes, **walking.tried(model, steps, own, batch.tensors)}
    (folder / "export.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    return report


def _of(steps: Stepping | None) -> Mapping[str, Graph]:
    return {} if steps is None else steps.graphs


class _Written(NamedTuple):
    graphs: dict[str, Graph]
    fixed: dict[str, str]
    """Of which no axis but the batch is free although the data varies, and why."""


def _written(model: Model, possible: Graphs, names: list[str], folder: Path, format: Format) -> _Written:
    """Writes the graphs of these names, with free axes where that can be."""
    graphs, fixed = dict[str, Graph](), dict.fromkeys(names, possible.fixed) if possible.fixed else {}
    for name in names:
        path = folder / f"{name}{SUFFIXES[format]}"
        try:
            graphs[name] = _write(possible.there[name], path, format)
        except ExportError as e:
            others = ",".join(other for other in names if other != name)
            cure = f"; graphs=[{others}] leaves it out" if others else ""
            if not any(len(free) > 1 for free in possible.there[name].axes.values()):
                raise ExportError(f"{e}{cure}") from e
            fixed[name] = str(e)
            try:
                graphs[name] = _write(stage_one(model, free=False).there[name], path, format)
            except ExportError as again:
                raise ExportError(f"{again}{cure}") from again
    return _Written(graphs, fixed)


def check_folder(out: Path) -> None:
    """ToolkitError for a run's folder, which has a ``spec.json`` of its own."""
    if (out / "config.yaml").exists():
        raise ToolkitError(f"out={out}: this folder holds a run, whose spec.json would be replaced: name another")


def check_names(names: Sequence[str]) -> None:
    """ToolkitError for a name that no graph has."""
    for name in names:
        if name not in NAMES:
            raise ToolkitError(f"graphs={name}: no such graph{did_you_mean(name, NAMES)} ({', '.join(NAMES)})")


def _chosen(names: Sequence[str], possible: Graphs) -> list[str]:
    """The graphs to write; ToolkitError for one that there is not."""
    for name in names:
        if name in possible.left_out:
            raise ToolkitError(f"graphs={name}: {possible.left_out[name]}; there are {', '.join(possible.there)}")
    return [name for name in possible.there if not names or name in names]


def _write(graph: Graph, path: Path, format: Format) -> Graph:
    (onnx_file if format == "onnx" else torch_file).write(graph, traced(graph), path)
    return graph
