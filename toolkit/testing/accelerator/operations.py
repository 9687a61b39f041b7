"""Every operation of torch, looked at before it runs: where its tensors lie, and what a device would say to it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from toolkit.testing.accelerator.device import PlacementError, StandIn
from toolkit.testing.accelerator.places import CPU, pin, pinned, place, put, storage_id, tensors_in

QUESTIONS = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "argwhere", "masked_select",
    "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "_linalg_check_errors",
}  # fmt: skip
"""Operations whose result, or its size, the host needs."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Operations that take indices: from the CPU they are copied, and masks are counted."""
COPIES = {"copy_", "_to_copy", "copy", "_foreach_copy_"}
STRICT = {
    "cat", "stack", "mm", "bmm", "addmm", "addmv", "mv", "dot", "baddbmm", "gather", "scatter", "scatter_",
    "scatter_add", "scatter_add_", "scatter_reduce", "index_select", "index_add", "index_add_", "index_copy",
    "index_copy_", "index_fill_", "embedding", "embedding_dense_backward", "searchsorted", "bucketize",
    "convolution", "native_layer_norm", "native_group_norm", "native_batch_norm", "topk", "sort",
}  # fmt: skip
"""Operations that take not even a single number from the CPU."""
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_"}
"""What runs nothing on a device."""


class Operations(TorchDispatchMode):
    """The device's side of every operation: refuses, counts, records, and marks what comes out."""

    def __init__(self, device: StandIn) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        given = tensors_in((args, kwargs))
        places = [place(tensor) for tensor in given]
        where = self._where(name, kwargs, places)
        self._check(name, args, kwargs, given, places, where)
        pinning = kwargs.pop("pin_memory", None) if "device" in kwargs or kwargs.get("pin_memory") else None
        if kwargs.get("device") is not None and self._asks_for_device(kwargs["device"]):
            kwargs["device"] = CPU
        random = torch.Tag.nondeterministic_seeded in func.tags
        drawn = where if random and kwargs.get("generator") is None else CPU
        graph = self.device.capturing
        if graph is not None and where is not CPU:
            result = graph.record(func, args, kwargs, drawn)
        else:
            with self.device.draws(drawn) if drawn is not CPU else nullcontext():
                result = func(*args, **kwargs)
            if where is not CPU:
                self._count(name, func, given, result)
        if where is not CPU:
            self._mark(name, result, where)
        if pinning:
            for tensor in tensors_in((result,)):
                pin(tensor)
        return result

    def _where(self, name: str, kwargs: dict[str, Any], places: list[torch.device]) -> torch.device:
        """Where the result lies."""
        asked, device = kwargs.get("device"), self.device
        if name == "copy_":
            return places[0]
        if asked is not None:
            if self._asks_for_device(asked):
                return device.named(asked)
            if torch.device(asked).type != "cpu" or device.inferred is None:
                return CPU
            return device.inferred
        return next((at for at in places if at is not CPU), CPU)

    def _asks_for_device(self, asked: Any) -> bool:
        return isinstance(asked, int) or torch.device(asked).type == self.device.kind

    def _check(
        self,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        given: list[Tensor],
        places: list[torch.device],
        where: torch.device,
    ) -> None:
        """Refuses what the device would, and counts what it would be waited for with."""
        device = self.device
        if where is not CPU and kwargs.get("generator") is not None:
            raise PlacementError(f"{name}: expected a generator of {where}, but it is one of the cpu")
        if name in COPIES:
            self._check_copy(name, args, kwargs, places, where)
            return
        if all(at is CPU for at in places):
            return
        if name in QUESTIONS and not device.asking:
            device.wait(name)
        if name in INDEXING:
            self._check_indices(name, args)
            given = [tensor for tensor in (args[0], *args[2:]) if isinstance(tensor, Tensor)]
            places = [place(tensor) for tensor in given]
        single = name not in STRICT
        there = {at for at in places if at is not CPU}
        apart = [tensor for tensor, at in zip(given, places, strict=True) if at is CPU and (tensor.dim() or not single)]
        if len(there) > 1 or (there and apart):
            names = " and ".join(sorted({str(at) for at in there} | ({"cpu"} if apart else set())))
            raise PlacementError(f"{name}: expected all tensors to be on the same device, but they are on {names}")

    def _check_copy(
        self, name: str, args: Any, kwargs: dict[str, Any], places: list[torch.device], where: torch.device
    ) -> None:
        if name == "_to_copy":
            pairs, source = [(places[0], where)], args[0]
        elif name == "_foreach_copy_":
            half = len(args[0])
            pairs, source = list(zip(places[half:], places[:half], strict=True)), args[1][0]
        else:
            pairs, source = [(places[1], places[0])], args[1]
        if not source.numel():
            return
        free = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        for here, there in pairs:
            if here is CPU and there is not CPU and not (free and pinned(source)):
                self.device.wait("host to device")
            if here is not CPU and there is CPU and not free and not self.device.asking:
                self.device.wait("device to host")

    def _check_indices(self, name: str, args: Any) -> None:
        indices = tensors_in((args[1],))
        value = args[2] if len(args) > 2 else None
        number = value is not None and value.numel() == 1 and place(value) is CPU
        for index in indices:
            if index.dtype in (torch.bool, torch.uint8) and not number:
                self.device.wait(f"{name} by a mask")
            elif place(index) is CPU and place(args[0]) is not CPU:
                self.device.wait(f"{name} by indices of the cpu")

    def _count(self, name: str, func: Any, given: list[Tensor], result: Any) -> None:
        if name not in ALLOCATIONS and (func._schema.is_mutable or _is_new(result, given)):
            self.device.operations[name] += 1

    def _mark(self, name: str, result: Any, where: torch.device) -> None:
        for tensor in tensors_in((result,)):
            if not self.device.float64 and tensor.dtype in (torch.float64, torch.complex128):
                raise PlacementError(f"{name}: cannot make {tensor.dtype} on {where}, which has no float64")
            put(tensor, where)


def _is_new(result: Any, given: list[Tensor]) -> bool:
    """Whether the result is no view of what was given."""
    known = {storage_id(tensor) for tensor in given}
    return any(storage_id(tensor) not in known for tensor in tensors_in((result,)))
