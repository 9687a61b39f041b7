"""Mimi's layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil, isfinite, prod
from typing import Any, final

from toolkit import DataSpec, ToolkitError
from toolkit.adopting.written import number, numbers, only, shown
from toolkit.config import RunConfig
from toolkit.family import Entry, Family, Shapes
from toolkit_audio.families.codec import check_sound, defaults_of, options_of, part_words, sound, sound_words, wanted
from toolkit_audio.families.mimi_names import IN_MEMORY, entries, sizes
from toolkit_audio.mimi_decoder import MimiDecoder
from toolkit_audio.mimi_encoder import MimiEncoder

RATIOS = [8, 6, 5, 4]
LAYERS = 64
"""Most residual units, and layers of a transformer."""
MOST = 1 << 10
"""Codebooks at most."""
FIXED: Mapping[str, Any] = {
    "model_type": "mimi",
    "kernel_size": 7,
    "last_kernel_size": 3,
    "residual_kernel_size": 3,
    "dilation_growth_rate": 2,
    "use_causal_conv": True,
    "pad_mode": "constant",
    "compress": 2,
    "trim_right_ratio": 1.0,
    "use_conv_shortcut": False,
    "hidden_act": "gelu",
    "norm_eps": 1e-5,
    "attention_bias": False,
}
"""Settings that are the same in all models."""
ROTARY = 10000.0


@final
class MimiFamily(Family):
    """Mimi (Défossez et al. 2024) as transformers saves it, ``MimiModel``.

    Sound in codes is padded to whole ones by its last sample again, where theirs goes on with zeros in every layer.
    """

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        seen = sizes(shapes)
        only(written, "audio_mimi has no other", **FIXED)
        only(written, "sound of one channel is known", audio_channels=1)
        _check_rotary(written)
        hidden = number(written, "hidden_size", seen.get("hidden_size", 512))
        heads = number(written, "num_attention_heads", 8, MOST)
        if hidden % (2 * heads):
            raise ToolkitError(f"num_attention_heads={heads}: hidden_size={hidden} is no multiple of twice as many")
        only(written, "heads share no keys", num_key_value_heads=heads)
        if written.get("head_dim") is not None:
            only(written, f"hidden_size={hidden} is divided into {heads} heads", head_dim=hidden // heads)
        only(written, "each channel is upsampled by itself", upsample_groups=hidden)
        entry = number(written, "codebook_dim", seen.get("codebook_dim", 256))
        only(written, "maps lead to codebook_dim channels", vector_quantization_hidden_dimension=entry)
        rate = number(written, "sampling_rate", 24000)
        ratios = numbers(written, "upsampling_ratios", seen.get("upsampling_ratios", RATIOS), MOST, shortest=1)
        stride = seen.get("latent_stride") or _latent_stride(written, rate, ratios)
        depth = number(written, "num_quantizers", seen.get("num_quantizers", 32), MOST)
        semantic = number(written, "num_semantic_quantizers", seen.get("num_semantic_quantizers", 1), MOST)
        if semantic >= depth:
            raise ToolkitError(f"num_semantic_quantizers={semantic}: fewer than num_quantizers={depth}")
        return {
            **FIXED,
            **_architecture(hidden, heads, entry, rate / (prod(ratios) * stride)),
            "sampling_rate": rate,
            "num_filters": number(written, "num_filters", seen.get("num_filters", 64), 1 << 14),
            "num_residual_layers": number(written, "num_residual_layers", seen.get("num_residual_layers", 1), LAYERS),
            "upsampling_ratios": ratios,
            "codebook_size": number(written, "codebook_size", seen.get("codebook_size", 2048)),
            "num_quantizers": depth,
            "num_semantic_quantizers": semantic,
            "num_hidden_layers": number(written, "num_hidden_layers", seen.get("num_hidden_layers", 8), LAYERS),
            "intermediate_size": number(written, "intermediate_size", seen.get("intermediate_size", 2048)),
            "sliding_window": number(written, "sliding_window", 250),
        }

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return sound(1, settings["sampling_rate"], prod(settings["upsampling_ratios"]) * _stride_of(settings))

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        encoder, decoder = _options(settings)
        return [
            *sound_words(self.data(settings)),
            f"dim={settings['hidden_size']}",
            *part_words("encoder", "audio_mimi", encoder),
            "quantizer=split",
            *(word for half, depth in _depths(settings).items() for word in _quantizer_words(settings, half, depth)),
            *part_words("decoder", "audio_mimi", decoder),
        ]

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        data, dim = self.data(settings), settings["hidden_size"]
        return entries(data, dim, *_options(settings), _depths(settings), _has_maps(settings))

    def skipped(self, name: str) -> bool:
        return False

    def renamed(self, name: str) -> str:
        """A model of transformers' latest has other names than the files that it saves."""
        for pattern, instead in IN_MEMORY:
            name = re.sub(pattern, instead, name)
        return name

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        rate = check_sound(config, data)
        if data.channels != 1:
            raise ToolkitError(
                f"dataset={config.dataset.name}: sound of {data.channels} channels: the family's has one"
            )
        encoder = options_of("encoder", config.encoder, "audio_mimi", defaults_of(MimiEncoder))
        decoder = options_of("decoder", config.decoder, "audio_mimi", defaults_of(MimiDecoder))
        mirrored = {key: encoder[key] for key in ("hidden", "dilations", "layers", "heads", "window", "mlp")}
        wanted("decoder", decoder, {**mirrored, "strides": encoder["strides"][::-1], "up": encoder["down"]})
        wanted("encoder", encoder, {"dilations": _dilations(len(encoder["dilations"]))})
        quantizer = options_of("quantizer", config.quantizer, "split", {"first": "vq", "second": "residual"})
        (entry, size, semantic), (other, other_size, acoustic) = (
            _half_of(f"quantizer.{half}", quantizer[half], config.dim) for half in ("first", "second")
        )
        if (other, other_size) != (entry, size):
            raise ToolkitError("quantizer.second: the family's codebooks are of the size of quantizer.first's")
        ratios = list(decoder["strides"])
        return {
            **FIXED,
            **_architecture(config.dim, encoder["heads"], entry, rate / (prod(ratios) * encoder["down"])),
            "sampling_rate": rate,
            "num_filters": encoder["hidden"],
            "num_residual_layers": len(encoder["dilations"]),
            "upsampling_ratios": ratios,
            "codebook_size": size,
            "num_quantizers": semantic + acoustic,
            "num_semantic_quantizers": semantic,
            "num_hidden_layers": encoder["layers"],
            "intermediate_size": encoder["mlp"],
            "sliding_window": encoder["window"],
        }


def _architecture(hidden: int, heads: int, entry: int, frame_rate: float) -> dict[str, Any]:
    """Settings that these decide."""
    return {
        "architectures": ["MimiModel"],
        "audio_channels": 1,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "upsample_groups": hidden,
        "codebook_dim": entry,
        "vector_quantization_hidden_dimension": entry,
        "frame_rate": frame_rate,
        "rope_parameters": {"rope_theta": ROTARY, "rope_type": "default"},
    }


def _check_rotary(written: Mapping[str, Any]) -> None:
    """ToolkitError where positions turn otherwise; earlier files have the base by itself."""
    rotary = written.get("rope_parameters")
    if rotary is not None and not isinstance(rotary, Mapping):
        raise ToolkitError(f"rope_parameters={shown(rotary)}: expected settings by name")
    for some in (written, rotary or {}):
        only(some, "positions turn by this base", rope_theta=ROTARY)
        only(some, "rotary positions are not scaled", rope_type="default")


def _latent_stride(written: Mapping[str, Any], rate: int, ratios: list[int]) -> int:
    """Of the convolution after the encoder's transformer, by the rate of codes that is written."""
    frames = written.get("frame_rate")
    if frames is None:
        return 2
    if isinstance(frames, bool) or not isinstance(frames, int | float) or not isfinite(frames) or frames <= 0:
        raise ToolkitError(f"frame_rate={shown(frames)}: expected codes per second")
    stride = int(ceil(rate / prod(ratios)) / frames)
    if not 1 <= stride <= MOST:
        raise ToolkitError(f"frame_rate={frames}: the strides alone give {rate / prod(ratios):g} per second")
    return stride


def _stride_of(settings: Mapping[str, Any]) -> int:
    """Of that convolution."""
    frames: float = settings["sampling_rate"] / prod(settings["upsampling_ratios"])
    stride: int = round(frames / settings["frame_rate"])
    return stride


def _depths(settings: Mapping[str, Any]) -> dict[str, int]:
    """Codebooks of each half of the quantizer."""
    semantic = settings["num_semantic_quantizers"]
    return {"first": semantic, "second": settings["num_quantizers"] - semantic}


def _has_maps(settings: Mapping[str, Any]) -> bool:
    return bool(settings["codebook_dim"] != settings["hidden_size"])


def _dilations(units: int) -> tuple[int, ...]:
    return tuple(2**unit for unit in range(units))


def _options(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of our encoder and decoder."""
    common = {
        "hidden": settings["num_filters"],
        "dilations": _dilations(settings["num_residual_layers"]),
        "layers": settings["num_hidden_layers"],
        "heads": settings["num_attention_heads"],
        "window": settings["sliding_window"],
        "mlp": settings["intermediate_size"],
    }
    ratios, stride = tuple(settings["upsampling_ratios"]), _stride_of(settings)
    return {**common, "strides": ratios[::-1], "down": stride}, {**common, "strides": ratios, "up": stride}


def _quantizer_words(settings: Mapping[str, Any], half: str, depth: int) -> list[str]:
    """One half: codebooks one after the other, between maps where their entries are narrower than the latents."""
    key, words = f"quantizer.{half}", list[str]()
    if _has_maps(settings):
        words = [f"{key}.name=projected", f"{key}.bias=false", f"{key}.codebook_dim={settings['codebook_dim']}"]
        key = f"{key}.inner"
    size = f"{key}.inner.codebook_size={settings['codebook_size']}"
    return [*words, f"{key}.name=residual", f"{key}.depth={depth}", f"{key}.inner.name=ema", size]


def _half_of(where: str, part: Any, dim: int) -> tuple[int, int, int]:
    """Of one half of a run's quantizer: its entries' dim, the size of its codebooks, and how many there are."""
    entry = dim
    if isinstance(part, Mapping) and part.get("name") == "projected":
        outer = options_of(where, part, "projected", {"inner": "vq", "codebook_dim": 8, "bias": True})
        wanted(where, outer, {"bias": False})
        where, part, entry = f"{where}.inner", outer["inner"], outer["codebook_dim"]
        if entry == dim:
            raise ToolkitError(f"{where}.codebook_dim={entry}: the family has no maps to as many channels")
    residual = options_of(where, part, "residual", {"depth": 4, "inner": "vq"})
    inner = options_of(f"{where}.inner", residual["inner"], "ema", {"codebook_size": 512, "normalize": False})
    wanted(f"{where}.inner", inner, {"normalize": False})
    return entry, inner["codebook_size"], residual["depth"]
