"""From a prior to data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.prior import Prior


@torch.no_grad()
def sample(
    autoencoder: Autoencoder,
    prior: Prior,
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

    Conditions hold one value per example. ``noise``: see ``decode``.
    """
    autoencoder.eval()
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
    batch_size: int = 64,
) -> Tensor:
    """Codes to data: the likelihood's mean where it has one; with ``noise``, or without a mean, a draw from it."""
    parts = []
    for start in range(0, len(codes), batch_size):
        rows = slice(start, start + batch_size)
        z = autoencoder.embed(codes[rows])
        likelihood = autoencoder.decode(z, {name: value[rows] for name, value in conditions.items()})
        mean = None if noise else likelihood.mean
        parts.append(likelihood.sample(generator) if mean is None else autoencoder.data.unscale(mean))
    return torch.cat(parts)
