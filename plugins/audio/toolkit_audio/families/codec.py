"""What the families of neural codecs have in common: their sound, and what their runs must be."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from toolkit import DataSpec, ToolkitError
from toolkit.config import PartConfig, RunConfig
from toolkit.likelihoods.normal import NormalLikelihood

SCALE = 0.1
"""Of the likelihood that an adopted run has: about the error of such codecs on speech at its usual loudness."""
RATES = 1 << 20
"""Samples per second are fewer."""


def sound(channels: int, rate: int, stride: int) -> DataSpec:
    """A second of it, as nearly as whole codes have it."""
    return DataSpec(channels, (max(1, round(rate / stride)) * stride,), varying=(True,), rates=(float(rate),))


def sound_words(data: DataSpec) -> list[str]:
    """The dataset that reads it, and the distribution whose mean a decoder gives."""
    rate = int(data.rates[0] or 0)
    return [
        "dataset=audio_folder",
        "dataset.form=float",
        f"dataset.sample_rate={rate}",
        f"dataset.seconds={data.axes[0] / rate}",
        "likelihood=normal",
        f"likelihood.scale={SCALE}",
    ]


def part_words(kind: str, name: str, options: Mapping[str, Any]) -> list[str]:
    """The words that choose a part with these options."""
    return [f"{kind}={name}", *(f"{kind}.{key}={_word(value)}" for key, value in options.items())]


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(str, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def likelihood_of(data: DataSpec) -> NormalLikelihood:
    """The one of an adopted run."""
    return NormalLikelihood(data, scale=SCALE)


def defaults_of(part: type) -> dict[str, Any]:
    """Of all options of a part of this package."""
    given = inspect.signature(part).parameters.values()
    return {one.name: one.default for one in given if one.kind is one.KEYWORD_ONLY}


def options_of(where: str, part: Any, name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a part that have ``defaults``, lists as tuples; ToolkitError where another part is chosen.

    ``where``: the option that chooses it. ``part``: as a configuration has it; or nested, as YAML does.
    """
    chosen = part if isinstance(part, PartConfig) else _nested(part)
    if chosen.name != name:
        raise ToolkitError(f"{where}={chosen.name}: the family's is {name}")
    own = {key: chosen.options.get(key, default) for key, default in defaults.items()}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in own.items()}


def _nested(part: Any) -> PartConfig:
    if isinstance(part, Mapping) and isinstance(part.get("name"), str):
        return PartConfig(part["name"], {key: value for key, value in part.items() if key != "name"})
    return PartConfig(part if isinstance(part, str) else "null", {})


def wanted(kind: str, options: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """ToolkitError, naming the option, where one has another value than the family's."""
    for key, value in values.items():
        if options[key] != value:
            raise ToolkitError(f"{kind}.{key}={_word(options[key])}: the family's is {_word(value)}")


def check_sound(config: RunConfig, data: DataSpec) -> int:
    """The sample rate of a run whose data and decoder are a codec's; ToolkitError, naming the option, for others."""
    options_of("likelihood", config.likelihood, "normal", {})
    if config.decoder_conditions:
        names = ", ".join(config.decoder_conditions)
        raise ToolkitError(f"conditions.decoder=[{names}]: the family's decoder sees nothing but codes")
    if data.rank != 1 or not data.rates or not data.rates[0] or data.levels is not None:
        raise ToolkitError(f"dataset={config.dataset.name}: the family's data are waveforms, as dataset.form=float has")
    return int(data.rates[0])
