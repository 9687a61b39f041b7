"""Where tensors lie: a mark on a storage, which all its views share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

CPU = torch.device("cpu")


class Marks:
    """What is noted of storages; it does not keep them, and forgets those that are gone."""

    def __init__(self) -> None:
        self._noted: dict[int, tuple[StorageWeakRef, Any]] = {}
        self._limit = 1 << 14

    def get(self, tensor: Tensor, default: Any = None) -> Any:
        noted = self._noted.get(storage_id(tensor))  # not another's: an address is not used again while it is noted
        return default if noted is None else noted[1]

    def set(self, tensor: Tensor, what: Any) -> None:
        self._noted[storage_id(tensor)] = StorageWeakRef(tensor.untyped_storage()), what
        if len(self._noted) > self._limit:
            self._noted = {number: noted for number, noted in self._noted.items() if not noted[0].expired()}
            self._limit = max(1 << 14, 2 * len(self._noted))


_devices = Marks()  # of the whole process: a cached tensor lies on the device for the next stand-in, too
_pinned = Marks()
_PLAIN = {type(None), bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format}


def place(tensor: Tensor) -> torch.device:
    """The stand-in's device that the tensor lies on, or ``CPU`` itself."""
    device: torch.device = _devices.get(tensor, CPU)
    return device


def put(tensor: Tensor, device: torch.device) -> None:
    """The tensor, and whatever shares its storage, lies there from now on; a storage never moves to the CPU."""
    if device is not CPU and device != place(tensor):
        _devices.set(tensor, device)


def pinned(tensor: Tensor) -> bool:
    """Whether it lies in page-locked memory of the CPU, from which a device copies by itself."""
    return bool(_pinned.get(tensor, False))


def pin(tensor: Tensor) -> None:
    _pinned.set(tensor, True)


def storage_id(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def tensors_in(things: Iterable[Any]) -> list[Tensor]:
    """The tensors among arguments, and in their lists, tuples and dicts."""
    tensors: list[Tensor] = []
    for thing in things:
        if type(thing) in _PLAIN:
            continue
        if isinstance(thing, Tensor):
            tensors.append(thing)
        elif isinstance(thing, list | tuple):
            tensors += tensors_in(thing)
        elif isinstance(thing, dict) and thing:
            tensors += tensors_in(thing.values())
    return tensors


def place_of_first(things: Iterable[Any]) -> torch.device | None:
    """The place of the first tensor that lies on the device; None where all lie on the CPU."""
    return next((at for tensor in tensors_in(things) if (at := place(tensor)) is not CPU), None)
