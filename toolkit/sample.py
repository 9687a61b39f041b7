"""Sampling: from a prior to data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.device import in_float32
from toolkit.errors import ToolkitError
from toolkit.fit import device_of
from toolkit.prior import Prior, SamplingOptions
from toolkit.rollout import kept, roll_out, within

BATCH = 64
"""Examples decoded at once."""

Progress = Callable[[str, int, int], None]
"""Called with what is being sampled, ``codes`` or ``data``, how many of them are done, and how many there are."""


def unwatched(what: str, done: int, total: int) -> None:
    """Reports no progress."""


@torch.no_grad()
def sample(
    autoencoder: Autoencoder,
    prior: Prior | None,
    n: int,
    conditions: Mapping[str, Tensor],
    sampling: SamplingOptions,
    *,
    generator: torch.Generator,
    prefix: Tensor | None = None,
    length: int | None = None,
    overlap: int | None = None,
    noise: bool = False,
    progress: Progress = unwatched,
) -> tuple[Tensor, Tensor]:
    """``n`` examples ``(n, channels, *axes)``, as the data has them, and their codes ``(n, depth, *grid)``.

    Conditions have one value per example, or one per step; the last step is repeated where they are too short.
    ``prefix`` ``(n, depth, positions)`` fixes the first codes; ``noise``: see ``decode``. ``length`` is that of the
    data's first axis. Up to the prior's own length the examples are cut; beyond it, its window slides over the codes
    and keeps ``overlap`` positions of the data at each move (see ``toolkit.rollout``); all codes are decoded at once.
    Without a prior, latents of a continuous bottleneck are sampled from the unit normal, scaled by the
    temperature, and there are no codes. ToolkitError where codes or data cannot have this length; codes whose grid has
    parts have their own alone.
    """
    autoencoder.eval()
    if prior is None:
        device = device_of(autoencoder)
        z = sampling.temperature * torch.randn(n, autoencoder.quantizer.dim, *autoencoder.grid, generator=generator)
        x = decode_latents(autoencoder, z.to(device), conditions, generator=generator, noise=noise, progress=progress)
        return _cut(x, length), torch.zeros(n, 0, *autoencoder.code_spec.grid, dtype=torch.int64)
    if length is not None:
        autoencoder.code_spec.refuse_parts(f"frames={length}", "leave frames out, samples are as long as the data")
    prior.eval()
    lead, positions = autoencoder.lead, autoencoder.code_spec.grid[0]
    axis = autoencoder.data.axes[0] + lead
    window, *plane = prior.code_spec.grid
    slabs = window if length is None else -(-(length + lead) * positions // axis)
    if slabs > window and axis % positions:
        raise ToolkitError(
            f"frames={length}: this run's codes do not cover a whole number of frames each ({axis} by {positions})"
        )
    keep = kept(window, axis // positions, autoencoder.data.conditions, overlap) if slabs > window else 0
    per_position = n * prior.code_spec.depth
    total = per_position * max(slabs, window) * prod(plane)

    def conditions_of(start: int, count: int) -> Mapping[str, Tensor]:
        """The conditions of ``count`` slabs."""
        if length is None:
            return conditions
        first, last = autoencoder.positions(start), autoencoder.positions(start + count)
        return within(conditions, autoencoder.data.conditions, first, last - first)

    codes = roll_out(
        prior,
        n,
        lambda start: conditions_of(start, window),
        sampling,
        slabs=slabs,
        keep=keep,
        prefix=prefix,
        generator=generator,
        progress=lambda done: progress("codes", min(done * per_position, total), total),
    )
    known = conditions_of(0, codes.shape[2])
    x = decode(autoencoder, codes, known, generator=generator, noise=noise, progress=progress)
    return _cut(x, length), codes[:, :, :slabs]


def _cut(x: Tensor, length: int | None) -> Tensor:
    """The first ``length`` positions; ToolkitError where there are fewer."""
    if length is None:
        return x
    if x.shape[2] < length:
        raise ToolkitError(f"frames={length}: this run generates at most {x.shape[2]}")
    return x[:, :, :length]


@torch.no_grad()
def decode(
    autoencoder: Autoencoder,
    codes: Tensor,
    conditions: Mapping[str, Tensor],
    *,
    generator: torch.Generator | None = None,
    noise: bool = False,
    progress: Progress = unwatched,
) -> Tensor:
    """Codes to data: the likelihood's mean where it has one; with ``noise``, or without a mean, a sample from it."""
    with in_float32(codes.device):
        z = torch.cat([autoencoder.embed(part) for part in codes.split(BATCH)])
    return decode_latents(autoencoder, z, conditions, generator=generator, noise=noise, progress=progress)


@torch.no_grad()
def decode_latents(
    autoencoder: Autoencoder,
    z: Tensor,
    conditions: Mapping[str, Tensor],
    *,
    generator: torch.Generator | None = None,
    noise: bool = False,
    progress: Progress = unwatched,
) -> Tensor:
    """Latents ``(batch, dim, *grid)`` to data, as ``decode`` does."""
    batches = []
    for start in range(0, len(z), BATCH):
        rows = slice(start, start + BATCH)
        with in_float32(z.device):
            likelihood = autoencoder.decode(z[rows], {name: value[rows] for name, value in conditions.items()})
            mean = None if noise else likelihood.mean
        if mean is not None:
            batches.append(autoencoder.data.unscale(mean))
            continue
        batches.append(likelihood.sample(generator, progress=_counted(progress, likelihood.shape, start, len(z))))
    return torch.cat(batches)


def _counted(progress: Progress, shape: tuple[int, ...], start: int, n: int) -> Callable[[int], None]:
    """Finished positions of a batch, as finished dims of all ``n`` examples; those before ``start`` are done."""
    dims, per_position = prod(shape), shape[0] * min(BATCH, n - start)
    return lambda done: progress("data", start * dims + done * per_position, n * dims)
