"""A published model as it lies on disk: one file of weights, or a folder with its settings and license beside them.

All of it is a stranger's. Weights are safetensors, or files that ``torch.save`` wrote, of which nothing but tensors and
plain values is read; nothing in them is run, and no more memory is taken than the files have bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from toolkit.adopting.saved import SavedFile
from toolkit.errors import ToolkitError
from toolkit.runs.plain import read_json, read_yaml
from toolkit.runs.tensors import DamagedFileError, Shape, check_safetensors, read_shapes, read_tensors, sha256

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".th")
"""Of files of weights, safetensors first."""
WHOLE = ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin")
"""What the one file of a folder is called where there are several."""
INDEX = ".index.json"
"""The end of the name of a file that says which of several files has which tensor."""
SETTINGS = ("config.json", "config.yaml", "config.yml")
LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "LICENCE.md", "COPYING")
LONGEST_LICENSE = 1 << 20
"""Bytes."""


@dataclass(frozen=True)
class Published:
    """The files of a published model, and what they hold."""

    path: Path
    """The file or folder that they lie in."""
    source: str
    """What they are called: its name, or a reference by which anybody finds them."""
    files: tuple[Path, ...]
    """Its weights."""
    shapes: Mapping[str, Shape]
    """Of all tensors, by their names there."""
    written: Mapping[str, Any]
    """Its settings: those of its own file, else what plain values lie beside the weights."""
    license_text: Path | None
    _saved: Mapping[Path, SavedFile]

    def tensors(self, names: Collection[str]) -> dict[str, Tensor]:
        """Those of these names."""
        wanted, found = set(names), dict[str, Tensor]()
        for file in self.files:
            saved = self._saved.get(file)
            own = wanted & {*(saved.shapes if saved else read_shapes(file))}
            found |= saved.tensors(own) if saved else read_tensors(file, own)
        return found

    def hashes(self) -> dict[str, str]:
        """Of the weights' files, by name."""
        return {file.name: sha256(file) for file in self.files}


def open_published(path: Path, settings: Path | None = None, source: str | None = None) -> Published:
    """A file of weights, or a folder with some. ``settings``: where they are in neither, the file that has them;
    ``source``: where the weights are from, if that says more than their name.

    ToolkitError naming a file that is missing, damaged, or holds more than tensors and plain values.
    """
    if not path.exists():
        raise ToolkitError(f"{path}: no such file or folder")
    files = _in_folder(path) if path.is_dir() else (path,)
    saved: dict[Path, SavedFile] = {}
    shapes: dict[str, Shape] = {}
    for file in files:
        if not _is_safetensors(file):
            saved[file] = SavedFile.open(file)
        own = saved[file].shapes if file in saved else read_shapes(file)
        both = sorted({*own} & {*shapes})
        if both:
            raise ToolkitError(f"{file}: another file beside it has {both[0]}, too")
        shapes |= own
    if not shapes:
        raise ToolkitError(f"{path} holds no tensors")
    home = path if path.is_dir() else None
    beside: dict[str, Any] = {}
    for one in saved.values():
        beside |= one.plain
    written = _settings(settings) if settings else _settings_in(home, beside)
    return Published(path, source or path.name, files, shapes, written, _license_in(home), saved)


def _is_safetensors(file: Path) -> bool:
    """Whether it is one, whole; else it was written by ``torch.save``, or is nothing that is read."""
    try:
        with file.open("rb") as opened:
            start = opened.read(9)
    except OSError as e:
        raise ToolkitError(f"{file} cannot be read: {e.strerror or e}") from e
    if file.suffix != ".safetensors" and start[8:] != b"{":
        return False
    try:
        check_safetensors(file)
    except DamagedFileError as e:
        raise ToolkitError(f"{file} is damaged: {e}") from e
    return True


def _in_folder(folder: Path) -> tuple[Path, ...]:
    """The weights' files of a folder: those of its index, the one of a known name, or the only one."""
    indices = sorted(folder.glob(f"*{INDEX}"), key=lambda index: (".safetensors" not in index.name, index))
    whole = [folder / name for name in WHOLE if (folder / name).is_file()]
    if whole:
        return (whole[0],)
    if indices:
        return _sharded(indices[0])
    for suffix in SUFFIXES:
        files = sorted(file for file in folder.iterdir() if file.suffix == suffix and file.is_file())
        if len(files) > 1:
            names = ", ".join(file.name for file in files[:4])
            raise ToolkitError(f"{folder} holds {len(files)} files of weights ({names}): name the one to adopt")
        if files:
            return (files[0],)
    raise ToolkitError(f"{folder} holds no file of weights ({', '.join(SUFFIXES)})")


def _sharded(index: Path) -> tuple[Path, ...]:
    """The files that an index names, all of them beside it."""
    try:
        names = sorted({str(name) for name in dict(read_json(index)["weight_map"]).values()})
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ToolkitError(f"{index} cannot be read: {e}") from e
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ToolkitError(f"{index} names {name}, which is no file beside it")
    return tuple(index.parent / name for name in names)


def _settings_in(folder: Path | None, beside: Mapping[str, Any]) -> Mapping[str, Any]:
    files = [folder / name for name in SETTINGS if (folder / name).is_file()] if folder else []
    return _settings(files[0]) if files else beside


def _settings(file: Path) -> Mapping[str, Any]:
    """A published file of settings, JSON or YAML."""
    try:
        values = read_json(file) if file.suffix == ".json" else read_yaml(file)
    except (OSError, ValueError) as e:
        raise ToolkitError(f"{file} cannot be read: {e}") from e
    if not isinstance(values, Mapping):
        raise ToolkitError(f"{file} holds no settings by name")
    return values


def _license_in(folder: Path | None) -> Path | None:
    """The license's text. A link that leads elsewhere is none: it would be copied, and perhaps passed on."""
    if folder is None:
        return None
    for file in (folder / name for name in LICENSES):
        if (
            file.is_file()
            and file.resolve().is_relative_to(folder.resolve())
            and file.stat().st_size <= LONGEST_LICENSE
        ):
            return file
    return None
