"""EnCodec's layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil, isfinite, log2, nextafter, prod
from typing import Any, final

import torch

from toolkit import DataSpec, ToolkitError
from toolkit.adopting.written import number, numbers, one_of, only, shown, truth
from toolkit.config import RunConfig
from toolkit.family import Entry, Family, Shapes
from toolkit_audio.families.codec import check_sound, defaults_of, options_of, part_words, sound, sound_words, wanted
from toolkit_audio.families.encodec_names import AUTHORS, entries, sizes
from toolkit_audio.seanet_decoder import SeanetDecoder
from toolkit_audio.seanet_encoder import SeanetEncoder

PADDING = {"reflect": "reflect", "constant": "zeros"}
NORM = {"weight_norm": "weight", "time_group_norm": "group"}
STRIDES = [8, 5, 4, 2]
MOST = 1 << 10
"""Codebooks at most."""


@final
class EncodecFamily(Family):
    """EnCodec (Défossez et al. 2022) as transformers saves it, ``EncodecModel``, and as its authors do.

    Its depth is that of the highest bandwidth. Sound in codes is padded to whole ones by its last sample again, where
    theirs go on with zeros or backwards. The 48 kHz model takes every second of sound at a loudness of 1, and gives it
    back at its own, which is beside the codes: write ``normalize=false`` into its settings and scale the sound. Its
    two channels are more than datasets of sound files have, so that it is for tensors alone.
    """

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        seen = sizes(shapes)
        only(written, "the loudness beside the codes has no place in a run: scale sounds to it first", normalize=False)
        only(written, "the first convolution is of 7 samples here", kernel_size=7)
        only(written, "a residual unit is half as wide inside", compress=2)
        only(written, "a transposed convolution is cut at its right end", trim_right_ratio=1.0)
        hidden = number(written, "hidden_size", seen.get("hidden_size", 128))
        if written.get("codebook_dim") is not None:
            only(written, f"entries have hidden_size={hidden} numbers", codebook_dim=hidden)
        channels = number(written, "audio_channels", seen.get("audio_channels", 1), 2)
        rate = number(written, "sampling_rate", 48000 if channels == 2 else 24000)
        ratios = numbers(written, "upsampling_ratios", seen.get("upsampling_ratios", STRIDES), MOST, shortest=1)
        size = number(written, "codebook_size", seen.get("codebook_size", 1024))
        layers = number(written, "num_residual_layers", seen.get("num_residual_layers", 1), 16)
        norm = one_of(written, "norm_type", seen.get("norm_type", "weight_norm"), [*NORM])
        unit = _bits_per_second(rate, ratios, size)
        depth = _depth(written, unit) or seen.get("depth", 0) or max(1, int(24000 // unit))
        return {
            "model_type": "encodec",
            "architectures": ["EncodecModel"],
            "sampling_rate": rate,
            "audio_channels": channels,
            "normalize": False,
            "hidden_size": hidden,
            "num_filters": number(written, "num_filters", seen.get("num_filters", 32), 1 << 14),
            "num_residual_layers": layers,
            "upsampling_ratios": ratios,
            "norm_type": norm,
            "last_kernel_size": number(written, "last_kernel_size", seen.get("last_kernel_size", 7), MOST),
            "residual_kernel_size": number(written, "residual_kernel_size", seen.get("residual_kernel_size", 3), MOST),
            "dilation_growth_rate": number(written, "dilation_growth_rate", 2, 16) if layers > 1 else 2,
            "use_causal_conv": truth(written, "use_causal_conv", norm == "weight_norm"),
            "pad_mode": one_of(written, "pad_mode", "reflect", [*PADDING]),
            "num_lstm_layers": number(written, "num_lstm_layers", seen.get("num_lstm_layers", 2), 16),
            "use_conv_shortcut": truth(written, "use_conv_shortcut", seen.get("use_conv_shortcut", True)),
            "codebook_size": size,
            "target_bandwidths": [_bandwidth(some, unit) for some in _depths(depth)],
        }

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return sound(settings["audio_channels"], settings["sampling_rate"], prod(settings["upsampling_ratios"]))

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        encoder, decoder = _options(settings)
        return [
            *sound_words(self.data(settings)),
            f"dim={settings['hidden_size']}",
            *part_words("encoder", "audio_seanet", encoder),
            "quantizer=residual_ema",
            f"quantizer.depth={_depth_of(settings)}",
            f"quantizer.inner.codebook_size={settings['codebook_size']}",
            *part_words("decoder", "audio_seanet", decoder),
        ]

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        return entries(self.data(settings), settings["hidden_size"], *_options(settings), _depth_of(settings))

    def skipped(self, name: str) -> bool:
        return False

    def renamed(self, name: str) -> str:
        """The authors' files, and earlier ones of transformers, call what is the same otherwise."""
        for pattern, instead in AUTHORS:
            name = re.sub(pattern, instead, name)
        return name

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        rate = check_sound(config, data)
        encoder = options_of("encoder", config.encoder, "audio_seanet", defaults_of(SeanetEncoder))
        decoder = options_of("decoder", config.decoder, "audio_seanet", defaults_of(SeanetDecoder))
        wanted("decoder", decoder, {**encoder, "strides": encoder["strides"][::-1]})
        if encoder["norm"] not in NORM.values() or not encoder["lstm_layers"]:
            raise ToolkitError("encoder.norm=none or encoder.lstm_layers=0: the family has a norm, and an LSTM")
        quantizer = options_of("quantizer", config.quantizer, "residual", {"depth": 4, "inner": "vq"})
        inner = options_of("quantizer.inner", quantizer["inner"], "ema", {"codebook_size": 512, "normalize": False})
        wanted("quantizer.inner", inner, {"normalize": False})
        ratios, size = list(decoder["strides"]), inner["codebook_size"]
        unit = _bits_per_second(rate, ratios, size)
        return {
            "model_type": "encodec",
            "architectures": ["EncodecModel"],
            "sampling_rate": rate,
            "audio_channels": data.channels,
            "normalize": False,
            "hidden_size": config.dim,
            "num_filters": encoder["hidden"],
            "num_residual_layers": len(encoder["dilations"]),
            "upsampling_ratios": ratios,
            "norm_type": _key(NORM, encoder["norm"]),
            "last_kernel_size": encoder["last_kernel"],
            "residual_kernel_size": encoder["residual_kernel"],
            "dilation_growth_rate": _growth(encoder["dilations"]),
            "use_causal_conv": encoder["causal"],
            "pad_mode": _key(PADDING, encoder["padding"]),
            "num_lstm_layers": encoder["lstm_layers"],
            "use_conv_shortcut": encoder["shortcut"],
            "codebook_size": size,
            "target_bandwidths": [_bandwidth(some, unit) for some in _depths(quantizer["depth"])],
        }


def _options(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of our encoder and decoder."""
    growth, layers = settings["dilation_growth_rate"], settings["num_residual_layers"]
    common = {
        "hidden": settings["num_filters"],
        "causal": settings["use_causal_conv"],
        "dilations": tuple(growth**number for number in range(layers)),
        "residual_kernel": settings["residual_kernel_size"],
        "shortcut": settings["use_conv_shortcut"],
        "lstm_layers": settings["num_lstm_layers"],
        "last_kernel": settings["last_kernel_size"],
        "padding": PADDING[settings["pad_mode"]],
        "norm": NORM[settings["norm_type"]],
    }
    ratios = tuple(settings["upsampling_ratios"])
    return {**common, "strides": ratios[::-1]}, {**common, "strides": ratios}


def _growth(dilations: tuple[int, ...]) -> int:
    """The base of which dilations are the powers; ToolkitError where they are none."""
    growth = dilations[1] if len(dilations) > 1 else 2
    if not dilations or dilations != tuple(growth**number for number in range(len(dilations))):
        raise ToolkitError(f"encoder.dilations={list(dilations)}: the family's are 1, b, b^2, … of some b")
    return growth


def _key(table: Mapping[str, str], value: str) -> str:
    return next(theirs for theirs, ours in table.items() if ours == value)


def _bits_per_second(rate: int, ratios: list[int], codebook_size: int) -> int:
    """Of one codebook, as the family rounds them."""
    return ceil(rate / prod(ratios)) * max(1, ceil(log2(codebook_size)))


def _depth(written: Mapping[str, Any], unit: int) -> int:
    """Codebooks at the highest bandwidth, of ``unit`` bits per second each; 0 where none is written."""
    bandwidths = written.get("target_bandwidths")
    if bandwidths is None:
        return 0
    last = bandwidths[-1] if isinstance(bandwidths, list | tuple) and bandwidths else None
    if isinstance(last, bool) or not isinstance(last, int | float) or not isfinite(last):
        raise ToolkitError(f"target_bandwidths={shown(bandwidths)}: expected a list of kbit/s")
    depth = int(1000 * last // unit)
    if not 1 <= depth <= MOST:
        raise ToolkitError(f"target_bandwidths={shown(bandwidths)}: {depth} codebooks of {unit} bit/s each")
    return depth


def _depth_of(settings: Mapping[str, Any]) -> int:
    unit = _bits_per_second(settings["sampling_rate"], settings["upsampling_ratios"], settings["codebook_size"])
    return _depth(settings, unit)


def _depths(most: int) -> list[int]:
    """2, 4, 8, … and ``most``, at which a model can be used."""
    return [*(1 << power for power in range(1, most.bit_length()) if 1 << power < most), most]


def _bandwidth(depth: int, unit: int) -> float:
    """In kbit/s, and never so rounded that a codebook is lost."""
    bandwidth = depth * unit / 1000
    return bandwidth if int(1000 * bandwidth // unit) == depth else nextafter(bandwidth, torch.inf)
