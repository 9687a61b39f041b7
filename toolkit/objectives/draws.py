"""Draws from the code posterior, and what the data costs given them: what the sampled objectives share."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from toolkit.autoencoder import Autoencoder
from toolkit.likelihood import Distribution
from toolkit.objective import Bound
from toolkit.quantizer import Posterior, Quantized

CHUNK = 1 << 26
"""Numbers that a chunk of decoded examples may hold on a CPU: 256 MiB of logits in float32."""

GPU_CHUNK = 1 << 28
"""The same on a GPU: 1 GiB."""

PER_DIM = 64
"""Least numbers counted per dim: where the likelihood has few, the decoder's own features have more."""


class Draws(NamedTuple):
    """``n`` draws of a batch's codes. The gradient of ``log_q`` reaches the encoder, that of ``log_px`` the rest."""

    log_px: Tensor
    """``(n, batch)`` nats: log p(x given codes)."""
    log_p: float
    """Nats of any codes at the uniform prior."""
    log_q: Tensor
    """``(n, batch)`` nats: log q(codes given x)."""
    likelihood: Distribution
    """Given the first draw."""
    quantized: Quantized
    """The first draw, with its exact kl."""

    @property
    def log_w(self) -> Tensor:
        """``(n, batch)``: log of p(x, codes) / q(codes given x)."""
        return self.log_px + self.log_p - self.log_q


def sample_codes(autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor], n: int) -> Draws:
    """The first draw is decoded as any batch is; the others, if there are any, chunk by chunk."""
    posterior = autoencoder.posterior(x)
    codes = posterior.sample(n)
    log_p = -autoencoder.code_spec.rate * log(2)
    quantized = _quantized(autoencoder, posterior, codes[0], log_p)
    likelihood = autoencoder.decode(quantized.z, conditions)
    log_px = likelihood.log_prob(x).unsqueeze(0)
    if n > 1:
        log_px = torch.cat([log_px, log_likelihoods(autoencoder, x, conditions, codes[1:])])
    return Draws(log_px, log_p, posterior.log_prob(codes), likelihood, quantized)


def log_likelihoods(autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor], codes: Tensor) -> Tensor:
    """Nats ``(n, batch)``: log p(x given codes), for codes ``(n, batch, depth, *grid)``.

    n x batch decodes are done in chunks. Where one is not enough, a chunk keeps only its codes for the backward pass
    and is computed again there.
    """

    def nats(codes: Tensor, rows: Tensor) -> Tensor:
        given = {name: value[rows] for name, value in conditions.items()}
        return autoencoder.decode(autoencoder.embed(codes), given).log_prob(x[rows])

    flat, rows = codes.flatten(0, 1), torch.arange(len(x), device=x.device).repeat(len(codes))
    size = chunk_size(autoencoder, x.device)
    if len(flat) <= size:
        return nats(flat, rows).view(codes.shape[:2])
    pairs = zip(flat.split(size), rows.split(size), strict=True)
    chunks = [checkpoint(nats, *pair, use_reentrant=False) for pair in pairs]
    return torch.cat(chunks).view(codes.shape[:2])


def chunk_size(autoencoder: Autoencoder, device: torch.device) -> int:
    """Examples decoded at once."""
    data = autoencoder.data
    per_example = data.dims * max(data.levels or 1, PER_DIM)
    return max(1, (CHUNK if device.type == "cpu" else GPU_CHUNK) // per_example)


def with_gradient_of(value: Tensor, surrogate: Tensor) -> Tensor:
    """A value, with the gradient of something else."""
    return value.detach() + (surrogate - surrogate.detach())


def single_sample_bound(autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
    """The bound at a single draw of the codes, with their exact kl."""
    quantized = autoencoder.sample(x)
    likelihood = autoencoder.decode(quantized.z, conditions)
    return Bound(-likelihood.log_prob(x), quantized.kl, likelihood, quantized)


def _quantized(autoencoder: Autoencoder, posterior: Posterior, codes: Tensor, log_p: float) -> Quantized:
    """Codes ``(batch, depth, *grid)`` that were drawn from a posterior, with its exact kl."""
    entropy = posterior.entropy()
    return Quantized(autoencoder.embed(codes), codes, torch.zeros_like(entropy), -log_p - entropy, {})
