"""Parts that use what the interfaces leave open: a critic, and a temperature that follows the optimizer's step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from toolkit import Autoencoder, Bound, DataSpec, Loss, Objective, Quantized, Quantizer
from toolkit.nn.codebook import upcast
from toolkit.objective import CriticLoss
from toolkit.objectives.elbo import ELBO
from toolkit.quantizers.vq import VectorQuantizer


@final
class AdversarialObjective(Objective):
    """The ELBO, and how unlike data a critic finds the mean: hinge losses (Lim and Ye 2017)."""

    def __init__(self, data: DataSpec, *, weight: float = 0.1) -> None:
        super().__init__()
        self.data, self.weight, self.elbo = data, weight, ELBO()
        self.critic = nn.Sequential(nn.Linear(data.dims, 8), nn.LeakyReLU(), nn.Linear(8, 1))

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        output = self.elbo(autoencoder, x, conditions)
        adversarial = -self._judge(output.likelihood.mean).mean()
        return output._replace(
            loss=output.loss + self.weight * adversarial, terms={**output.terms, "adversarial": adversarial}
        )

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        return self.elbo.bound(autoencoder, x, conditions)

    def critic_loss(
        self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor], output: Loss
    ) -> CriticLoss:
        mean = output.likelihood.mean
        assert mean is not None
        real, fake = self._judge(self.data.scale(x)), self._judge(mean.detach())
        return CriticLoss((1 - real).relu().mean() + (1 + fake).relu().mean(), {})

    def _judge(self, values: Tensor | None) -> Tensor:
        assert values is not None
        assert self.critic is not None
        scores: Tensor = self.critic(values.flatten(1))
        return upcast(scores)


@final
class AnnealedQuantizer(Quantizer):
    """A codebook whose latents get noise in training that is halved every two steps; it keeps the steps it was told."""

    depth = 1

    def __init__(self, dim: int, *, codebook_size: int = 16) -> None:
        super().__init__()
        self.inner = VectorQuantizer(dim, codebook_size=codebook_size, init="random")
        self.channels = self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(1.0))
        self.steps: list[int] = []

    def at_step(self, step: int) -> None:
        self.steps.append(step)
        self.scale.fill_(0.5 ** (step // 2))

    def forward(self, z: Tensor) -> Quantized:
        return self.inner(z + self.scale * torch.randn_like(z) if self.training else z)

    def embed(self, codes: Tensor) -> Tensor:
        return self.inner.embed(codes)
