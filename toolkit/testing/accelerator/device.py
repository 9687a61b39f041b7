"""The stand-in itself: what it counts, what it refuses, and its random numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from toolkit.testing.accelerator.places import CPU

if TYPE_CHECKING:
    from toolkit.testing.accelerator.graphs import CapturedGraph


class PlacementError(RuntimeError):
    """What a device refuses: tensors of several devices in one operation, or a type that it has not."""


class CaptureError(RuntimeError):
    """What is not permitted while a graph is captured."""


class StandIn:
    """An accelerator that is not there.

    ``waits`` counts, by name, what a program waits for the device with: questions such as ``item`` and ``bool``, masks
    as indices, copies between host and device that are not from pinned memory, synchronizations. ``operations`` counts,
    by name, the operations on its tensors that do something: no views, no allocations, nothing while a graph is
    captured; the replay of a graph is one. ``graphs`` are those that were made, in their order. ``float64``: whether
    it has that type.
    """

    def __init__(self, kind: str, count: int, float64: bool) -> None:
        self.kind, self.count, self.float64 = kind, count, float64
        self.current = 0
        self.waits, self.operations = Counter[str](), Counter[str]()
        self.graphs: list[CapturedGraph] = []
        self.capturing: CapturedGraph | None = None
        self.inferred: torch.device | None = None
        """Where the torch function that runs now makes its tensors: it calls the CPU by what it does not see."""
        self.asking = False
        self._random = [torch.Generator().manual_seed(0).get_state() for _ in range(count)]

    def named(self, device: torch.device | str | int | None) -> torch.device:
        """A device as it is asked for, with the number of the current one where none is named."""
        if device is None or isinstance(device, int):
            return self._numbered(self.current if device is None else device)
        device = torch.device(device)
        if device.type != self.kind:
            return device
        return self._numbered(self.current if device.index is None else device.index)

    def index(self, device: torch.device | str | int | None = None) -> int:
        return self.named(device).index or 0

    def wait(self, what: str) -> None:
        """Counts a wait; CaptureError while a graph is captured."""
        self.waits[what] += 1
        if self.capturing is not None:
            raise CaptureError(f"{what}: not permitted while a graph is captured")

    @contextmanager
    def makes_on(self, device: torch.device | None) -> Iterator[None]:
        """Where torch's own code makes tensors while the block lasts; None: where it says."""
        before, self.inferred = self.inferred, device
        try:
            yield
        finally:
            self.inferred = before

    @contextmanager
    def asks(self, what: str) -> Iterator[None]:
        """A question is counted once, whatever operations answer it."""
        if self.asking:
            yield
            return
        self.wait(what)
        self.asking = True
        try:
            yield
        finally:
            self.asking = False

    @contextmanager
    def draws(self, device: torch.device) -> Iterator[None]:
        """Random numbers are the device's own while the block lasts."""
        if device is CPU:
            yield
            return
        host = torch.default_generator.get_state()
        torch.default_generator.set_state(self._random[self.index(device)])
        try:
            yield
        finally:
            self._random[self.index(device)] = torch.default_generator.get_state()
            torch.default_generator.set_state(host)

    def random_state(self, device: torch.device | str | int | None = None) -> Tensor:
        return self._random[self.index(device)].clone()

    def set_random_state(self, state: Tensor, device: torch.device | str | int | None = None) -> None:
        self._random[self.index(device)] = state.clone()

    def seed(self, number: int, device: torch.device | str | int | None = None) -> None:
        self._random[self.index(device)] = torch.Generator().manual_seed(number).get_state()

    def seed_all(self, number: int) -> None:
        for index in range(self.count):
            self.seed(number, index)

    def _numbered(self, index: int) -> torch.device:
        if index >= self.count:
            raise PlacementError(f"{self.kind}:{index}: invalid device ordinal, there are {self.count}")
        return torch.device(self.kind, index)
