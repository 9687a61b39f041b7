"""Another rank that has failed or is gone: how torch's errors tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from toolkit.failures import explain


class PeerError(Exception):
    """Another rank has failed, and reports why itself, or is gone."""


def is_peer_failure(error: BaseException | None) -> bool:
    """Whether an error only reports that another rank has failed or is gone."""
    return error is not None and (isinstance(error, PeerError | dist.DistError) or is_peer_failure(error.__cause__))


@contextmanager
def in_collective() -> Iterator[None]:
    """Errors of a collective become PeerErrors, recognized by their place: gloo's have no type of their own."""
    try:
        yield
    except RuntimeError as e:
        if explain(e):  # this rank's own: torch raises it wherever it is when a process that loads data ends
            raise
        raise _failed(e) from e


@contextmanager
def in_ddp() -> Iterator[None]:
    """The same for DDP's own collectives, which run inside a module's passes.

    NCCL's errors have a type there. Gloo's are plain RuntimeErrors without a Python frame: only the name of a gloo
    source file in their text distinguishes them from a part's.
    """
    try:
        yield
    except RuntimeError as e:
        if isinstance(e, dist.DistError) or (type(e) is RuntimeError and "/gloo/" in str(e)):
            raise _failed(e) from e
        raise


def _failed(error: RuntimeError) -> PeerError:
    return PeerError(f"a collective operation failed: {str(error).partition(chr(10))[0]}")
