"""Published networks as TorchScript files: from a path, frozen, and no part of a run."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor

from toolkit.errors import ToolkitError


@final
class Scripted:
    """A network in eval mode that a file of ``torch.jit.save`` holds, whose weights never change and lie in no
    checkpoint: it is no submodule of whatever uses it.

    ``digest`` is the SHA-256 of the file. Such a file is a program: open those alone that you trust.
    """

    def __init__(self, network: Any, path: Path, digest: str) -> None:
        self.network, self.path, self.digest = network, path, digest
        self._device = torch.device("cpu")

    @classmethod
    def load(cls, path: str, what: str) -> Self:
        """ToolkitError where there is no such file, or it is none; ``what`` says what it should hold."""
        file = Path(path).expanduser()
        if not file.is_file():
            raise ToolkitError(f"weights={path}: there is no such file; give a TorchScript file of {what}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that TorchScript is of the past: published files are in it
                network = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as e:  # whatever a file makes of its reader
            reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
            raise ToolkitError(f"weights={path}: no TorchScript file of {what}: {reason}") from e
        network.eval()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        return cls(network, file, hashlib.sha256(file.read_bytes()).hexdigest())

    def __call__(self, x: Tensor, **options: Any) -> Any:
        """What the network gives of a batch, where that lies; without gradients."""
        if x.device != self._device:
            self.network, self._device = self.network.to(x.device), x.device
        # as it is written: to optimize it for its inputs would take longer than most runs do
        with torch.no_grad(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.network(x, **options)
