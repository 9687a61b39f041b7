"""Minimal parts, which suites compose around the part under test."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.decoder import Decoder
from toolkit.encoder import Encoder
from toolkit.likelihood import Distribution, Likelihood
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizer import Quantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.spec import Condition, DataSpec


class PointEncoder(Encoder):
    """A linear map at every position of ordered data of any rank; the grid is the data's axes."""

    takes_padding = True

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__()
        self.data, self.stride = data, (1,) * data.rank
        self.linear = nn.Linear(data.channels, dim)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.linear(self.data.scale(x).to(self.linear.weight.dtype).movedim(1, -1))
        return z.movedim(-1, 1)


class PointDecoder(Decoder):
    """A linear map at every position of the latents, to the likelihood's parameters."""

    takes_padding = True

    def __init__(self, dim: int, likelihood: Likelihood) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.linear = nn.Linear(dim, likelihood.channels)

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return self.likelihood(self.linear(z.movedim(1, -1)).movedim(-1, 1))


def plain_likelihood(data: DataSpec) -> Likelihood:
    """A softmax where the data has levels, else a Gaussian of scale 1."""
    return NormalLikelihood(data, scale=1.0) if data.levels is None else CategoricalLikelihood(data)


def point_autoencoder(data: DataSpec, dim: int = 4, quantizer: Quantizer | None = None) -> Autoencoder:
    """An autoencoder of such parts, with a codebook of 8 entries unless another quantizer is given."""
    quantizer = quantizer or VectorQuantizer(dim, codebook_size=8, init="random")
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.normal_()
    decoder = PointDecoder(quantizer.dim, plain_likelihood(data))
    return Autoencoder(data, PointEncoder(data, quantizer.channels), quantizer, decoder)


def random_data(data: DataSpec, n: int, seed: int = 0) -> Tensor:
    """Noise x ``(n, channels, *axes)``, a function of the seed."""
    generator = torch.Generator().manual_seed(seed)
    if data.levels is None:
        return torch.rand(n, *data.shape, generator=generator) * 2 - 1
    return torch.randint(data.levels, (n, *data.shape), generator=generator)


def random_conditions(data: DataSpec, n: int, seed: int = 0) -> dict[str, Tensor]:
    """A value of each of the data's conditions for n examples, "none" among the labels."""
    generator = torch.Generator().manual_seed(seed)
    conditions = {}
    for condition in data.conditions:
        steps = (condition.steps(data.axes[0]),) if condition.per_step else ()
        if condition.text:
            conditions[condition.name] = random_texts(condition, n, generator)
        elif condition.real:
            conditions[condition.name] = torch.randn(n, *steps, condition.size, generator=generator)
        else:
            conditions[condition.name] = torch.randint(condition.size + 1, (n, *steps), generator=generator)
    return conditions


def random_texts(condition: Condition, n: int, generator: torch.Generator) -> Tensor:
    """Letters and spaces ``(n, size)``, as many as may be, and an empty text at the end where there are several."""
    letters = torch.randint(97, 123, (n, condition.size), generator=generator, dtype=torch.uint8)
    spaces = torch.rand(n, condition.size, generator=generator) < 0.2
    texts = letters.masked_fill(spaces, 32)
    return texts * (torch.arange(n) + 1 < max(n, 2)).view(-1, 1)
