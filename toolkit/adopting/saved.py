"""Files that ``torch.save`` wrote: their tensors and plain values, and nothing else."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.runs.tensors import Shape

NESTED = ("ema", "state_dict", "model")
"""Under which names a file may hold its weights, the first that is there: averages before what they are of."""
LARGEST_PICKLE = 1 << 26
"""Bytes of what says which tensors there are."""


@dataclass(frozen=True)
class SavedFile:
    """A file, and what is known of its tensors before their values are read."""

    path: Path
    nested: str | None
    """The name that the weights are under."""
    shapes: Mapping[str, Shape]
    plain: Mapping[str, Any]
    """What else it holds: numbers, text, and lists and dicts of these."""

    @classmethod
    def open(cls, path: Path) -> SavedFile:
        """ToolkitError for a file that is not of ``torch.save``, holds objects, or asks for more memory than it has
        bytes."""
        _check_zip(path)
        values = _load(path, "meta")
        nested = next((name for name in NESTED if _tensors_of(values.get(name))), None)
        tensors = _tensors_of(values if nested is None else values[nested])
        size = path.stat().st_size
        for name, tensor in tensors.items():
            if _extent(tensor) > size:
                raise ToolkitError(f"{path}: {name} of shape {tuple(tensor.shape)} is larger than the file")
        if sum(tensor.nbytes for tensor in tensors.values()) > 2 * size:  # tied ones are there once
            raise ToolkitError(f"{path}: its tensors are larger than the file")
        plain = {str(key): value for key, value in values.items() if key != nested and _is_plain(value)}
        return cls(path, nested, {name: Shape.of(tensor) for name, tensor in tensors.items()}, plain)

    def tensors(self, names: Collection[str]) -> dict[str, Tensor]:
        """Those of these names."""
        values = _load(self.path, "cpu")
        found = _tensors_of(values if self.nested is None else values[self.nested])
        return {name: found[name].detach() for name in names}


def _check_zip(path: Path) -> None:
    """ToolkitError where it is no archive of ``torch.save``'s, in which all lies as it is, uncompressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as e:
        raise ToolkitError(
            f"{path} is neither safetensors nor what torch.save writes since PyTorch 1.6: nothing else is read ({e})"
        ) from e
    packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ToolkitError(f"{path} is no file of torch.save's: its entries are compressed, or lie over one another")
    if any(entry.file_size > LARGEST_PICKLE for entry in entries if entry.filename.endswith(".pkl")):
        raise ToolkitError(f"{path} describes its tensors in more than {LARGEST_PICKLE} bytes")


def _load(path: Path, device: str) -> Mapping[Any, Any]:
    try:
        values = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as e:
        reason = str(e).partition("GLOBAL ")[2].split(" ")[0] or "an object"
        raise ToolkitError(
            f"{path} holds more than tensors and plain values ({reason}), which would run code of its author's:"
            " nothing of it is read; ask for safetensors, or where you trust it save its state dict alone"
        ) from e
    except Exception as e:  # what a damaged file makes of the reader
        raise ToolkitError(f"{path} cannot be read: {str(e).splitlines()[0] if str(e) else type(e).__name__}") from e
    if not isinstance(values, Mapping):
        raise ToolkitError(f"{path} holds a {type(values).__name__}, not tensors by name")
    return values


def _tensors_of(values: Any) -> dict[str, Tensor]:
    """The tensors of a state dict by name; what else is in it is left out."""
    if not isinstance(values, Mapping):
        return {}
    return {name: value for name, value in values.items() if isinstance(name, str) and _is_dense(value)}


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def _extent(tensor: Tensor) -> int:
    """Bytes of the storage that a tensor needs, from its beginning to its own last number."""
    if not tensor.numel():
        return 0
    last = int(tensor.storage_offset()) + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return max(last + 1, tensor.numel()) * tensor.element_size()


def _is_plain(value: Any, left: int = 8) -> bool:
    if isinstance(value, Mapping):
        return left > 0 and all(isinstance(key, str) and _is_plain(item, left - 1) for key, item in value.items())
    if isinstance(value, list | tuple):
        return left > 0 and all(_is_plain(item, left - 1) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
