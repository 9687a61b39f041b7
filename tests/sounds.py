"""Examples of unequal lengths, and small autoencoders of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.decoders.conv import ConvDecoder
from toolkit.decoders.wavenet import WaveNetDecoder
from toolkit.encoders.conv import ConvEncoder
from toolkit.lengths.mask import MASK, together
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.likelihoods.logistic import LogisticLikelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizer import Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.fsq import FSQQuantizer
from toolkit.quantizers.projected import ProjectedQuantizer
from toolkit.quantizers.residual import ResidualQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.spec import Condition, DataSpec

STRIDE, LONGEST, DIM = 4, 32, 4
DATA = DataSpec(1, (LONGEST,), 16, varying=(True,), variance=0.3, conditions=(Condition("pitch", 3, per_step=True),))


class Sounds:
    """Example i has ``4 (1 + 3 i mod 8)`` positions, and a label for each four of them."""

    def __init__(self, size: int = 20) -> None:
        self.sizes = {"train": size, "val": 7, "test": 0}

    def size(self, split: str) -> int:
        return self.sizes[split]

    def lengths(self, split: str) -> list[int]:
        return [STRIDE * (1 + 3 * index % 8) for index in range(self.sizes[split])]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        length = self.lengths(split)[index]
        drawn = torch.Generator().manual_seed(index)
        pitch = torch.randint(3, (length // STRIDE,), generator=drawn)
        return {"x": torch.randint(16, (1, length), generator=drawn), "pitch": pitch}


QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "ema": lambda: EMAQuantizer(DIM, codebook_size=6),
    "vq": lambda: VectorQuantizer(DIM, codebook_size=6, entropy=0.1),
    "residual": lambda: ResidualQuantizer(DIM, depth=2, inner=lambda dim: EMAQuantizer(dim, codebook_size=6)),
    "projected": lambda: ProjectedQuantizer(DIM, inner=lambda dim: VectorQuantizer(dim, codebook_size=6)),
    "fsq": lambda: FSQQuantizer(levels=(3, 3)),
    "categorical": lambda: CategoricalQuantizer(DIM, codebook_size=6),
}


def model(quantizer: str = "ema", likelihood: str = "categorical", begun: bool = True) -> Autoencoder:
    """In eval mode, with a codebook that has begun at all examples, unless that is not wanted."""
    return deepcopy(_built(quantizer, likelihood, begun))


@cache
def _built(quantizer: str, likelihood: str, begun: bool) -> Autoencoder:
    torch.manual_seed(0)
    bottleneck = QUANTIZERS[quantizer]()
    likelihoods = {"categorical": CategoricalLikelihood, "logistic": LogisticLikelihood, "normal": NormalLikelihood}
    encoder = ConvEncoder(DATA, bottleneck.channels, hidden=8, residual_blocks=1)
    decoder: ConvDecoder | WaveNetDecoder
    if likelihood == "wavenet":
        grid = (LONGEST // STRIDE,)
        decoder = WaveNetDecoder(DATA, bottleneck.dim, grid, DATA.conditions, hidden=8, layers=3, context=8)
    else:
        made = likelihoods[likelihood](DATA)
        decoder = ConvDecoder(bottleneck.dim, (8,), DATA.conditions, made, hidden=8, residual_blocks=1)
    made_of = Autoencoder(DATA, encoder, bottleneck, decoder, decoder_conditions=("pitch",))
    with torch.no_grad():
        for parameter in made_of.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if begun:
            rows = together([Sounds().example("train", index, None) for index in range(20)])
            made_of.train().masked(rows[MASK]).quantize(rows["x"])
    return made_of.eval()
