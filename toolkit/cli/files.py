"""Files that the commands read and write, through the dataset's own class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import yaml
from torch import Tensor

from toolkit.build import build_dataset
from toolkit.codes import write_codes
from toolkit.dataset import Dataset
from toolkit.errors import ToolkitError
from toolkit.model import Model, load
from toolkit.registry import did_you_mean
from toolkit.schema import signature
from toolkit.spec import DataSpec


def read_examples(model: Model, paths: list[Path]) -> Tensor:
    """One example per file, as a batch ``(files, channels, *axes)``; ToolkitError naming a file that cannot be read."""
    rows = []
    for path in paths:
        if path.is_dir():
            raise ToolkitError(f"{path} is a folder: name its files, such as {path}/*")
        if not path.is_file():
            raise ToolkitError(f"{path}: there is no such file")
        try:
            rows.append(model.files.read(path, model.spec))
        except ValueError as e:
            raise ToolkitError(f"{path}: {e}") from e
    return torch.stack(rows)


def write_examples(model: Model, x: Tensor, spec: DataSpec, out: Path, stem: str) -> list[Path]:
    """A file per example, numbered."""
    paths = [out / f"{stem}-{i:04d}{model.files.suffix}" for i in range(len(x))]
    for path, example in zip(paths, x, strict=True):
        model.files.write(example, spec, path)
    return paths


def write_codes_of(model: Model, parts: Iterable[Tensor], n: int, path: Path) -> None:
    """Codes ``(…, depth, *grid)`` of n examples in all, with the hash of the weights that they belong to."""
    metadata = {"weights": model.checkpoint.weights_hash}
    write_codes(path, model.latent, ({"codes": codes} for codes in parts), n, metadata)


def unlabelled(model: Model, conditions: dict[str, Tensor]) -> list[str]:
    """A notice for each condition that the decoder was trained to see and is not told."""
    missing = [name for name in model.autoencoder.decoder_conditions if name not in conditions]
    return [f"the decoder sees {name}: give condition.{name}=LABEL, it is taken as unknown" for name in missing]


def build_dataset_of(model: Model, options: dict[str, str]) -> Dataset:
    """What a run's own autoencoder was trained on, with options changed for this command.

    They are those of the files' dataset: the base's, where a run is over another's codes. ToolkitError where it is
    other data then.
    """
    if model.base is not None:
        source = load(model.run.base, "cpu")
        source.dataset = build_dataset_of(source, options)
        return build_dataset(model.config, None, source)
    name = model.config["dataset"]["name"]
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
