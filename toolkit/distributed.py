"""A thin layer over torch.distributed: what parts and commands need of the other ranks.

On one rank, every function does nothing, or does alone what several ranks do together.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from toolkit.errors import Interrupted, ToolkitError
from toolkit.peers import PeerError, in_collective, in_ddp

Result = TypeVar("Result")
BETWEEN_RUNS = timedelta(days=7)
"""How long a rank waits for the next run of a sweep."""
BEAT = 5.0
"""Seconds between two signs of life of rank 0 while the others wait for it, at most."""


class _Groups(NamedTuple):
    """Process groups with a run's timeout."""

    work: dist.ProcessGroup | None = None
    """None: the default group."""
    beat: dist.ProcessGroup | None = None
    """On which rank 0 gives signs of life; None: the others wait without."""
    seconds: float = 0.0


_groups = _Groups()


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them."""
    return dist.get_rank() if ranks() > 1 else 0


@torch.no_grad()
def all_reduce_sum(*tensors: Tensor) -> None:
    """Sums each tensor over the ranks, in place, on every rank."""
    if ranks() > 1:
        with in_collective():
            for tensor in tensors:
                dist.all_reduce(tensor, group=_groups.work)


@torch.no_grad()
def broadcast(tensor: Tensor) -> Tensor:
    """Rank 0's tensor, written into every other rank's."""
    if ranks() > 1:
        with in_collective():
            dist.broadcast(tensor, 0, group=_groups.work)
    return tensor


@torch.no_grad()
def all_reduce_mean(tensor: Tensor) -> None:
    """The mean over the ranks, in place."""
    if ranks() > 1:
        all_reduce_sum(tensor)
        tensor /= ranks()


@torch.no_grad()
def all_reduce_min(tensor: Tensor) -> None:
    """The elementwise minimum over the ranks, in place."""
    if ranks() > 1:
        with in_collective():
            dist.all_reduce(tensor, dist.ReduceOp.MIN, group=_groups.work)


class Largest:
    """The largest of the ranks' numbers at the last call, or before: so no rank waits for another in a step."""

    def __init__(self) -> None:
        self._begun: tuple[Any, Tensor] | None = None

    def __call__(self, number: int, now: bool = False) -> int:
        """All ranks call it, and get the same. ``now``: at this call, for which they wait."""
        if ranks() == 1:
            return number
        largest = self._result()
        with in_collective():
            sent = torch.tensor([number])
            self._begun = (dist.all_reduce(sent, dist.ReduceOp.MAX, group=_groups.work, async_op=True), sent)
        return max(largest, self._result()) if now else largest

    def _result(self) -> int:
        if self._begun is None:
            return 0
        (work, numbers), self._begun = self._begun, None
        with in_collective():
            work.wait()
        return int(numbers)


def all_gather(tensor: Tensor) -> list[Tensor]:
    """Every rank's tensor, in order; all have one shape."""
    if ranks() == 1:
        return [tensor]
    tensors = [torch.empty_like(tensor) for _ in range(ranks())]
    with in_collective():
        dist.all_gather(tensors, tensor, group=_groups.work)
    return tensors


def broadcast_object(value: Any, source: int = 0) -> Any:
    """The value of a rank, of any type that pickles."""
    values = [value]
    if ranks() > 1:
        with in_collective():
            dist.broadcast_object_list(values, source, group=_groups.work, device=torch.device("cpu"))
    return values[0]


def all_gather_object(value: Result) -> list[Result]:
    """Every rank's value, in order, of any type that pickles."""
    return [broadcast_object(value, source) for source in range(ranks())]


@contextmanager
def raise_together() -> Iterator[None]:
    """All ranks leave the block without an error, or none does.

    Where some fail, the lowest of them raises its own error and the others raise PeerError, all at the same place; but
    Interrupted is raised by whom it came to.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseException as e:  # also an interrupt: the others wait
        if ranks() == 1:
            raise
        error = e
    if ranks() > 1:
        _settle(error)


def _settle(error: BaseException | None) -> None:
    failed = torch.zeros(ranks())
    failed[rank()] = error is not None
    all_reduce_sum(failed)
    if error is not None and (int(failed.argmax()) == rank() or isinstance(error, Interrupted)):
        raise error
    if failed.any():
        raise PeerError(f"rank {int(failed.argmax())} failed") from error


def on_rank0(act: Callable[[], Result]) -> Result | None:
    """Calls ``act`` on rank 0 while the others wait, which return None, or raise PeerError where it fails.

    They wait as long as rank 0 shows signs of life, however long ``act`` takes.
    """
    with raise_together():
        if rank():
            _follow_beat()
            return None
        with _beating():
            return act()
    return None


@contextmanager
def _beating() -> Iterator[None]:
    """Signs of life from another thread while the block lasts, and a last one that ends the others' waiting."""
    if _groups.beat is None:
        yield
        return
    done = Event()
    thread = Thread(target=_beat_until, args=(done,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _beat(last=True)


def _beat_until(done: Event) -> None:
    with suppress(PeerError):  # the last sign of life fails, too, in the thread that raises it
        while not done.wait(min(BEAT, _groups.seconds / 4)):
            _beat(last=False)


def _follow_beat() -> None:
    while _groups.beat is not None and not _beat(last=False):
        pass


def _beat(last: bool) -> bool:
    """Rank 0's ``last``, on every rank."""
    sign = torch.tensor([int(last)])
    with in_collective():
        dist.broadcast(sign, 0, group=_groups.beat)
    return bool(sign)


@contextmanager
def collective_timeout(minutes: float) -> Iterator[None]:
    """For the block, a rank that another one has waited for so long is lost: PeerError. All ranks enter it together."""
    global _groups
    if ranks() == 1:
        yield
        return
    before, timeout = _groups, timedelta(minutes=minutes)
    with in_collective():
        groups = [dist.new_group(timeout=timeout, backend=backend) for backend in (None, "gloo")]
    work, beat = (cast(dist.ProcessGroup, group) for group in groups)  # every rank is a member
    _groups = _Groups(work, beat, timeout.total_seconds())
    try:
        yield
    finally:
        _groups = before


def wrap_ddp(module: nn.Module) -> nn.Module:
    """The module, with gradients that are averaged over the ranks in the backward pass.

    Only calls of the returned module reduce anything. Buffers are left alone: statistics are reduced by the parts
    that keep them. Every parameter must take part in every pass.
    """
    if ranks() == 1:
        return module
    # from convolutions of width 1, whose gradient has the same memory layout under other strides
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    with warnings.catch_warnings():  # the option's next name is unknown to the oldest torch that is supported
        warnings.simplefilter("ignore", FutureWarning)
        with in_ddp():
            return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False, process_group=_groups.work)


@contextmanager
def no_sync(module: nn.Module, defer: bool) -> Iterator[None]:
    """For a forward and backward pass; ``defer`` leaves averaging its gradients to a later pass.

    PeerError where another rank is gone.
    """
    deferred: AbstractContextManager[Any] = nullcontext()
    if defer and isinstance(module, nn.parallel.DistributedDataParallel):
        deferred = module.no_sync()
    with in_ddp(), deferred:
        yield


def work_group() -> dist.ProcessGroup:
    """The ranks' group, with the run's timeout; there are several ranks."""
    return _groups.work or cast(dist.ProcessGroup, dist.group.WORLD)


def gathering() -> AbstractContextManager[None]:
    """For what gathers sharded tensors: PeerError where another rank is gone."""
    return in_collective()


def seed_noise(seed: int) -> None:
    """Gives each rank random numbers of its own; rank 0 continues with its own."""
    if rank():
        torch.manual_seed(seed + rank())


def local_ranks() -> int:
    """The ranks of this machine; 1 outside a process group."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", ranks())) if ranks() > 1 else 1


def check_device(device: torch.device) -> None:
    """ToolkitError where this machine's ranks outnumber its GPUs, all are to share one, or none can reach another."""
    if device.type not in ("cpu", "cuda") and ranks() > 1:
        raise ToolkitError(f"trainer.ranks={ranks()}: several train on device=cuda or device=cpu, not on {device}")
    if device.index is not None and ranks() > 1:
        raise ToolkitError(
            f"trainer.ranks={ranks()}: every rank takes a GPU of its own, and device={device} is one:"
            f" choose device={device.type}"
        )
    local = local_ranks()
    if device.type == "cuda" and ranks() > 1 and local > torch.cuda.device_count():
        raise ToolkitError(
            f"trainer.ranks={local}: every rank on device=cuda takes a GPU of its own, and this machine has"
            f" {torch.cuda.device_count()}"
        )


@contextmanager
def process_group(url: str, rank: int, ranks: int, local_rank: int) -> Iterator[None]:
    """One group over the ranks for the block, initialized by a URL of torch's (``env://``, ``file://…``).

    CPU tensors go over gloo, GPU tensors over NCCL; a rank's GPU has the number of the rank on its machine. Where the
    block fails, the group is left as it is: the process must end.
    """
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    with in_collective():
        dist.init_process_group(backend, init_method=url, rank=rank, world_size=ranks, timeout=BETWEEN_RUNS)
    yield
    all_reduce_sum(torch.zeros(1))  # no rank leaves while another still waits
    dist.destroy_process_group()
