"""From a prior to data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.errors import ToolkitError
from toolkit.fit import device_of
from toolkit.prior import Prior, SamplingOptions
from toolkit.rollout import kept, roll_out, within

BATCH = 64
"""Examples decoded at once."""

Progress = Callable[[str, int, int], None]
"""Is told what is being drawn one after the other, ``codes`` or ``data``, how many are done, and of how many."""


def unwatched(what: str, done: int, total: int) -> None:
    """Progress that nobody follows."""


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
    """``n`` examples ``(n, channels, *axes)`` in the data's form and their codes ``(n, depth, *grid)``.

    Conditions hold one value per example, or one for each of its steps, the last of which goes on where they end.
    ``prefix`` ``(n, depth, positions)`` fixes the first codes; ``noise``: see ``decode``. ``length`` is that of the
    data's first axis: up to the prior's own the examples are cut short; beyond it its window slides over the codes, of
    which those of ``overlap`` positions stay in it (see ``toolkit.rollout``), and all are decoded at once. Without a
    prior the latents of a continuous bottleneck are drawn from the unit normal, scaled by the temperature; there are no
    codes then. ToolkitError where codes or data cannot be as long.
    """
    autoencoder.eval()
    if prior is None:
        grid, device = autoencoder.code_spec.grid, device_of(autoencoder)
        z = sampling.temperature * torch.randn(n, autoencoder.quantizer.dim, *grid, generator=generator)
        x = decode_latents(autoencoder, z.to(device), conditions, generator=generator, noise=noise, progress=progress)
        return _cut(x, length), torch.zeros(n, 0, *grid, dtype=torch.int64)
    prior.eval()
    axis, places = autoencoder.data.axes[0], autoencoder.code_spec.grid[0]
    window, *plane = prior.code_spec.grid
    slabs = window if length is None else -(-length * places // axis)
    if slabs > window and axis % places:
        raise ToolkitError(f"frames={length}: this run's codes stand for no whole number of them ({axis} are {places})")
    keep = kept(window, axis // places, autoencoder.data.conditions, overlap) if slabs > window else 0
    each = n * prior.code_spec.depth
    total = each * max(slabs, window) * prod(plane)

    def of(start: int, many: int) -> Mapping[str, Tensor]:
        """The conditions of so many slabs."""
        if length is None:
            return conditions
        return within(conditions, autoencoder.data.conditions, start * axis // places, many * axis // places)

    codes = roll_out(
        prior,
        n,
        lambda start: of(start, window),
        sampling,
        slabs=slabs,
        keep=keep,
        prefix=prefix,
        generator=generator,
        progress=lambda done: progress("codes", min(done * each, total), total),
    )
    known = of(0, codes.shape[2])
    x = decode(autoencoder, codes, known, generator=generator, noise=noise, progress=progress)
    return _cut(x, length), codes[:, :, :slabs]


def _cut(x: Tensor, length: int | None) -> Tensor:
    """The first ``length`` positions."""
    if length is None:
        return x
    if x.shape[2] < length:
        raise ToolkitError(f"frames={length}: this run makes {x.shape[2]} at most")
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
    """Codes to data: the likelihood's mean where it has one; with ``noise``, or without a mean, a draw from it."""
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
    parts = []
    for start in range(0, len(z), BATCH):
        rows = slice(start, start + BATCH)
        likelihood = autoencoder.decode(z[rows], {name: value[rows] for name, value in conditions.items()})
        mean = None if noise else likelihood.mean
        if mean is not None:
            parts.append(autoencoder.data.unscale(mean))
            continue
        parts.append(likelihood.sample(generator, progress=_counted(progress, likelihood.shape, start, len(z))))
    return torch.cat(parts)


def _counted(progress: Progress, shape: tuple[int, ...], start: int, n: int) -> Callable[[int], None]:
    """Positions of a batch as numbers of all ``n`` examples, of which those before ``start`` are done."""
    numbers, each = prod(shape), shape[0] * min(BATCH, n - start)
    return lambda done: progress("data", start * numbers + done * each, n * numbers)
