"""Codes longer than a prior was trained on: its window slides along the grid's first axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd, lcm, prod

import torch
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.prior import Prior, SamplingOptions
from toolkit.spec import Condition


def roll_out(
    prior: Prior,
    n: int,
    conditions: Callable[[int], Mapping[str, Tensor]],
    sampling: SamplingOptions,
    *,
    slabs: int,
    keep: int,
    prefix: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Codes ``(n, depth, slabs, …)``; at least the prior's own grid. A slab is a position along the first axis.

    The first window is a sample of the prior. Then the window moves until the last ``keep`` slabs are its first: they
    are the prefix, and the remaining slabs are sampled; and so on. ``conditions`` gives those of the window that starts
    at a slab.
    """
    window, per_slab = prior.code_spec.grid[0], prod(prior.code_spec.grid[1:])
    codes = prior.sample(n, conditions(0), sampling, prefix=prefix, generator=generator, progress=progress)
    while codes.shape[2] < slabs:
        start = codes.shape[2] - keep
        on_progress = None if progress is None else _after(progress, start * per_slab)
        overlap = codes[:, :, start:].flatten(2)
        more = prior.sample(n, conditions(start), sampling, prefix=overlap, generator=generator, progress=on_progress)
        codes = torch.cat((codes, more[:, :, keep:]), 2)
    return codes[:, :, : max(slabs, window)]


def kept(window: int, stride: int, conditions: tuple[Condition, ...], overlap: int | None) -> int:
    """How many slabs of a window are kept in the next: those of ``overlap`` positions of the data, by default half.

    A slab is ``stride`` positions. The window moves by whole steps of every condition; ToolkitError where it cannot.
    """
    whole = lcm(*(c.stride // gcd(c.stride, stride) for c in conditions if c.per_step))
    if overlap is None:
        moved = max(1, window // 2 // whole) * whole
        if moved >= window:
            raise ToolkitError(
                f"frames: the prior was trained on {window * stride} at once, too few to continue from: give no more"
                " than that"
            )
        return window - moved
    slabs, remainder = divmod(overlap, stride)
    if remainder or not 0 < slabs < window or (window - slabs) % whole:
        step, most = stride * whole, window * stride
        raise ToolkitError(
            f"overlap={overlap}: give {most} less a multiple of {step}, from {most % step or step} to {most - step}"
        )
    return slabs


def within(
    conditions: Mapping[str, Tensor], known: tuple[Condition, ...], start: int, length: int
) -> dict[str, Tensor]:
    """The conditions of ``length`` positions of the data from ``start`` on; past its end, the last step repeats."""
    shifted = dict(conditions)
    for condition in known:
        value = conditions.get(condition.name)
        if value is None or not condition.per_step or value.ndim == (2 if condition.real else 1):
            continue
        steps = torch.arange(condition.steps(length), device=value.device) + condition.steps(start)
        shifted[condition.name] = value.index_select(1, steps.clamp(max=value.shape[1] - 1))
    return shifted


def _after(progress: Callable[[int], None], before: int) -> Callable[[int], None]:
    return lambda done: progress(before + done)
