"""A code sampled from a softmax over the codebook."""

from __future__ import annotations

from math import log, prod
from typing import Literal, final

import torch
from torch import Tensor, nn

from toolkit.device import in_float32
from toolkit.nn import codebook as table
from toolkit.quantizer import Posterior, Quantized, Quantizer
from toolkit.ranges import Positive, PositiveInt


@final
class CategoricalQuantizer(Quantizer):
    """The encoder gives one logit per entry, and a code is a sample of their softmax (Jang et al. 2016).

    Training relaxes the sample, so that it has a gradient: ``y = softmax((logits + g) / temperature)`` with Gumbel
    noise g (Jang et al. 2016; Maddison et al. 2016); y mixes the entries. Eval mode takes the likeliest code, unmixed.
    The posterior and its kl, ``log K - H`` at every position, are exact in both. Computed in at least float32.

    The temperature falls geometrically from ``temperature`` to ``final_temperature``, and stays there. The step is part
    of the state.

    Args:
        codebook_size: entries of the codebook, K, and so the channels of the latents.
        relaxation: straight_through has the sampled entry as value and the mixture's gradient; soft is the mixture.
        temperature: of the relaxation, at the first step.
        final_temperature: of the relaxation, after anneal_steps.
        anneal_steps: training steps from temperature to final_temperature.
    """

    depth = 1
    has_posterior = True

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: PositiveInt = 512,
        relaxation: Literal["straight_through", "soft"] = "straight_through",
        temperature: Positive = 1.0,
        final_temperature: Positive = 0.5,
        anneal_steps: PositiveInt = 10_000,
    ) -> None:
        super().__init__()
        self.codebook_sizes = table.single(codebook_size)
        if temperature <= 0 or final_temperature <= 0:
            raise ValueError(f"temperature={temperature} final_temperature={final_temperature}: above 0")
        if anneal_steps < 1:
            raise ValueError(f"anneal_steps={anneal_steps}: at least 1")
        self.channels, self.dim = codebook_size, dim
        self.relaxation = relaxation
        self.first, self.last, self.anneal_steps = temperature, final_temperature, anneal_steps
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))
        self.step: Tensor
        self.register_buffer("step", torch.tensor(0))

    def forward(self, z: Tensor) -> Quantized:
        if self.training:
            return self._relax(z)
        codes = z.argmax(1, keepdim=True)
        return self._quantized(self.embed(codes), codes, z)

    def embed(self, codes: Tensor) -> Tensor:
        return table.look_up(codes, self.codebook)

    def sample(self, z: Tensor) -> Quantized:
        codes = self.posterior(z).sample(1)[0]
        return self._quantized(self.embed(codes), codes, z)

    def posterior(self, z: Tensor) -> Posterior:
        return Posterior((table.upcast(z),))

    def at_step(self, step: int) -> None:
        """Sets the temperature to that of an optimizer step."""
        self.step.fill_(step)

    @property
    def temperature(self) -> Tensor:
        """Temperature of the relaxation at this step, 0-d."""
        progress = (self.step / self.anneal_steps).clamp(max=1)
        return self.first * (self.last / self.first) ** progress

    def _relax(self, z: Tensor) -> Quantized:
        logits = table.upcast(z)
        noisy = logits - torch.empty_like(logits).exponential_().log()
        codes = noisy.argmax(1, keepdim=True)
        weights = (noisy / self.temperature).softmax(1)
        if self.relaxation == "soft":
            return self._quantized(_mix(weights, self.codebook), codes, z)
        # The codebook learns from the sampled entry, the logits from the mixture.
        soft = _mix(weights, self.codebook.detach())
        return self._quantized(self.embed(codes) + (soft - soft.detach()), codes, z)

    def _quantized(self, e: Tensor, codes: Tensor, z: Tensor) -> Quantized:
        rate = prod(z.shape[2:]) * log(self.channels)
        kl = rate - self.posterior(z).entropy()
        return Quantized(e, codes, torch.zeros_like(kl), kl, {})


def _mix(weights: Tensor, codebook: Tensor) -> Tensor:
    """Weights ``(batch, codebook_size, *grid)`` to the weighted sum of the entries ``(batch, dim, *grid)``."""
    with in_float32(weights.device):
        return (weights.movedim(1, -1) @ codebook).movedim(-1, 1)
