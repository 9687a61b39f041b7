"""DAC's layouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from toolkit import DataSpec, ToolkitError
from toolkit.adopting.written import fraction, number, numbers, only
from toolkit.config import RunConfig
from toolkit.family import Entry, Family, Shapes
from toolkit_audio.families.codec import RATES
from toolkit_audio.families.dac_names import DESCRIPT, TRANSFORMERS, sizes
from toolkit_audio.families.dac_sizes import Sizes, sizes_of

WIDEST = 1 << 14
"""Channels at most."""
MOST = 1 << 10
"""Codebooks at most."""


@final
class DacFamily(Family):
    """DAC (Kumar et al. 2023) at 16, 24 and 44.1 kHz as transformers saves it, ``DacModel``.

    Weight norm is folded there and trained here, so weights come back equal up to rounding. With odd strides, as at 16
    and 24 kHz, the published decoder ends a few samples early. Ours makes whole codes, and so the last few hundredths
    of a second are others.
    """

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        seen = Sizes(**sizes(TRANSFORMERS, shapes))
        strides = numbers(written, "downsampling_ratios", seen.strides, MOST, shortest=1)
        hidden = number(written, "encoder_hidden_size", seen.hidden, WIDEST)
        made = {
            "model_type": "dac",
            "architectures": ["DacModel"],
            "encoder_hidden_size": hidden,
            "downsampling_ratios": strides,
            "decoder_hidden_size": number(written, "decoder_hidden_size", seen.decoder_hidden, WIDEST),
            "n_codebooks": number(written, "n_codebooks", seen.depth, MOST),
            "codebook_size": number(written, "codebook_size", seen.codebook_size),
            "codebook_dim": number(written, "codebook_dim", seen.codebook_dim, WIDEST),
            "quantizer_dropout": fraction(written, "quantizer_dropout", 0.0),
            "sampling_rate": number(written, "sampling_rate", 16000, RATES),
        }
        _sizes(made).decoder()
        return made

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return _sizes(settings).data()

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        return _sizes(settings).words()

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        return _sizes(settings).entries(TRANSFORMERS)

    def skipped(self, name: str) -> bool:
        return False

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        own = sizes_of(config, data)
        if own.dim != own.hidden << len(own.strides):
            raise ToolkitError(
                f"dim={own.dim}: the family's is that of the last stride, {own.hidden << len(own.strides)}"
            )
        return {
            "model_type": "dac",
            "architectures": ["DacModel"],
            "encoder_hidden_size": own.hidden,
            "downsampling_ratios": list(own.strides),
            "decoder_hidden_size": own.decoder_hidden,
            "n_codebooks": own.depth,
            "codebook_size": own.codebook_size,
            "codebook_dim": own.codebook_dim,
            "quantizer_dropout": own.dropout,
            "sampling_rate": own.rate,
        }


def _sizes(settings: Mapping[str, Any]) -> Sizes:
    strides = tuple(settings["downsampling_ratios"])
    return Sizes(
        settings["encoder_hidden_size"],
        strides,
        settings["decoder_hidden_size"],
        settings["encoder_hidden_size"] << len(strides),
        settings["n_codebooks"],
        settings["codebook_size"],
        settings["codebook_dim"],
        settings["quantizer_dropout"],
        settings["sampling_rate"],
    )


@final
class DescriptFamily(Family):
    """DAC as its authors save it: networks and codebooks in one file with their settings, with weight norm.

    Of the maps around a codebook the weights are here as they are, without a norm of their own.
    """

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        own, seen = _of_the_model(written), Sizes(**sizes(DESCRIPT, shapes))
        strides = numbers(own, "encoder_rates", seen.strides, MOST, shortest=1)
        only(own, "the decoder's strides are the encoder's, the last one first", decoder_rates=strides[::-1])
        made = {
            "encoder_dim": number(own, "encoder_dim", seen.hidden, WIDEST),
            "encoder_rates": strides,
            "latent_dim": number({**own, "latent_dim": own.get("latent_dim") or seen.dim}, "latent_dim", 1, 1 << 20),
            "decoder_dim": number(own, "decoder_dim", seen.decoder_hidden, WIDEST),
            "decoder_rates": strides[::-1],
            "n_codebooks": number(own, "n_codebooks", seen.depth, MOST),
            "codebook_size": number(own, "codebook_size", seen.codebook_size),
            "codebook_dim": number(own, "codebook_dim", seen.codebook_dim, WIDEST),
            "quantizer_dropout": fraction(own, "quantizer_dropout", 0.0),
            "sample_rate": number(own, "sample_rate", 44100, RATES),
        }
        _descript_sizes(made).decoder()
        return made

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return _descript_sizes(settings).data()

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        return _descript_sizes(settings).words()

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        return _descript_sizes(settings).entries(DESCRIPT)

    def skipped(self, name: str) -> bool:
        return False

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        own = sizes_of(config, data)
        return {
            "encoder_dim": own.hidden,
            "encoder_rates": list(own.strides),
            "latent_dim": own.dim,
            "decoder_dim": own.decoder_hidden,
            "decoder_rates": list(own.strides[::-1]),
            "n_codebooks": own.depth,
            "codebook_size": own.codebook_size,
            "codebook_dim": own.codebook_dim,
            "quantizer_dropout": own.dropout,
            "sample_rate": own.rate,
        }


def _of_the_model(written: Mapping[str, Any]) -> Mapping[str, Any]:
    """The authors' settings lie in ``kwargs`` of ``metadata``."""
    for key in ("metadata", "kwargs"):
        below = written.get(key)
        written = below if isinstance(below, Mapping) else written
    return written


def _descript_sizes(settings: Mapping[str, Any]) -> Sizes:
    return Sizes(
        settings["encoder_dim"],
        tuple(settings["encoder_rates"]),
        settings["decoder_dim"],
        settings["latent_dim"],
        settings["n_codebooks"],
        settings["codebook_size"],
        settings["codebook_dim"],
        settings["quantizer_dropout"],
        settings["sample_rate"],
    )
