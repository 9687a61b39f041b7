"""TorchScript files, of which PyTorch says that they are of the past; published networks are in them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn


def write(network: nn.Module, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(path))  # type: ignore[no-untyped-call]
    return str(path)


def read(path: str | Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path))  # type: ignore[no-untyped-call]
