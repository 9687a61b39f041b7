"""Limits the memory of parts that are built for a checkpoint: its configuration may ask for any size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode

SLACK = 1 << 26
"""Numbers that may be allocated besides the weights: 256 MiB in float32."""
FEW = 500
"""Modules and tensors that any part may consist of."""
EACH = 16
"""As many more for each tensor of the weights."""


class TooLargeError(Exception):
    """A part that is larger than its saved weights."""


@contextmanager
def no_larger(shapes: Iterable[tuple[int, ...]]) -> Iterator[None]:
    """TooLargeError in the block for a part that is larger, or has many more modules and tensors, than weights of these
    shapes, before its memory is allocated. Fake tensors, which take none, may have any size."""
    sizes = [prod(shape) for shape in shapes]
    most = SLACK + 2 * sum(sizes)
    count = _Count(most, FEW + EACH * len(sizes))
    with ExitStack() as stack:
        for register in (
            hooks.register_module_module_registration_hook,
            hooks.register_module_parameter_registration_hook,
            hooks.register_module_buffer_registration_hook,
        ):
            stack.callback(register(count.registered).remove)
        stack.enter_context(_AllocationLimit(most))
        yield


class _Count:
    """Counts what modules register."""

    def __init__(self, numbers: int, parts: int) -> None:
        self.numbers, self.parts = numbers, parts

    def registered(self, module: Any, name: str, part: Any) -> None:
        self.parts -= 1
        self.numbers -= part.numel() if isinstance(part, Tensor) else 0
        if self.parts < 0 or self.numbers < 0:
            raise TooLargeError("it has more weights than the checkpoint holds")


class _AllocationLimit(TorchDispatchMode):
    """Checks the size of every tensor that an operation creates from no other, before it is allocated."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if detect_fake_mode() is None and _creates(func, args):
            size = func(*args, **{**kwargs, "device": torch.device("meta"), "pin_memory": False}).numel()
            if size > self.most:
                raise TooLargeError(f"a tensor of {size:,} numbers is more than the checkpoint holds")
        return func(*args, **kwargs)


def _creates(func: Any, args: Any) -> bool:
    return not any(isinstance(arg, Tensor) for arg in args) and any(a.name == "device" for a in func._schema.arguments)
