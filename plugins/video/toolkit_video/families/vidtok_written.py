"""VidTok's settings as its authors write them: the YAML file of a training, which has the name of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from toolkit import ToolkitError
from toolkit.adopting.written import below, numbers, shown

SAME = (
    *("in_channels", "ch", "ch_mult", "z_channels", "double_z", "num_res_blocks"),
    *("spatial_ds", "spatial_us", "tempo_ds", "tempo_us"),
)
"""Settings that have the same name in both layouts."""

VERSIONS = ("1.0", "1.1")


def as_published(written: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a training's file under the names of diffusers', with the ``version`` of the networks; any other
    settings as they are."""
    if "model" not in written:
        return dict(written)
    network = below(written, "model", "params", "encoder_config")
    params = below(network, "params")
    settings = {key: params[key] for key in SAME if key in params}
    if "out_ch" in params:
        settings["out_channels"] = params["out_ch"]
    target = str(network.get("target"))
    newer = "model_3dcausal_v1_1." in target
    if params.get("norm_type", "groupnorm") != "layernorm":
        raise ToolkitError(f"norm_type={shown(params.get('norm_type'))}: only VidTok's layer norm is known")
    if newer and params.get("interpolation_mode", "nearest") != "trilinear":
        raise ToolkitError("interpolation_mode: of version 1.1 only trilinear is known")
    regularizer = below(written, "model", "params", "regularizer_config")
    if "FSQ" in str(regularizer.get("target")):
        levels = numbers(below(regularizer, "params"), "levels", least=2)
        settings |= {"regularizer": "fsq", "codebook_size": prod(levels)}
    return {**settings, "is_causal": "model_3dcausal" in target, "version": VERSIONS[newer]}
