"""SNAC's layout."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import lcm, prod
from typing import Any, final

import torch

from toolkit import DataSpec, ToolkitError
from toolkit.adopting.forms import only_here
from toolkit.adopting.written import number, numbers, only, shown, truth
from toolkit.config import RunConfig
from toolkit.family import Entry, Family, Shapes
from toolkit_audio.families.codec import (
    RATES,
    check_sound,
    defaults_of,
    likelihood_of,
    options_of,
    part_words,
    sound,
    sound_words,
    wanted,
)
from toolkit_audio.families.dac_names import entries
from toolkit_audio.families.dac_sizes import PROJECTED, TABLE
from toolkit_audio.families.snac_names import SNAC, rotations, seen
from toolkit_audio.snac_decoder import SNACDecoder
from toolkit_audio.snac_encoder import SNACEncoder
from toolkit_audio.window_attention import HEAD

WIDEST = 1 << 14
"""Channels at most."""
LONGEST = 1 << 10
"""A stride, or a window, at most."""
DEFAULTS: Mapping[str, Any] = {
    "sampling_rate": 44100,
    "encoder_dim": 64,
    "encoder_rates": [3, 3, 7, 7],
    "decoder_dim": 1536,
    "attn_window_size": 32,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": [8, 4, 2, 1],
    "noise": True,
    "depthwise": True,
}
"""The authors' own, where neither settings nor shapes say."""
STRIDES: Mapping[str, Any] = {"scales": None, "shared": False, "upsampling": "nearest", "convolutions": 0}
"""Options of ``multiscale`` that make it one of strides."""
MULTISCALE: Mapping[str, Any] = {
    "divisors": (8, 4, 2),
    "scales": None,
    "shared": True,
    "upsampling": "cubic",
    "convolutions": 4,
    "inner": "vq",
}
"""Its defaults."""


@final
class SnacFamily(Family):
    """SNAC (Siuzdak et al. 2024) at 24, 32 and 44.1 kHz as its authors save it, ``config.json`` beside the weights.

    Codes are those of ``multiscale``, all of a window of about a second, one codebook after the other: a run of them
    takes windows of that length. The published decoder draws noise wherever it is; here that is at its mean, 0, but in
    training. The maps around its codebooks come back as equal maps, without their old norms.
    """

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        default = {**DEFAULTS, **seen(shapes)}
        rates = numbers(written, "encoder_rates", default["encoder_rates"], LONGEST, shortest=1)
        hidden = number(written, "encoder_dim", default["encoder_dim"], WIDEST)
        dim, decoder = hidden << len(rates), number(written, "decoder_dim", default["decoder_dim"], WIDEST)
        only(written, "the decoder's strides are the encoder's, the last one first", decoder_rates=rates[::-1])
        if written.get("latent_dim") is not None:
            only(written, "the latents are what the last stride gives", latent_dim=dim)
        if decoder % 2 ** len(rates):
            raise ToolkitError(f"decoder_dim={decoder}: it cannot be halved {len(rates)} times")
        only({**default, **written}, "residual units are of each channel by itself", depthwise=True)
        window = written.get("attn_window_size", default["attn_window_size"])
        if window is not None:
            number({"attn_window_size": window}, "attn_window_size", most=LONGEST)
            if dim % HEAD or decoder % HEAD:
                raise ToolkitError(f"attn_window_size={window}: {dim} and {decoder} channels are not heads of {HEAD}")
        return {
            "sampling_rate": number(written, "sampling_rate", default["sampling_rate"], RATES),
            "encoder_dim": hidden,
            "encoder_rates": rates,
            "latent_dim": dim,
            "decoder_dim": decoder,
            "decoder_rates": rates[::-1],
            "attn_window_size": window,
            "codebook_size": number(written, "codebook_size", default["codebook_size"]),
            "codebook_dim": number(written, "codebook_dim", default["codebook_dim"], WIDEST),
            "vq_strides": _strides(written, default["vq_strides"]),
            "noise": truth(written, "noise", default["noise"]),
            "depthwise": True,
        }

    def remarks(self, written: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        said = [f"codes are of {self.data(settings).axes[0]} samples at a time; longer sound is no whole window"]
        missing = [key for key in ("sampling_rate", "vq_strides") if key not in written]
        return [*said, *(f"{key}={settings[key]}, as nothing says otherwise" for key in missing)]

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        whole = lcm(settings["vq_strides"][0], settings["attn_window_size"] or 1)
        return sound(1, settings["sampling_rate"], prod(settings["encoder_rates"]) * whole)

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        data, encoder, decoder = self.data(settings), *_options(settings)
        quantizer = {
            "grid": [data.axes[0] // prod(settings["encoder_rates"])],
            "divisors": settings["vq_strides"][:-1],
            **{key: value for key, value in STRIDES.items() if value is not None},
            "inner.name": "projected",
            "inner.codebook_dim": settings["codebook_dim"],
            "inner.inner.name": "vq",
            "inner.inner.codebook_size": settings["codebook_size"],
            "inner.inner.compare": "direction",
        }
        return [
            *sound_words(data),
            f"dim={settings['latent_dim']}",
            *part_words("encoder", "audio_snac", encoder),
            *part_words("quantizer", "multiscale", quantizer),
            *part_words("decoder", "audio_snac", decoder),
        ]

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        data, dim = self.data(settings), settings["latent_dim"]
        likelihood = likelihood_of(data)
        encoder_options, decoder_options = _options(settings)
        with torch.device("meta"):
            encoder = SNACEncoder(data, dim, **encoder_options)
            decoder = SNACDecoder(dim, (), likelihood, **decoder_options)
        own = [f"decoder.likelihood.{name}" for name in likelihood.state_dict()]
        names = [f"encoder.{name}" for name in encoder.state_dict()]
        names += [name for key in decoder.state_dict() if (name := f"decoder.{key}") not in own]
        strides, sizes = settings["vq_strides"], settings["codebook_size"]
        return [
            *entries(SNAC, names, len(settings["encoder_rates"]), len(strides), sizes),
            *rotations(settings),
            Entry([], own, only_here(*likelihood.state_dict().values())),
        ]

    def skipped(self, name: str) -> bool:
        return False

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        rate = check_sound(config, data)
        if data.channels != 1:
            raise ToolkitError(
                f"dataset={config.dataset.name}: sound of {data.channels} channels: the family's has one"
            )
        encoder = options_of("encoder", config.encoder, "audio_snac", defaults_of(SNACEncoder))
        decoder = options_of("decoder", config.decoder, "audio_snac", defaults_of(SNACDecoder))
        wanted("decoder", decoder, {"strides": encoder["strides"][::-1], "window": encoder["window"], "tanh": True})
        scales = options_of("quantizer", config.quantizer, "multiscale", MULTISCALE)
        wanted("quantizer", scales, STRIDES)
        projected = options_of("quantizer.inner", scales["inner"], "projected", PROJECTED)
        wanted("quantizer.inner", projected, {"bias": True})
        table = options_of("quantizer.inner.inner", projected["inner"], "vq", TABLE)
        wanted("quantizer.inner.inner", table, {"normalize": False, "compare": "direction"})
        return {
            "sampling_rate": rate,
            "encoder_dim": config.dim >> len(encoder["strides"]),
            "encoder_rates": list(encoder["strides"]),
            "latent_dim": config.dim,
            "decoder_dim": decoder["hidden"],
            "decoder_rates": list(decoder["strides"]),
            "attn_window_size": encoder["window"],
            "codebook_size": table["codebook_size"],
            "codebook_dim": projected["codebook_dim"],
            "vq_strides": [*scales["divisors"], 1],
            "noise": decoder["noise"],
            "depthwise": True,
        }


def _strides(written: Mapping[str, Any], default: list[int]) -> list[int]:
    """Of the codebooks, from coarse to fine: each a divisor of the first, as a window is one of whole codes."""
    strides = numbers(written, "vq_strides", default, LONGEST, shortest=1)
    falling = all(coarse > fine for coarse, fine in pairwise(strides))
    if strides[-1] != 1 or not falling or any(strides[0] % stride for stride in strides):
        raise ToolkitError(f"vq_strides={shown(strides)}: expected divisors of the first, ever smaller, the last one 1")
    return strides


def _options(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of our encoder and decoder."""
    window, rates = settings["attn_window_size"], tuple(settings["encoder_rates"])
    return (
        {"strides": rates, "window": window},
        {
            "hidden": settings["decoder_dim"],
            "strides": rates[::-1],
            "window": window,
            "noise": settings["noise"],
            "tanh": True,
        },
    )
