"""Parts that are made for weights at hand are made no larger than these: a configuration may ask for anything."""

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
"""Numbers that may be made beside the weights: 256 MiB in float32."""
FEW = 500
"""Modules and tensors that any part may consist of."""
EACH = 16
"""The same for each tensor of the weights."""


class TooLargeError(Exception):
    """A part that asks for more than its weights have."""


@contextmanager
def no_larger(shapes: Iterable[tuple[int, ...]]) -> Iterator[None]:
    """While it lasts, TooLarge for what is larger than, or of many more parts than, weights of these shapes; before
    there is any memory in it. Fake tensors, which have none, may be of any size."""
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
        stack.enter_context(_Made(most))
        yield


class _Count:
    """What modules register, counted."""

    def __init__(self, numbers: int, parts: int) -> None:
        self.numbers, self.parts = numbers, parts

    def registered(self, module: Any, name: str, part: Any) -> None:
        self.parts -= 1
        self.numbers -= part.numel() if isinstance(part, Tensor) else 0
        if self.parts < 0 or self.numbers < 0:
            raise TooLargeError("it has more weights than the checkpoint holds")


class _Made(TorchDispatchMode):
    """Asks of every operation that makes a tensor out of nothing how large that will be, before it is made."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if detect_fake_mode() is None and _from_nothing(func, args):
            size = func(*args, **{**kwargs, "device": torch.device("meta"), "pin_memory": False}).numel()
            if size > self.most:
                raise TooLargeError(f"a tensor of {size:,} numbers is more than the checkpoint holds")
        return func(*args, **kwargs)


def _from_nothing(func: Any, args: Any) -> bool:
    return not any(isinstance(arg, Tensor) for arg in args) and any(a.name == "device" for a in func._schema.arguments)
