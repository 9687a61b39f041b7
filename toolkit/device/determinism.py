"""Operations that give the same bits each time, on a GPU as well."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from toolkit.errors import ToolkitError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""What cuBLAS reads when it is first called: with several streams, products are the same only in a fixed workspace."""
REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")
"""How torch says that it has no such form of an operation."""


@contextmanager
def deterministic(on: bool = True) -> Iterator[None]:
    """For the block, torch takes operations that give the same bits each time.

    ToolkitError, naming it, for one that has no such form on the device. What is set for it is restored.
    """
    if not on:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, workspace = cudnn.benchmark, os.environ.get(WORKSPACE)
    os.environ.setdefault(WORKSPACE, ":4096:8")
    cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as e:
        if not (refused := REFUSED.search(str(e))):
            raise
        raise ToolkitError(
            f"deterministic=true: {refused[1]} gives other bits each time on this device: take another part,"
            " device=cpu, or deterministic=false"
        ) from e
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(WORKSPACE, None)
