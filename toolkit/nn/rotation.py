"""The rotation trick: an alternative to the straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

SMALL = 1e-6
"""Length below which a latent has no direction to rotate from."""


def rotation(z: Tensor, e: Tensor) -> Tensor:
    """The entries e as values; the latents z get the gradient rotated back by the angle between the two.

    With R the rotation that takes z / |z| to e / |e|, and R and the lengths held constant (Fifty et al. 2024,
    "Restructuring Vector Quantization with the Rotation Trick")::

        e = |e| / |z| R z,    so that z gets |e| / |z| R^T g for e's gradient g

    Where z is 0 it has no direction, and g passes as it is. z and e are ``(batch, dim, *grid)``.
    """
    e = e.detach()
    return e + _rotated(z - z.detach(), z.detach(), e)


def _rotated(x: Tensor, z: Tensor, e: Tensor) -> Tensor:
    """``|e| / |z| R x``, where R x = x - 2 m (m x) + 2 b (a x) with a, b and m along z, e and their bisector.

    Where e lies opposite to z there is no bisector, and R is the reflection that takes one to the other.
    """
    length = _length(z)
    a, b = z / length.clamp(min=SMALL), normalize(e, dim=1)
    m = normalize(a + b, dim=1)
    rotated = x - 2 * m * _dot(m, x) + 2 * b * _dot(a, x)
    return torch.where(length > SMALL, rotated * (_length(e) / length.clamp(min=SMALL)), x)


def _length(t: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(t, dim=1, keepdim=True)
    return length


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)
