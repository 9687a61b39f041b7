"""What torch says of the stand-in while it is there: its module's functions answer, and so do torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils import checkpoint
from torch.utils.data import DataLoader

from toolkit.testing.accelerator.device import StandIn
from toolkit.testing.accelerator.functions import Functions
from toolkit.testing.accelerator.graphs import Capture, CapturedGraph, new_pool
from toolkit.testing.accelerator.operations import Operations
from toolkit.testing.accelerator.places import place, place_of_first
from toolkit.testing.accelerator.streams import event_class, stream_class

FREE, TOTAL = 1 << 30, 1 << 31
"""Bytes of its memory."""


@contextmanager
def stand_in(kind: str = "cuda", *, count: int = 1, float64: bool | None = None) -> Iterator[StandIn]:
    """An accelerator while the block lasts, in this thread.

    ``kind``: cuda, xpu or mps. ``count``: of its devices. ``float64``: whether it has that type; by default all but
    mps do.
    """
    device = StandIn(kind, count, kind != "mps" if float64 is None else float64)
    functions = Functions(device)
    with ExitStack() as stack:
        for module, names in _answers(device, functions):
            for name, answer in names.items():
                if hasattr(module, name):  # of another version of torch it may be missing
                    stack.enter_context(patch.object(module, name, answer))
        stack.enter_context(patch.dict(checkpoint._allowed_determinism_checks_to_fns, default=_described))
        stack.enter_context(Operations(device))
        stack.enter_context(functions)
        yield device


def _answers(device: StandIn, functions: Functions) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What stands in for what, by module."""
    stream, event = stream_class(device), event_class(device)
    streams = {
        "Stream": stream,
        "Event": event,
        "stream": nullcontext,
        "current_stream": lambda *_: stream(),
        "default_stream": lambda *_: stream(),
        "synchronize": lambda *_: device.wait("synchronize"),
    }
    if device.kind == "mps":
        yield torch.backends.mps, {"is_available": lambda: True, "is_built": lambda: True}
        yield torch.mps, {**_random(device), **_mps_memory(), "Event": event, "synchronize": streams["synchronize"]}
    else:
        yield getattr(torch, device.kind), {**_facts(device), **_random(device), **_memory(), **streams}
    if device.kind == "cuda":
        yield torch.backends.cuda, {"is_built": lambda: True}
        yield torch.backends.cudnn, {"is_acceptable": lambda tensor: False}  # an nn.LSTM would lay weights out for it
        yield torch.cuda, _graphs(device)
    yield torch.accelerator, _accelerator(device, streams)
    yield torch.autocast, {"__init__": _on_cpu(torch.autocast.__init__, device, 1)}
    for name in ("is_autocast_enabled", "get_autocast_dtype", "set_autocast_enabled", "set_autocast_dtype"):
        yield torch, {name: _on_cpu(getattr(torch, name), device, 0)}
    yield torch._C, {"_group_tensors_by_device_and_dtype": _grouped(torch._C._group_tensors_by_device_and_dtype)}
    engine = getattr(torch.autograd, "_engine_run_backward")  # noqa: B009, no name that torch exports
    yield torch.autograd, {"_engine_run_backward": _backward(engine, device, functions)}
    yield DataLoader, {"__init__": _in_this_process(DataLoader.__init__)}


def _facts(device: StandIn) -> dict[str, Any]:
    properties = SimpleNamespace(
        name="stand-in", major=9, minor=0, total_memory=TOTAL, multi_processor_count=1, has_fp64=device.float64
    )

    def set_device(to: Any) -> None:
        device.current = device.index(to)

    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "device_count": lambda: device.count,
        "current_device": lambda: device.current,
        "set_device": set_device,
        "device": lambda to: _current(device, to),
        "get_device_name": lambda *_: properties.name,
        "get_device_properties": lambda *_: properties,
        "get_device_capability": lambda *_: (properties.major, properties.minor),
        "is_bf16_supported": lambda *_, **__: True,
        "is_tf32_supported": lambda: True,
    }


@contextmanager
def _current(device: StandIn, to: Any) -> Iterator[None]:
    before, device.current = device.current, device.current if to is None else device.index(to)
    try:
        yield
    finally:
        device.current = before


def _random(device: StandIn) -> dict[str, Any]:
    def set_all(states: list[torch.Tensor]) -> None:
        for index, state in enumerate(states):
            device.set_random_state(state, index)

    return {
        "get_rng_state": device.random_state,
        "set_rng_state": device.set_random_state,
        "get_rng_state_all": lambda: [device.random_state(index) for index in range(device.count)],
        "set_rng_state_all": set_all,
        "manual_seed": device.seed,
        "manual_seed_all": device.seed_all,
    }


def _memory() -> dict[str, Any]:
    taken = ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved")
    done = ("empty_cache", "reset_peak_memory_stats", "ipc_collect")
    return {
        **dict.fromkeys(taken, lambda *_: 0),
        **dict.fromkeys(done, lambda *_: None),
        "mem_get_info": lambda *_: (FREE, TOTAL),
    }


def _mps_memory() -> dict[str, Any]:
    return {
        **dict.fromkeys(("current_allocated_memory", "driver_allocated_memory"), lambda: 0),
        "recommended_max_memory": lambda: TOTAL,
        "empty_cache": lambda: None,
        "device_count": lambda: 1,
    }


def _graphs(device: StandIn) -> dict[str, Any]:
    return {
        "CUDAGraph": type("CUDAGraph", (CapturedGraph,), {"device": device}),
        "graph": Capture,
        "graph_pool_handle": new_pool,
        "is_current_stream_capturing": lambda: device.capturing is not None,
    }


def _accelerator(device: StandIn, streams: dict[str, Any]) -> dict[str, Any]:
    memory = _memory()
    return {
        "is_available": lambda: True,
        "current_accelerator": lambda *_, **__: torch.device(device.kind),
        "current_device_index": lambda: device.current,
        "device_count": lambda: device.count,
        "set_device_index": lambda to: setattr(device, "current", device.index(to)),
        "get_memory_info": memory["mem_get_info"],
        **{name: memory[name] for name in ("memory_allocated", "memory_reserved", "max_memory_allocated")},
        **{name: memory[name] for name in ("empty_cache", "reset_peak_memory_stats", "max_memory_reserved")},
        **{name: streams[name] for name in ("current_stream", "synchronize")},
    }


def _on_cpu(function: Callable[..., Any], device: StandIn, number: int) -> Callable[..., Any]:
    """The function, with the CPU's name as argument ``number`` where the device's is given: autocast is the CPU's."""

    def called(*args: Any, **kwargs: Any) -> Any:
        args = tuple("cpu" if i == number and a == device.kind else a for i, a in enumerate(args))
        if kwargs.get("device_type") == device.kind:
            kwargs["device_type"] = "cpu"
        return function(*args, **kwargs)

    return called


def _grouped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Optimizers' tensors by device: torch asks for it where no mode hears of it."""

    def grouped(lists: Any, with_indices: bool = False) -> dict[Any, Any]:
        groups = function(lists, with_indices)
        return {
            (place_of_first(group) or key_device, dtype): (group, indices)
            for (key_device, dtype), (group, indices) in groups.items()
        }

    return grouped


def _backward(function: Callable[..., Any], device: StandIn, functions: Functions) -> Callable[..., Any]:
    """The engine makes gradients where its roots lie; what is called in between, such as a Function's backward, is
    looked at as any other."""

    def backward(roots: Any, *args: Any, **kwargs: Any) -> Any:
        looked_at = functions in _get_current_function_mode_stack()
        with nullcontext() if looked_at else functions, device.makes_on(place_of_first(roots)):
            return function(roots, *args, **kwargs)

    return backward


def _described(tensor: torch.Tensor) -> dict[str, Any]:
    """What torch's checkpoints compare of a tensor that is computed again, also where no function mode is."""
    return {"shape": tensor.shape, "dtype": tensor.dtype, "device": place(tensor)}


def _in_this_process(init: Callable[..., None]) -> Callable[..., None]:
    """A DataLoader without processes: the stand-in is in this thread alone."""

    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"num_workers": 0, "prefetch_factor": None, "persistent_workers": False, "timeout": 0}
        init(self, *args, **kwargs)

    return begin
