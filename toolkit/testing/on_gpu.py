"""The law of devices that all suites share: a part computes on a GPU, looked at on a stand-in for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from toolkit.testing.accelerator import PlacementError, StandIn, stand_in

STEPS = 2
"""Of training: the first may initialize and cache, and the second must not ask."""


@contextmanager
def on_gpu() -> Iterator[StandIn]:
    """A stand-in for a GPU; what it refuses is the failure of a law."""
    try:
        with stand_in() as gpu:
            yield gpu
    except PlacementError as error:
        raise AssertionError(
            f"on a GPU: {error}: make a tensor where those lie that it meets, as x.new_zeros(…) and"
            " torch.arange(…, device=x.device) do, and keep one in register_buffer"
        ) from error


def there(value: Any) -> Any:
    """Tensors, also of lists and dicts, on the GPU; one that requires a gradient still does."""

    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.detach().to("cuda").requires_grad_(leaf.requires_grad)

    return tree_map(moved, value)


def check_on_gpu(part: nn.Module, forward: Callable[..., Sequence[Tensor]], *inputs: Any) -> None:
    """Trains a part on the stand-in, and runs it in eval mode.

    ``forward(part, *inputs)`` gives what it computes, in training something to differentiate. Checks that outputs,
    gradients, parameters and buffers lie on the GPU, and that from the second step on no step asks it anything.
    """
    with on_gpu() as gpu:
        part, given = part.to("cuda").train(), there(inputs)
        for step in range(STEPS):
            before = gpu.waits.copy()
            outputs = forward(part, *given)
            assert_there(outputs, "an output in training")
            differentiated = [output.sum() for output in outputs if output.requires_grad]
            if differentiated:
                torch.stack(differentiated).sum().backward()
            asked = gpu.waits - before
            assert not asked or not step, (
                f"a step of training waits for the GPU: {', '.join(sorted(asked))}: ask nothing of a tensor in forward"
            )
        for name, parameter in part.named_parameters():
            assert parameter.grad is None or parameter.grad.is_cuda, f"the gradient of {name} lies on the CPU"
        assert_there(part.state_dict(), "the state in training")
        with torch.no_grad():
            assert_there(forward(part.eval(), *given), "an output in eval mode")
        assert_there(part.state_dict(), "the state in eval mode")


def assert_there(tensors: Any, what: str) -> None:
    """Checks that all tensors of a sequence, or of a dict by name, lie on the GPU."""
    named = tensors.items() if isinstance(tensors, dict) else enumerate(tensors)
    for name, tensor in named:
        assert tensor.is_cuda, f"{what}, {name}, lies on the {tensor.device.type}"
