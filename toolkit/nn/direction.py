"""DiVeQ: the way from a latent to its entry as a length with a gradient and a direction with noise."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

VARIANCE = 1e-3
"""Of the noise in every dim of the direction."""


def direction(z: Tensor, e: Tensor) -> Tensor:
    """``z + |e - z| sg[v / |v|]`` with ``v = e - z + noise``: near the entries e, with a gradient to both.

    As values it is as far from z as e is, nearly in e's direction, so that what follows trains on latents about the
    entry, and the entry learns from it without a loss of its own (Vali et al. 2025, "DiVeQ: Differentiable Vector
    Quantization Using the Reparameterization Trick"). z and e are ``(batch, dim, *grid)``.
    """
    way = e - z
    noisy = way.detach() + sqrt(VARIANCE) * torch.randn_like(way)
    length: Tensor = torch.linalg.vector_norm(way, dim=1, keepdim=True)
    return z + length * F.normalize(noisy, dim=1)
