"""VidTok as its authors and diffusers publish it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch

from toolkit import DataSpec, ToolkitError
from toolkit.adopting.forms import only_here
from toolkit.adopting.written import number, numbers, shown
from toolkit.config import PartConfig, RunConfig
from toolkit.family import Entry, Family, Shapes
from toolkit_video.families.vidtok_names import CHANNELS, LEVELS, decoder, encoder, stride_of, told
from toolkit_video.families.vidtok_written import VERSIONS, as_published

WIDEST = 1 << 16
"""Channels, and residual blocks, at most."""

CLIP = 17
"""Frames of a training clip: one, and four times four."""

PIXELS = 256
"""Height and width of a training clip."""

RATE = 8.0
"""Frames per second, of the authors' evaluation; they train on three."""

DEFAULTS: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "z_channels": 4,
    "double_z": True,
    "num_res_blocks": 2,
    "spatial_ds": None,
    "spatial_us": None,
    "tempo_ds": None,
    "tempo_us": None,
    "dropout": 0.0,
    "regularizer": "kl",
    "codebook_size": LEVELS**6,
    "is_causal": True,
}
"""Those of the publisher's class."""

PARTS_OF: Mapping[str, tuple[str, str]] = {"1.0": ("zeros", "repeated"), "1.1": ("still", "interpolated")}
"""By version: ``padding`` of encoder and decoder, and the decoder's ``frames``."""

SCALE = 0.1
"""Standard deviation of the likelihood around the decoder's pixels; no published file has one."""


@final
class VidTokFamily(Family):
    """VidTok (Tang et al. 2024, arXiv:2412.13061): the causal networks with layer norm under finite scalar
    quantization. The authors' files name their tensors as diffusers does, and have no settings beside them: sizes are
    read off the tensors, but not the version. In 1.1, which is diffusers', a film stands still before its first frame,
    and frames are interpolated; in 1.0 layers see zeros there, and frames are repeated. A ``version`` among the
    settings says which it is, as does the YAML file of the authors' training; without either it is 1.1."""

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        written = as_published(written)
        known = {key: value for key, value in written.items() if key in DEFAULTS and value is not None}
        settings = {**DEFAULTS, **told(shapes), **known}
        for key in ("in_channels", "out_channels", "ch", "num_res_blocks"):
            number(settings, key, most=WIDEST)
        number(settings, "z_channels", most=CHANNELS)
        levels = len(numbers(settings, "ch_mult"))
        implied = {
            "spatial_ds": list(range(levels - 1)),
            "tempo_ds": [levels - 2, levels - 3],
            "spatial_us": list(range(1, levels)),
            "tempo_us": [1, 2],
        }
        for key, value in implied.items():
            settings[key] = sorted(value if settings[key] is None else numbers(settings, key, most=levels - 1, least=0))
        settings["ch_mult"], settings["dropout"] = list(settings["ch_mult"]), 0.0
        if _version(written) == "1.0":
            settings["version"] = "1.0"
        _check(settings)
        return settings

    def remarks(self, written: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        if _version(settings) == "1.0":
            return ["version 1.0: zeros before the first frame, frames are repeated; diffusers would read it as 1.1"]
        stated = "version" in as_published(written) or "_class_name" in written
        otherwise = "" if stated else "; nothing says so: of weights of 1.0 name the authors' YAML file, settings=FILE"
        return [f"version 1.1: the first frame is repeated before it, frames are interpolated{otherwise}"]

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return DataSpec(
            settings["in_channels"],
            (CLIP, PIXELS, PIXELS),
            levels=256,
            varying=(True, False, False),
            rates=(RATE, None, None),
        )

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        size, multipliers = settings["ch"], settings["ch_mult"]
        down = [stride_of(settings, "ds", i) for i in range(len(multipliers))]
        up = [stride_of(settings, "us", i) for i in reversed(range(len(multipliers)))]
        padding, frames = PARTS_OF[_version(settings)]
        return [
            "dataset=video_folder",
            f"dataset.frames={CLIP}",
            f"dataset.rate={RATE}",
            f"dataset.size={PIXELS}",
            f"dataset.channels={settings['in_channels']}",
            "encoder=video_vidtok",
            f"encoder.hidden={size}",
            f"encoder.multipliers={_plain(multipliers)}",
            f"encoder.blocks={settings['num_res_blocks']}",
            f"encoder.strides={_plain(down)}",
            f"encoder.padding={padding}",
            "quantizer=fsq",
            f"quantizer.levels={_plain([LEVELS] * settings['z_channels'])}",
            "decoder=video_vidtok",
            f"decoder.hidden={size}",
            f"decoder.multipliers={_plain(multipliers[::-1])}",
            f"decoder.blocks={settings['num_res_blocks'] + 1}",
            f"decoder.strides={_plain(up)}",
            f"decoder.padding={padding}",
            f"decoder.frames={frames}",
            "likelihood=normal",
            f"likelihood.scale={SCALE}",
        ]

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        scale = only_here(torch.tensor(SCALE).log())
        return [*encoder(settings), *decoder(settings), Entry([], ["decoder.likelihood.log_scale"], scale)]

    def skipped(self, name: str) -> bool:
        return name.startswith(("regularization.", "loss.", "model_ema."))

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        down, up = _options(config, "encoder"), _options(config, "decoder")
        levels = config.quantizer.options.get("levels") if config.quantizer.name == "fsq" else None
        if not levels or {*levels} != {LEVELS}:
            raise ToolkitError(f"quantizer: vidtok has fsq, with {LEVELS} levels in each channel")
        if config.likelihood is None or config.likelihood.name != "normal":
            raise ToolkitError("likelihood: vidtok's decoder gives pixels alone, as with normal")
        if config.decoder_conditions:
            raise ToolkitError(f"conditions.decoder={list(config.decoder_conditions)}: vidtok's decoder sees none")
        hidden, multipliers, blocks = down["hidden"], list(down["multipliers"]), down["blocks"]
        mirror = {"hidden": hidden, "multipliers": multipliers[::-1], "blocks": blocks + 1}
        for key, value in mirror.items():
            if up[key] != value:
                raise ToolkitError(f"decoder.{key}={up[key]}: beside this encoder vidtok has {value}")
        spatial_ds, tempo_ds = _places(down["strides"])
        spatial_up, tempo_up = _places(up["strides"])
        last = len(multipliers) - 1
        ways = (down["padding"], up["padding"], up["frames"])
        version = {(padding, padding, frames): key for key, (padding, frames) in PARTS_OF.items()}.get(ways)
        if version is None:
            raise ToolkitError(
                f"encoder.padding={ways[0]}, decoder.padding={ways[1]}, decoder.frames={ways[2]}: vidtok has still,"
                " still and interpolated, or zeros, zeros and repeated"
            )
        settings = {
            **DEFAULTS,
            "in_channels": data.channels,
            "out_channels": data.channels,
            "ch": hidden,
            "ch_mult": multipliers,
            "z_channels": len(levels),
            "double_z": False,
            "num_res_blocks": blocks,
            "spatial_ds": spatial_ds,
            "spatial_us": [last - i for i in reversed(spatial_up)],
            "tempo_ds": tempo_ds,
            "tempo_us": [last - i for i in reversed(tempo_up)],
            "regularizer": "fsq",
            "codebook_size": LEVELS ** len(levels),
            **({"version": version} if version == "1.0" else {}),
        }
        _check(settings)
        return settings


def _check(settings: Mapping[str, Any]) -> None:
    """ToolkitError for settings that no parts of ours do."""
    channels, codes = settings["z_channels"], settings["codebook_size"]
    if settings["is_causal"] is not True:
        raise ToolkitError(f"is_causal={shown(settings['is_causal'])}: only VidTok's causal networks are adopted")
    if settings["regularizer"] != "fsq" or settings["double_z"]:
        raise ToolkitError(
            f"regularizer={shown(settings['regularizer'])}, double_z={shown(settings['double_z'])}: only VidTok's"
            " tokenizers of fsq are adopted, not its continuous ones"
        )
    if codes != LEVELS**channels:
        raise ToolkitError(
            f"codebook_size={shown(codes)}: {LEVELS} levels of z_channels={channels} are {LEVELS**channels}"
        )
    if settings["in_channels"] != settings["out_channels"]:
        raise ToolkitError(
            f"out_channels={settings['out_channels']}: as many as in_channels={settings['in_channels']} are needed"
        )
    for way in ("ds", "us"):
        if stray := {*settings[f"tempo_{way}"]} - {*settings[f"spatial_{way}"]}:
            raise ToolkitError(f"tempo_{way}: levels {sorted(stray)} are not among those of spatial_{way}")


def _version(settings: Mapping[str, Any]) -> str:
    """1.1 where none is named; ToolkitError for another one than there are."""
    version = str(settings.get("version", "1.1"))
    if version not in VERSIONS:
        raise ToolkitError(f"version={version[:40]}: expected {' or '.join(VERSIONS)}")
    return version


def _places(strides: Any) -> tuple[list[int], list[int]]:
    """Levels with a stride in space, and in time."""
    return tuple([i for i, stride in enumerate(strides) if stride[axis] > 1] for axis in (1, 0))  # type: ignore[return-value]


def _options(config: RunConfig, kind: str) -> Mapping[str, Any]:
    """Of encoder or decoder; ToolkitError where it is another part."""
    part: PartConfig = getattr(config, kind)
    if part.name != "video_vidtok":
        raise ToolkitError(f"{kind}={part.name}: vidtok has video_vidtok")
    return part.options


def _plain(value: list[Any]) -> str:
    """As a word has it, without spaces."""
    return str(value).replace(" ", "")
