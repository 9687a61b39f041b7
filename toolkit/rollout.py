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
    """Codes ``(n, depth, slabs, …)``, of ``slabs`` places along the first axis or, where those are fewer, of the
    prior's whole grid.

    The first window is what ``prior.sample`` draws. Then the window moves on until the last ``keep`` slabs that were
    drawn are its first, which stay as they are, and the rest of it is drawn; and so on. ``conditions`` gives those of
    the window that begins at a slab.
    """
    window, each = prior.code_spec.grid[0], prod(prior.code_spec.grid[1:])
    codes = prior.sample(n, conditions(0), sampling, prefix=prefix, generator=generator, progress=progress)
    while codes.shape[2] < slabs:
        start = codes.shape[2] - keep
        told = None if progress is None else _after(progress, start * each)
        held = codes[:, :, start:].flatten(2)
        more = prior.sample(n, conditions(start), sampling, prefix=held, generator=generator, progress=told)
        codes = torch.cat((codes, more[:, :, keep:]), 2)
    return codes[:, :, : max(slabs, window)]


def kept(window: int, stride: int, conditions: tuple[Condition, ...], overlap: int | None) -> int:
    """How many slabs of a window stay in the next: those of ``overlap`` positions of the data, by default half.

    A slab is ``stride`` positions. The window moves by whole steps of every condition. ToolkitError where that cannot
    be.
    """
    whole = lcm(*(c.stride // gcd(c.stride, stride) for c in conditions if c.per_step))
    if overlap is None:
        moved = max(1, window // 2 // whole) * whole
        if moved >= window:
            raise ToolkitError(
                f"frames: the prior was trained on {window * stride} at once, which leaves none to go on from: give"
                " no more than that"
            )
        return window - moved
    slabs, rest = divmod(overlap, stride)
    if rest or not 0 < slabs < window or (window - slabs) % whole:
        each, most = stride * whole, window * stride
        raise ToolkitError(
            f"overlap={overlap}: give {most} less a multiple of {each}, from {most % each or each} to {most - each}"
        )
    return slabs


def within(
    conditions: Mapping[str, Tensor], known: tuple[Condition, ...], start: int, length: int
) -> dict[str, Tensor]:
    """The conditions of ``length`` positions of the data from ``start`` on; the last step goes on for ever."""
    made = dict(conditions)
    for condition in known:
        value = conditions.get(condition.name)
        if value is None or not condition.per_step or value.ndim == (2 if condition.real else 1):
            continue
        steps = torch.arange(condition.steps(length), device=value.device) + condition.steps(start)
        made[condition.name] = value.index_select(1, steps.clamp(max=value.shape[1] - 1))
    return made


def _after(progress: Callable[[int], None], before: int) -> Callable[[int], None]:
    return lambda done: progress(before + done)
