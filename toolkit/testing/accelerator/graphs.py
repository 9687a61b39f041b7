"""Captured graphs: what runs while one is captured is only noted, and a replay runs it on the same tensors."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from toolkit.testing.accelerator.device import CaptureError, StandIn
from toolkit.testing.accelerator.places import CPU, pinned, place, storage_id, tensors_in

MODES = ("global", "thread_local", "relaxed")
UNDEFINED = 0xFF
"""Each byte of what a captured operation has not written yet: NaN as a float, -1 as an integer."""

_pools = count(1)


@dataclass(frozen=True)
class _Call:
    """An operation, and what it writes: ``fresh`` are those of its results, by number, that are no views."""

    func: Any
    args: Any
    kwargs: dict[str, Any]
    fresh: dict[int, Tensor]
    drawn: torch.device


class CapturedGraph:
    """In place of ``torch.cuda.CUDAGraph``.

    ``replays`` counts them; ``pool_id`` and ``error_mode`` are what it was captured with; ``reads`` are the storages
    from outside that it goes on reading.
    """

    device: ClassVar[StandIn]

    def __init__(self, keep_graph: bool = False) -> None:
        self.replays, self.pool_id, self.error_mode = 0, (0, 0), "global"
        self.captured = False
        self._clear()
        self.device.graphs.append(self)

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        if capture_error_mode not in MODES:
            raise ValueError(f"capture_error_mode={capture_error_mode!r}: expected one of {', '.join(MODES)}")
        if self.device.capturing is not None:
            raise CaptureError("another graph is being captured")
        if self.captured:
            raise CaptureError("this graph is captured already: reset() it, or make another")
        given = pool.pool() if isinstance(pool, CapturedGraph) else pool
        self.pool_id, self.error_mode = given or new_pool(), capture_error_mode
        self._states = [self.device.random_state(index) for index in range(self.device.count)]
        self.device.capturing = self

    def capture_end(self) -> None:
        """Puts back what was there before: nothing of what was captured has run."""
        self.device.capturing, self.captured = None, True
        for index, state in enumerate(self._states):
            self.device.set_random_state(state, index)
        for storage, before in self._before.values():
            storage.copy_(before)
        self._before.clear()
        for storage in self._fresh.values():
            storage.fill_(UNDEFINED)  # type: ignore[attr-defined]

    def record(self, func: Any, args: Any, kwargs: dict[str, Any], drawn: torch.device) -> Any:
        """Notes an operation; its result, whose numbers are not to be read before a replay."""
        args, kwargs = tree_map(_as_it_is_now, (args, kwargs)) if _reads_host(args, kwargs) else (args, kwargs)
        written = tensors_in(_written(func, args, kwargs))
        for tensor in written:
            number = storage_id(tensor)
            if number not in self._before and number not in self._fresh:
                storage = tensor.untyped_storage()
                self._before[number] = (storage, storage.clone())
        with self.device.draws(drawn):
            result = func(*args, **kwargs)
        known = {storage_id(tensor) for tensor in tensors_in((args, kwargs))}
        made = enumerate(tensors_in((result,)))
        fresh = {number: tensor for number, tensor in made if storage_id(tensor) not in known}
        self._fresh |= {storage_id(tensor): tensor.untyped_storage() for tensor in fresh.values()}
        if fresh or written:
            self._calls.append(_Call(func, args, kwargs, fresh, drawn))
        return result

    def replay(self) -> None:
        if not self.captured:
            raise CaptureError("replay of a graph that was not captured")
        self.replays += 1
        self.device.operations["replay"] += 1
        with _disable_current_modes(), torch._C._AutoDispatchBelowAutograd():
            for call in self._calls:
                with self.device.draws(call.drawn) if call.drawn is not CPU else nullcontext():
                    results = tensors_in((call.func(*call.args, **call.kwargs),))
                for number, tensor in call.fresh.items():
                    tensor.copy_(results[number])

    def reset(self) -> None:
        self.captured = False
        self._clear()

    def pool(self) -> tuple[int, int]:
        return self.pool_id

    @property
    def operations(self) -> int:
        """How many it holds."""
        return len(self._calls)

    def _clear(self) -> None:
        self._calls: list[_Call] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._fresh: dict[int, torch.UntypedStorage] = {}


class Capture:
    """In place of ``torch.cuda.graph``."""

    def __init__(
        self,
        cuda_graph: CapturedGraph,
        pool: Any = None,
        stream: Any = None,
        capture_error_mode: str = "global",
        **further: Any,
    ) -> None:
        self.graph, self.pool, self.mode = cuda_graph, pool, capture_error_mode

    def __enter__(self) -> None:
        self.graph.device.wait("capture")  # it synchronizes first
        self.graph.capture_begin(self.pool, self.mode)

    def __exit__(self, *error: object) -> None:
        self.graph.capture_end()


def new_pool() -> tuple[int, int]:
    """A handle of memory that graphs may share."""
    return 0, next(_pools)


def _reads_host(args: Any, kwargs: dict[str, Any]) -> bool:
    return any(place(tensor) is CPU for tensor in tensors_in((args, kwargs)))


def _as_it_is_now(value: Any) -> Any:
    """A number of the CPU is a constant of the graph; pinned memory is read at each replay."""
    return value.clone() if isinstance(value, Tensor) and place(value) is CPU and not pinned(value) else value


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation writes to."""
    written = [args[number] for number in _writes(func)[0] if number < len(args)]
    return written + [kwargs[name] for name in _writes(func)[1] if name in kwargs]


@cache
def _writes(func: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Numbers and names of the arguments that an operation's schema marks as written to."""
    arguments = enumerate(func._schema.arguments)
    marked = [(number, a.name) for number, a in arguments if a.alias_info is not None and a.alias_info.is_write]
    return tuple(number for number, _ in marked), tuple(name for _, name in marked)
