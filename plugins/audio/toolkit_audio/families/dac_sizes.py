"""What DAC's layouts have in common: the sizes of its networks and codebooks, as words and out of a run."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from toolkit import DataSpec, ToolkitError
from toolkit.adopting.forms import only_here
from toolkit.config import RunConfig
from toolkit.family import Entry
from toolkit_audio.dac_decoder import DACDecoder
from toolkit_audio.dac_encoder import DACEncoder
from toolkit_audio.families.codec import (
    check_sound,
    defaults_of,
    likelihood_of,
    options_of,
    part_words,
    sound,
    sound_words,
    wanted,
)
from toolkit_audio.families.dac_names import Layout, entries

RESIDUAL = {"depth": 4, "dropout": 0.0, "inner": "vq"}
PROJECTED = {"codebook_dim": 8, "bias": True, "inner": "vq"}
TABLE = {"codebook_size": 512, "normalize": False, "compare": "distance"}
"""Defaults of the nested quantizers."""


@dataclass(frozen=True)
class Sizes:
    """Of a whole model; those of the published ones at 44.1 kHz."""

    hidden: int = 64
    """Of the encoder."""
    strides: tuple[int, ...] = (2, 4, 8, 8)
    """Of the encoder."""
    decoder_hidden: int = 1536
    dim: int = 1024
    depth: int = 9
    codebook_size: int = 1024
    codebook_dim: int = 8
    dropout: float = 0.5
    rate: int = 44100

    def data(self) -> DataSpec:
        """A second of mono."""
        return sound(1, self.rate, prod(self.strides))

    def encoder(self) -> dict[str, Any]:
        """Options of our encoder."""
        return {"hidden": self.hidden, "strides": self.strides}

    def decoder(self) -> dict[str, Any]:
        """Options of our decoder. ToolkitError where its channels cannot be halved as often as there are strides."""
        if self.decoder_hidden % 2 ** len(self.strides):
            often = len(self.strides)
            raise ToolkitError(f"{self.decoder_hidden} channels of the decoder cannot be halved {often} times")
        return {"hidden": self.decoder_hidden, "strides": self.strides[::-1], "tanh": True}

    def words(self) -> list[str]:
        """What composes it."""
        return [
            *sound_words(self.data()),
            f"dim={self.dim}",
            *part_words("encoder", "audio_dac", self.encoder()),
            "quantizer=residual_cosine",
            f"quantizer.depth={self.depth}",
            f"quantizer.dropout={self.dropout}",
            f"quantizer.inner.codebook_dim={self.codebook_dim}",
            f"quantizer.inner.inner.codebook_size={self.codebook_size}",
            *("quantizer.inner.inner.normalize=false", "quantizer.inner.inner.compare=direction"),
            *part_words("decoder", "audio_dac", self.decoder()),
        ]

    def entries(self, layout: Layout) -> list[Entry]:
        """Every tensor."""
        likelihood = likelihood_of(self.data())
        with torch.device("meta"):
            encoder = DACEncoder(self.data(), self.dim, **self.encoder())
            decoder = DACDecoder(self.dim, (), likelihood, **self.decoder())
        own = [f"decoder.likelihood.{name}" for name in likelihood.state_dict()]
        names = [f"encoder.{name}" for name in encoder.state_dict()]
        names += [name for key in decoder.state_dict() if (name := f"decoder.{key}") not in own]
        made = entries(layout, names, len(self.strides), self.depth, self.codebook_size)
        return [*made, Entry([], own, only_here(*likelihood.state_dict().values()))]


def sizes_of(config: RunConfig, data: DataSpec) -> Sizes:
    """Of a run; ToolkitError, naming the option, where its parts are not DAC's."""
    rate = check_sound(config, data)
    if data.channels != 1:
        raise ToolkitError(f"dataset={config.dataset.name}: the family's data have one channel, these {data.channels}")
    encoder = options_of("encoder", config.encoder, "audio_dac", defaults_of(DACEncoder))
    decoder = options_of("decoder", config.decoder, "audio_dac", defaults_of(DACDecoder))
    wanted("decoder", decoder, {"strides": encoder["strides"][::-1], "tanh": True})
    residual = options_of("quantizer", config.quantizer, "residual", RESIDUAL)
    projected = options_of("quantizer.inner", residual["inner"], "projected", PROJECTED)
    wanted("quantizer.inner", projected, {"bias": True})
    table = options_of("quantizer.inner.inner", projected["inner"], "vq", TABLE)
    wanted("quantizer.inner.inner", table, {"normalize": False, "compare": "direction"})
    return Sizes(
        encoder["hidden"],
        encoder["strides"],
        decoder["hidden"],
        config.dim,
        residual["depth"],
        table["codebook_size"],
        projected["codebook_dim"],
        float(residual["dropout"]),
        rate,
    )
