"""From a prior to data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.fit import device_of
from toolkit.prior import Controls, Prior

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
    controls: Controls,
    *,
    generator: torch.Generator,
    prefix: Tensor | None = None,
    noise: bool = False,
    progress: Progress = unwatched,
) -> tuple[Tensor, Tensor]:
    """``n`` examples ``(n, channels, *axes)`` in the data's form and their codes ``(n, depth, *grid)``.

    Conditions hold one value per example. ``prefix`` ``(n, depth, positions)`` fixes the first codes; ``noise``: see
    ``decode``. Without a prior the latents of a continuous bottleneck are drawn from the unit normal, scaled by the
    temperature; there are no codes then.
    """
    autoencoder.eval()
    if prior is None:
        grid, device = autoencoder.latent.grid, device_of(autoencoder)
        z = controls.temperature * torch.randn(n, autoencoder.quantizer.dim, *grid, generator=generator)
        x = decode_latents(autoencoder, z.to(device), conditions, generator=generator, noise=noise, progress=progress)
        return x, torch.zeros(n, 0, *grid, dtype=torch.int64)
    prior.eval()
    each = n * prior.latent.depth
    total = each * prod(prior.latent.grid)
    codes = prior.sample(
        n,
        conditions,
        controls,
        prefix=prefix,
        generator=generator,
        progress=lambda done: progress("codes", done * each, total),
    )
    return decode(autoencoder, codes, conditions, generator=generator, noise=noise, progress=progress), codes


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
