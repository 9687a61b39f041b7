"""A continuous bottleneck: the variational autoencoder's."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.fit import title
from toolkit.nn import codebook as table
from toolkit.quantizer import Quantized, Quantizer

LARGEST = 20.0
"""Log-variances stay between -LARGEST and LARGEST, so that their exponential is finite."""


@final
class GaussianQuantizer(Quantizer):
    """Latents with Gaussian noise and no codes: the baseline bottleneck (Kingma & Welling 2013).

    The encoder gives a mean and a log-variance per channel. Training samples ``mean + deviation * noise``; eval
    mode gives the mean. The kl to the unit normal is analytic. Depth is 0, so there is nothing for a prior to model.
    Computed in at least float32.
    """

    depth = 0
    codebook_sizes = ()

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.channels, self.dim = 2 * dim, dim

    def forward(self, z: Tensor) -> Quantized:
        if self.training:
            return self.sample(z)
        mean, log_variance = _moments(z)
        return _quantized(mean, mean, log_variance)

    def embed(self, codes: Tensor) -> Tensor:
        """ToolkitError: there are no codes."""
        raise ToolkitError(f"{title(self)}: a continuous bottleneck has no codes to embed")

    def sample(self, z: Tensor) -> Quantized:
        mean, log_variance = _moments(z)
        noise = torch.randn_like(mean)
        return _quantized(mean + noise * (log_variance / 2).exp(), mean, log_variance)


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance, which is softly bounded: near 0 it is the encoder's output."""
    mean, raw = table.upcast(z).chunk(2, 1)
    return mean, LARGEST * (raw / LARGEST).tanh()


def _quantized(e: Tensor, mean: Tensor, log_variance: Tensor) -> Quantized:
    nats = (mean.square() + log_variance.expm1() - log_variance) / 2
    kl = nats.flatten(1).sum(1)
    codes = torch.zeros(e.shape[0], 0, *e.shape[2:], dtype=torch.long, device=e.device)
    return Quantized(e, codes, torch.zeros_like(kl), kl, {})
