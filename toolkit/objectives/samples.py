"""Samples from the code posterior, and what the data costs given them: shared by the sampling objectives."""

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
"""Numbers in a chunk of decoded examples on a CPU, at most: 256 MiB of logits in float32."""

GPU_CHUNK = 1 << 28
"""The same on a GPU: 1 GiB."""

PER_DIM = 64
"""Numbers counted per dim, at least: where the likelihood has few, the decoder's features have more."""


class CodeSamples(NamedTuple):
    """``n`` samples of a batch's codes. The gradient of ``log_q`` reaches the encoder, that of ``log_px`` codebook and
    decoder."""

    log_px: Tensor
    """``(n, batch)`` nats: log p(x given codes)."""
    log_p: float
    """Nats of any codes at the uniform prior."""
    log_q: Tensor
    """``(n, batch)`` nats: log q(codes given x)."""
    likelihood: Distribution
    """p(x given the first sample)."""
    quantized: Quantized
    """The first sample, with its exact kl."""

    @property
    def log_w(self) -> Tensor:
        """``(n, batch)``: log importance weights p(x, codes) / q(codes given x)."""
        return self.log_px + self.log_p - self.log_q


def sample_codes(autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor], n: int) -> CodeSamples:
    """``n`` samples; the first is decoded as any batch is, the others chunk by chunk."""
    posterior = autoencoder.posterior(x)
    codes = posterior.sample(n)
    log_p = -autoencoder.code_spec.rate * log(2)
    quantized = _quantized(autoencoder, posterior, codes[0], log_p)
    likelihood = autoencoder.decode(quantized.z, conditions)
    log_px = likelihood.log_prob(x).unsqueeze(0)
    if n > 1:
        log_px = torch.cat([log_px, log_likelihoods(autoencoder, x, conditions, codes[1:])])
    return CodeSamples(log_px, log_p, posterior.log_prob(codes), likelihood, quantized)


def log_likelihoods(autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor], codes: Tensor) -> Tensor:
    """Nats ``(n, batch)``: log p(x given codes), for codes ``(n, batch, depth, *grid)``.

    Decodes in chunks. Where there are several, a chunk keeps only its codes, and is recomputed in the backward pass.
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
    """The value of the one with the gradient of the other."""
    return value.detach() + (surrogate - surrogate.detach())


def single_sample_bound(autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
    """The bound at a single sample of the codes, with their exact kl."""
    quantized = autoencoder.sample(x)
    likelihood = autoencoder.decode(quantized.z, conditions)
    return Bound(-likelihood.log_prob(x), quantized.kl, likelihood, quantized)


def _quantized(autoencoder: Autoencoder, posterior: Posterior, codes: Tensor, log_p: float) -> Quantized:
    """Codes ``(batch, depth, *grid)`` sampled from a posterior, with its exact kl."""
    entropy = posterior.entropy()
    return Quantized(autoencoder.embed(codes), codes, torch.zeros_like(entropy), -log_p - entropy, {})
