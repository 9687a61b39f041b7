"""Files that the commands read and write, through the dataset's own class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import yaml
from torch import Tensor

from toolkit.build import build_dataset
from toolkit.dataset import Dataset
from toolkit.errors import ToolkitError
from toolkit.model import Model, load
from toolkit.registry import did_you_mean
from toolkit.runs.codes import write_codes
from toolkit.sample import Progress, unwatched
from toolkit.schema import signature
from toolkit.spec import DataSpec
from toolkit.writing import replacing


def read_example(model: Model, path: Path, beginning: int | None = None) -> Tensor:
    """The example ``(channels, *axes)`` in a file, or its first ``beginning`` positions along the first axis.

    ToolkitError naming a file that cannot be read.
    """
    spec = model.spec
    if beginning is not None and any(spec.rates[:1]):
        # Data in time is read no further; a picture is read whole, and then cut.
        spec = replace(spec, axes=(beginning, *spec.axes[1:]), varying=())
    with named(path):
        return model.files.read(path, spec)[:, :beginning]


@contextmanager
def named(path: Path) -> Iterator[None]:
    """ToolkitError naming a file that is none, or cannot be read."""
    if path.is_dir():
        raise ToolkitError(f"{path} is a folder: name its files, such as {path}/*")
    if not path.is_file():
        raise ToolkitError(f"{path}: no such file")
    try:
        yield
    except ValueError as e:
        raise ToolkitError(f"{path}: {e}") from e
    except OSError as e:
        raise ToolkitError(f"{path}: {e.strerror or e}") from e


def reconstruct_examples(
    model: Model, examples: list[Tensor], conditions: dict[str, Tensor], progress: Progress = unwatched
) -> list[Tensor]:
    """Examples through the bottleneck and back, each with its own length; neighbors of one shape are batched."""
    reconstructions: list[Tensor] = []
    for rows in _alike(examples):
        x = pad(model, torch.stack([examples[i] for i in rows]))
        known = {name: value[rows] for name, value in conditions.items()}
        x = model.reconstruct(x, known, progress=progress).cpu()
        reconstructions += [row[_extent(examples[i])] for i, row in zip(rows, x, strict=True)]
    return reconstructions


def encode_examples(model: Model, examples: list[Tensor]) -> list[Tensor]:
    """The codes ``(depth, *grid)`` of each example."""
    codes: list[Tensor] = []
    for rows in _alike(examples):
        codes += model.encode(pad(model, torch.stack([examples[i] for i in rows]))).cpu()
    return codes


def _alike(examples: list[Tensor]) -> list[list[int]]:
    """The indices of neighboring examples of one shape."""
    return [list(rows) for _, rows in groupby(range(len(examples)), key=lambda i: examples[i].shape)]


def pad(model: Model, x: Tensor, first: int = 0) -> Tensor:
    """A batch whose varying axes, from ``first`` on, are padded to a whole number of codes, by repeating their last
    positions."""
    for axis, stride in list(enumerate(strides(model)))[first:]:
        length, lead = x.shape[2 + axis], 0 if axis else model.lead
        positions = torch.arange(-(-(length + lead) // stride) * stride - lead).clamp(max=length - 1)
        x = x.index_select(2 + axis, positions)
    return x


def _extent(example: Tensor) -> tuple[slice, ...]:
    return tuple(slice(length) for length in example.shape)


def strides(model: Model) -> tuple[int, ...]:
    """Positions per code along each axis; 1 where the axis never varies, or the number is not whole.

    1 also where the codes' grid has parts, as no code belongs to a position.
    """
    spec, grid = model.spec, model.code_spec.grid
    if model.code_spec.parts:
        return (1,) * spec.rank
    varying = spec.varying or (False,) * spec.rank
    covered = (spec.axes[0] + model.lead, *spec.axes[1:])
    return tuple(
        length // codes if varies and length % codes == 0 else 1
        for varies, length, codes in zip(varying, covered, grid, strict=True)
    )


def write_examples(model: Model, x: Iterable[Tensor], spec: DataSpec, out: Path, stem: str) -> list[Path]:
    """A file per example, numbered."""
    paths = []
    for i, example in enumerate(x):
        paths.append(out / f"{stem}-{i:04d}{model.files.suffix}")
        with replacing(paths[-1]) as partial:
            model.files.write(example, spec, partial)
    return paths


def write_named(
    model: Model, x: Iterable[Iterable[Tensor]], spec: DataSpec, out: Path, names: Iterable[PurePosixPath]
) -> list[Path]:
    """A file per example, which comes in pieces, below a folder. No link is written through; ToolkitError for one that
    leads out of it."""
    home, paths = out.resolve(), []
    for pieces, name in zip(x, names, strict=True):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.parent.resolve().is_relative_to(home):
            raise ToolkitError(f"{path.parent} is a link that leads out of {out}: remove it, or take another out=")
        with replacing(path) as partial:
            model.files.write_pieces(pieces, spec, partial)
        paths.append(path)
    return paths


def write_codes_of(
    model: Model, parts: Iterable[Tensor], n: int, path: Path, more: Mapping[str, str] | None = None
) -> None:
    """Codes ``(…, depth, *grid)`` of n examples in all, with the hash of the weights that they belong to."""
    metadata = {"weights": model.checkpoint.weights_hash, **(more or {})}
    write_codes(path, model.code_spec, ({"codes": codes} for codes in parts), n, metadata)


def check_axes(axes: Tensor, n: int, most: list[int]) -> None:
    matches = axes.dtype == torch.int64 and tuple(axes.shape) == (n, len(most))
    if not matches or (axes < 1).any() or (axes > torch.tensor(most)).any():
        raise ValueError(f"its axes are not the lengths of {n} examples, from 1 to {most}")


def kept_labels(model: Model, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The labels in a file of codes that the decoder sees; ValueError where they are not this run's."""
    kept, length = {}, model.spec.axes[0]
    for condition in model.spec.conditions:
        if condition.name not in arrays or condition.name not in model.autoencoder.decoder_conditions:
            continue
        values = torch.from_numpy(np.array(arrays[condition.name]))
        steps = (condition.steps(length),) if condition.per_step else ()
        shape = (*steps, *((condition.size,) if condition.real else ()))
        wrong = tuple(values.shape) != (len(arrays["codes"]), *shape) or values.is_floating_point() != condition.real
        if wrong or (not condition.real and (values < 0).any() | (values > condition.size).any()):
            raise ValueError(f"its {condition.name} is not this run's condition")
        kept[condition.name] = values if condition.real else values.long()
    return kept


def unlabeled(model: Model, conditions: dict[str, Tensor]) -> list[str]:
    """A notice for each condition that the decoder was trained to see and is not given."""
    missing = [name for name in model.autoencoder.decoder_conditions if name not in conditions]
    return [f"the decoder sees {name}: give condition.{name}=LABEL, or it counts as unknown" for name in missing]


def build_dataset_of(model: Model, options: dict[str, str]) -> Dataset:
    """What a run's own autoencoder was trained on, with options changed for this command.

    The options are those of the files' dataset: the base's, where a run is over another run's codes. ToolkitError where
    the data has another shape then.
    """
    if model.base is not None:
        source = load(model.run.base, "cpu")
        source.dataset = build_dataset_of(source, options)
        return build_dataset(model.config, None, source)
    name = model.config.dataset.name
    known = {option.name: option for option in signature("dataset", name).options}
    values = {}
    for key, text in options.items():
        if key not in known:
            have = ", ".join(known)
            raise ToolkitError(f"dataset.{key}: dataset={name} has no option {key}{did_you_mean(key, known)} ({have})")
        value = text if known[key].text else yaml.safe_load(text)
        values[key] = known[key].convert(value, f"dataset.{key}")
    dataset = build_dataset(model.config, values)
    if (dataset.spec.shape, dataset.spec.levels) != (model.spec.shape, model.spec.levels):
        raise ToolkitError(f"dataset={name} gives data {dataset.spec.shape} now, this run's is {model.spec.shape}")
    return dataset
