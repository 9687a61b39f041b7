"""Files that the commands read and write, through the dataset's own class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from toolkit.codes import write_codes
from toolkit.errors import ToolkitError
from toolkit.model import Model


def read_examples(model: Model, paths: list[Path]) -> Tensor:
    """One example per file, as a batch ``(files, channels, *axes)``; ToolkitError naming a file that cannot be read."""
    rows = []
    for path in paths:
        if not path.is_file():
            raise ToolkitError(f"{path}: there is no such file")
        try:
            rows.append(model.files.read(path, model.spec))
        except ValueError as e:
            raise ToolkitError(f"{path}: {e}") from e
    return torch.stack(rows)


def write_examples(model: Model, x: Tensor, out: Path, stem: str) -> list[Path]:
    """A file per example, numbered."""
    paths = [out / f"{stem}-{i:04d}{model.files.suffix}" for i in range(len(x))]
    for path, example in zip(paths, x, strict=True):
        model.files.write(example, model.spec, path)
    return paths


def write_codes_of(model: Model, codes: Tensor, path: Path) -> None:
    """Codes ``(n, depth, *grid)`` with the hash of the weights that they belong to."""
    metadata = {"weights": model.checkpoint.weights_hash}
    write_codes(path, model.latent, iter([{"codes": codes}]), len(codes), metadata)


def plain(options: dict[str, str]) -> dict[str, Any]:
    """Options written as text, as the numbers, lists or text that they spell."""
    return {name: yaml.safe_load(text) if text else text for name, text in options.items()}
