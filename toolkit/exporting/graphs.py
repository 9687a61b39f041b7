"""What of a model becomes graphs: modules of tensors, with examples of their inputs and the axes that stay free."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.exporting.axes import FreeAxes
from toolkit.exporting.modules import Decode, Embed, Encode
from toolkit.exporting.tensors import random_codes, random_condition, random_data
from toolkit.fit import title
from toolkit.model import Model
from toolkit.spec import DataSpec

BATCH = 5
"""Examples in the inputs that a graph is traced with."""

NAMES = ("encoder", "decoder", "embed")
"""Graphs of stage one."""


@dataclass(frozen=True)
class Graph:
    """A module to trace."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    """Examples of what goes in, by name and in the module's order: more than one of whatever is free."""
    axes: dict[str, dict[int, Any]]
    """The free axes of each input, as ``torch.export`` takes them."""
    outputs: tuple[str, ...]
    parts: tuple[nn.Module, ...]
    """The model's parts that it is of."""


@dataclass
class Graphs:
    """The graphs of a model, and what a model could have and this one has not, with the reason."""

    there: dict[str, Graph] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    fixed: str = ""
    """Why an axis is fixed although the data varies along it."""


@torch.no_grad()
def stage_one(model: Model, free: bool = True) -> Graphs:
    """Data to codes, codes to data, and codes to latents; with latents in place of codes where there are none.

    ``free``: whether the axes that vary in the data are; the batch always is.
    """
    autoencoder, seed = model.autoencoder, torch.Generator().manual_seed(0)
    axes = FreeAxes.of(model.spec, model.code_spec, autoencoder.decoder_conditions, free)
    encode = Encode(model).eval()
    if why := _fixed(encode, model.spec, axes):
        axes = replace(FreeAxes.of(model.spec, model.code_spec, (), False), fixed=why)
    x = random_data(model.spec, BATCH, axes.lengths, seed)
    encoder, quantizer, decoder = autoencoder.encoder, autoencoder.quantizer, autoencoder.decoder
    coded = "codes" if model.code_spec.depth else "latents"
    if model.code_spec.depth:
        codes = random_codes(model.code_spec, BATCH, axes.grid, seed)
    else:
        codes = torch.randn(BATCH, quantizer.dim, *axes.grid, generator=seed)
    seen = [c for c in model.spec.conditions if c.name in autoencoder.decoder_conditions]
    conditions = {c.name: random_condition(c, BATCH, axes.lengths[0], seed) for c in seen}
    free_conditions = {c.name: axes.condition(c) for c in seen}

    graphs = Graphs(fixed=axes.fixed)
    graphs.there["encoder"] = Graph("encoder", encode, {"x": x}, {"x": axes.data()}, (coded,), (encoder, quantizer))
    if why := no_mean(model):
        graphs.left_out["decoder"] = why
    else:
        inputs, free_inputs = {coded: codes, **conditions}, {coded: axes.codes(), **free_conditions}
        decode = Decode(model, tuple(conditions))
        graphs.there["decoder"] = Graph("decoder", decode, inputs, free_inputs, ("x", "mean"), (quantizer, decoder))
    if model.code_spec.depth:
        free_codes = {"codes": axes.codes()}
        graphs.there["embed"] = Graph("embed", Embed(model), {"codes": codes}, free_codes, ("latents",), (quantizer,))
    else:
        graphs.left_out["embed"] = f"{title(quantizer)} is continuous: it has no codes"
    return graphs


@torch.no_grad()
def no_mean(model: Model) -> str:
    """Why codes do not become data by a function; empty where they do."""
    autoencoder = model.autoencoder
    z = torch.zeros(1, autoencoder.quantizer.dim, *autoencoder.grid)
    if autoencoder.decode(z, {}).mean is not None:
        return ""
    if not model.data.ordered:
        return f"{title(autoencoder.decoder)} gives a distribution over symbols, which has no mean: they are drawn"
    return f"{title(autoencoder.decoder)} is autoregressive: its distribution has no mean, data is drawn from it"


def _fixed(encode: Encode, data: DataSpec, axes: FreeAxes) -> str:
    """Why longer data does not have more codes in proportion; empty where it has, or nothing is free."""
    if not any(axes.units):
        return ""
    lengths, grid = axes.longer()
    try:
        got = tuple(encode(random_data(data, 1, lengths, torch.Generator().manual_seed(0))).shape[2:])
    except Exception as e:
        return f"data of {lengths} is refused: {str(e).splitlines()[0]}"
    return "" if got == grid else f"data of {lengths} has codes on {got}, not on {grid}"
