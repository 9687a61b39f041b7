"""Many ranks in one process, for laws about what a part keeps in common on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Thread, local
from typing import Any, TypeVar, cast
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

Made = TypeVar("Made")

_REDUCTIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    dist.ReduceOp.SUM: lambda each: each.sum(0),
    dist.ReduceOp.AVG: lambda each: each.mean(0),
    dist.ReduceOp.MIN: lambda each: each.amin(0),
    dist.ReduceOp.MAX: lambda each: each.amax(0),
    dist.ReduceOp.PRODUCT: lambda each: each.prod(0),
}


def as_ranks(acts: Sequence[Callable[[], Made]]) -> list[Made]:
    """What each act makes as one rank of a group of them.

    They are threads of which one runs at a time, each with random numbers of its own, from the same state on; the turn
    goes round at every collective of torch.distributed. AssertionError where they take part in different ones.
    """
    meeting, made = _Meeting(len(acts)), list[Any]([None] * len(acts))

    def run(rank: int) -> None:
        with meeting.member(rank):
            made[rank] = acts[rank]()

    threads = [Thread(target=run, args=(rank,), daemon=True) for rank in range(len(acts))]
    with patch.multiple(dist, **cast(Any, meeting.collectives())), torch.random.fork_rng(devices=[]):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if meeting.errors:
        raise meeting.errors[0]
    return made


class _Left(Exception):
    """Another rank failed first."""


class _Meeting:
    """Where the ranks wait for one another."""

    def __init__(self, size: int) -> None:
        self.size, self.turn, self.changed = size, 0, Condition()
        self.rounds: list[dict[int, Any]] = []
        self.taken = [0] * size
        self.done: set[int] = set()
        self.errors: list[BaseException] = []
        self.noise = [torch.get_rng_state()] * size
        self.here = local()

    @contextmanager
    def member(self, rank: int) -> Iterator[None]:
        """One rank's stay."""
        self.here.rank = rank
        try:
            self.enter(rank)
            yield
        except _Left:
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.done.add(rank)
            self.leave(rank)

    def collectives(self) -> dict[str, Callable[..., Any]]:
        """What stands in for torch.distributed's functions meanwhile."""
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "get_world_size": lambda group=None: self.size,
            "get_rank": lambda group=None: self.here.rank,
            "all_reduce": self.all_reduce,
            "all_gather": self.all_gather,
            "broadcast": self.broadcast,
            "broadcast_object_list": self.broadcast_object_list,
            "barrier": lambda *_, **__: self.exchange("barrier", None) and None,
        }

    def all_reduce(self, tensor: Tensor, op: Any = dist.ReduceOp.SUM, group: Any = None) -> None:
        tensor.copy_(_REDUCTIONS[op](torch.stack(self.exchange("all_reduce", tensor.clone()))))

    def all_gather(self, tensors: list[Tensor], tensor: Tensor, group: Any = None) -> None:
        for into, each in zip(tensors, self.exchange("all_gather", tensor.clone()), strict=True):
            into.copy_(each)

    def broadcast(self, tensor: Tensor, src: int = 0, group: Any = None) -> None:
        tensor.copy_(self.exchange("broadcast", tensor.clone())[src])

    def broadcast_object_list(self, things: list[Any], src: int = 0, group: Any = None, device: Any = None) -> None:
        things[:] = self.exchange("broadcast_object_list", list(things))[src]

    def exchange(self, name: str, thing: Any) -> list[Any]:
        """Every rank's thing, in order; waits for all of them."""
        rank, now = self.here.rank, self.taken[self.here.rank]
        self.taken[rank] += 1
        if now == len(self.rounds):
            self.rounds.append({})
        self.rounds[now][rank] = (name, thing)
        self.leave(rank)
        self.enter(rank)
        met = self.rounds[now]
        assert len(met) == self.size, f"only rank {rank} calls {name}: every rank must, whatever its data"
        assert len({each for each, _ in met.values()}) == 1, f"ranks meet in {[met[r][0] for r in range(self.size)]}"
        return [met[each][1] for each in range(self.size)]

    def enter(self, rank: int) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.turn == rank or self.errors)
            if self.errors:
                raise _Left
            torch.set_rng_state(self.noise[rank])

    def leave(self, rank: int) -> None:
        with self.changed:
            self.noise[rank] = torch.get_rng_state()
            waiting = [(rank + i) % self.size for i in range(1, self.size + 1)]
            self.turn = next((each for each in waiting if each not in self.done), rank)
            self.changed.notify_all()
