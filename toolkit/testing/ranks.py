"""Several ranks in one process, for laws about state that ranks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Thread, local
from typing import Any, TypeVar, cast
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

_REDUCTIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    dist.ReduceOp.SUM: lambda tensors: tensors.sum(0),
    dist.ReduceOp.AVG: lambda tensors: tensors.mean(0),
    dist.ReduceOp.MIN: lambda tensors: tensors.amin(0),
    dist.ReduceOp.MAX: lambda tensors: tensors.amax(0),
    dist.ReduceOp.PRODUCT: lambda tensors: tensors.prod(0),
}


def as_ranks(functions: Sequence[Callable[[], T]]) -> list[T]:
    """Runs each function as one rank of a group; their results.

    Ranks are threads of which one runs at a time, each with its own random state, which starts as the caller's; they
    take turns at every collective of torch.distributed. AssertionError where ranks call different ones.
    """
    group, results = _Group(len(functions)), list[Any]([None] * len(functions))

    def run(rank: int) -> None:
        with group.member(rank):
            results[rank] = functions[rank]()

    threads = [Thread(target=run, args=(rank,), daemon=True) for rank in range(len(functions))]
    with patch.multiple(dist, **cast(Any, group.collectives())), torch.random.fork_rng(devices=[]):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if group.errors:
        raise group.errors[0]
    return results


class _PeerFailedError(Exception):
    """Another rank failed first."""


class _Group:
    """The collectives of the ranks, and whose turn it is."""

    def __init__(self, size: int) -> None:
        self.size, self.turn, self.changed = size, 0, Condition()
        self.rounds: list[dict[int, Any]] = []
        self.taken = [0] * size
        self.done: set[int] = set()
        self.errors: list[BaseException] = []
        self.rng_states = [torch.get_rng_state()] * size
        self.current = local()

    @contextmanager
    def member(self, rank: int) -> Iterator[None]:
        """Runs as one rank."""
        self.current.rank = rank
        try:
            self.enter(rank)
            yield
        except _PeerFailedError:
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.done.add(rank)
            self.leave(rank)

    def collectives(self) -> dict[str, Callable[..., Any]]:
        """Replacements of torch.distributed's functions."""
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "get_world_size": lambda group=None: self.size,
            "get_rank": lambda group=None: self.current.rank,
            "all_reduce": self.all_reduce,
            "all_gather": self.all_gather,
            "broadcast": self.broadcast,
            "broadcast_object_list": self.broadcast_object_list,
            "barrier": lambda *_, **__: self.exchange("barrier", None) and None,
        }

    def all_reduce(self, tensor: Tensor, op: Any = dist.ReduceOp.SUM, group: Any = None) -> None:
        tensors = self.exchange("all_reduce", tensor.clone())
        shapes = [tuple(part.shape) for part in tensors]
        assert len(set(shapes)) == 1, f"ranks call all_reduce with shapes {shapes}: every rank must make the same calls"
        tensor.copy_(_REDUCTIONS[op](torch.stack(tensors)))

    def all_gather(self, tensors: list[Tensor], tensor: Tensor, group: Any = None) -> None:
        for target, gathered in zip(tensors, self.exchange("all_gather", tensor.clone()), strict=True):
            target.copy_(gathered)

    def broadcast(self, tensor: Tensor, src: int = 0, group: Any = None) -> None:
        tensor.copy_(self.exchange("broadcast", tensor.clone())[src])

    def broadcast_object_list(self, objects: list[Any], src: int = 0, group: Any = None, device: Any = None) -> None:
        objects[:] = self.exchange("broadcast_object_list", list(objects))[src]

    def exchange(self, name: str, value: Any) -> list[Any]:
        """Every rank's value, in rank order; waits for all of them."""
        rank, number = self.current.rank, self.taken[self.current.rank]
        self.taken[rank] += 1
        if number == len(self.rounds):
            self.rounds.append({})
        self.rounds[number][rank] = (name, value)
        self.leave(rank)
        self.enter(rank)
        calls = self.rounds[number]
        assert len(calls) == self.size, f"only rank {rank} calls {name}: every rank must, whatever its data"
        assert len({call for call, _ in calls.values()}) == 1, f"ranks call {[calls[r][0] for r in range(self.size)]}"
        return [calls[r][1] for r in range(self.size)]

    def enter(self, rank: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.turn == rank or self.errors)
            if self.errors:
                raise _PeerFailedError
            torch.set_rng_state(self.rng_states[rank])

    def leave(self, rank: int) -> None:
        with self.changed:
            self.rng_states[rank] = torch.get_rng_state()
            waiting = [(rank + i) % self.size for i in range(1, self.size + 1)]
            self.turn = next((other for other in waiting if other not in self.done), rank)
            self.changed.notify_all()
