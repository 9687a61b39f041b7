"""What an output depends on, measured."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def receptive_field(
    function: Callable[[Tensor], Tensor], x: Tensor, position: tuple[int | slice, ...]
) -> tuple[range, ...] | None:
    """Along each axis of x, from the first to the last position that ``function(x)[:, :, *position]`` depends on.

    By the gradient, over all of x's examples ``(batch, channels, *axes)``, floats: of one alone, a ReLU may hide a
    part. None where the gradient is zero or does not reach x.
    """
    x = x.detach().requires_grad_()
    seen = function(x)[(slice(None), slice(None), *position)].square().sum()
    (gradient,) = torch.autograd.grad(seen, x, allow_unused=True)
    if gradient is None or not gradient.any():
        return None
    touched = (gradient != 0).any(0).any(0).nonzero()
    return tuple(range(a, b + 1) for a, b in zip(touched.amin(0).tolist(), touched.amax(0).tolist(), strict=True))
