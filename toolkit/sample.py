"""From a prior to data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.fit import device_of
from toolkit.prior import Prior

BATCH = 64
"""Examples decoded at once."""


@torch.no_grad()
def sample(
    autoencoder: Autoencoder,
    prior: Prior | None,
    n: int,
    conditions: Mapping[str, Tensor],
    *,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float = 1.0,
    noise: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """``n`` examples ``(n, channels, *axes)`` in the data's form and their codes ``(n, depth, *grid)``.

    Conditions hold one value per example. ``noise``: see ``decode``. Without a prior the latents of a continuous
    bottleneck are drawn from the unit normal, scaled by ``temperature``; there are no codes then.
    """
    autoencoder.eval()
    if prior is None:
        grid, device = autoencoder.latent.grid, device_of(autoencoder)
        z = temperature * torch.randn(n, autoencoder.quantizer.dim, *grid, generator=generator)
        x = decode_latents(autoencoder, z.to(device), conditions, generator=generator, noise=noise)
        return x, torch.zeros(n, 0, *grid, dtype=torch.int64)
    prior.eval()
    codes = prior.sample(
        n,
        conditions,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance=guidance,
        generator=generator,
        progress=progress,
    )
    return decode(autoencoder, codes, conditions, generator=generator, noise=noise), codes


@torch.no_grad()
def decode(
    autoencoder: Autoencoder,
    codes: Tensor,
    conditions: Mapping[str, Tensor],
    *,
    generator: torch.Generator | None = None,
    noise: bool = False,
) -> Tensor:
    """Codes to data: the likelihood's mean where it has one; with ``noise``, or without a mean, a draw from it."""
    z = torch.cat([autoencoder.embed(part) for part in codes.split(BATCH)])
    return decode_latents(autoencoder, z, conditions, generator=generator, noise=noise)


@torch.no_grad()
def decode_latents(
    autoencoder: Autoencoder,
    z: Tensor,
    conditions: Mapping[str, Tensor],
    *,
    generator: torch.Generator | None = None,
    noise: bool = False,
) -> Tensor:
    """Latents ``(batch, dim, *grid)`` to data, as ``decode`` does."""
    parts = []
    for start in range(0, len(z), BATCH):
        rows = slice(start, start + BATCH)
        likelihood = autoencoder.decode(z[rows], {name: value[rows] for name, value in conditions.items()})
        mean = None if noise else likelihood.mean
        parts.append(likelihood.sample(generator) if mean is None else autoencoder.data.unscale(mean))
    return torch.cat(parts)
