"""A family of tokenizers as others might publish them: two convolutions each way, one of them under weight norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch

from toolkit import DataSpec, RunConfig, ToolkitError
from toolkit.adopting.forms import Form, only_here, only_there, weight_norm
from toolkit.family import Entry, Family, Shapes

TABLE = Form(lambda tensors: [tensors[0].T], lambda tensors: [tensors[0].T])
"""A codebook whose entries are columns there."""
NAMES = {
    "enc.first.bias": "encoder.down.0.bias",
    "enc.block.wide.weight": "encoder.residual.0.wide.weight",
    "enc.block.wide.bias": "encoder.residual.0.wide.bias",
    "enc.block.narrow.weight": "encoder.residual.0.narrow.weight",
    "enc.block.narrow.bias": "encoder.residual.0.narrow.bias",
    "enc.last.weight": "encoder.out.weight",
    "enc.last.bias": "encoder.out.bias",
    "dec.first.weight": "decoder.proj_in.weight",
    "dec.first.bias": "decoder.proj_in.bias",
    "dec.block.wide.weight": "decoder.residual.0.wide.weight",
    "dec.block.wide.bias": "decoder.residual.0.wide.bias",
    "dec.block.narrow.weight": "decoder.residual.0.narrow.weight",
    "dec.block.narrow.bias": "decoder.residual.0.narrow.bias",
    "dec.last.weight": "decoder.up.0.weight",
    "dec.last.bias": "decoder.up.0.bias",
}


@final
class ToyFamily(Family):
    """The toy's tokenizers, over two channels of eight levels."""

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        dim, entries = shapes["quantizer.table"]
        settings = {"width": written.get("width", shapes["enc.first.bias"][0]), "dim": dim, "entries": entries}
        if written.get("activation", "relu") != "relu":
            raise ToolkitError(f"activation={written['activation']!r}: no part has another one than relu")
        return settings

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return DataSpec(2, (8, 8), 8)

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        networks = [
            word
            for kind in ("encoder", "decoder")
            for word in (
                *(f"{kind}=conv", f"{kind}.hidden={settings['width']}"),
                *(f"{kind}.residual_blocks=1", f"{kind}.strides=[2]"),
            )
        ]
        quantizer = ["quantizer=vq", f"quantizer.codebook_size={settings['entries']}", f"dim={settings['dim']}"]
        return ["dataset=toy_files", *networks, *quantizer, "likelihood=categorical"]

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        first = [f"enc.first.parametrizations.weight.original{part}" for part in (0, 1)]
        return [
            *(Entry([theirs], [ours]) for theirs, ours in NAMES.items()),
            Entry(first, ["encoder.down.0.weight"], weight_norm()),
            Entry(["quantizer.table"], ["quantizer.codebook"], TABLE),
            Entry([], ["quantizer.initialized"], only_here(torch.tensor(True))),
            Entry([], ["quantizer.counts"], only_here(torch.ones(settings["entries"]))),
            Entry(["quantizer.ready"], [], only_there(torch.ones(1))),
        ]

    def skipped(self, name: str) -> bool:
        return name.startswith("critic.")

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        for kind, name in (("encoder", "conv"), ("decoder", "conv"), ("quantizer", "vq")):
            if getattr(config, kind).name != name:
                raise ToolkitError(f"{kind}={getattr(config, kind).name}: this family has {kind}={name}")
        for kind in ("encoder", "decoder"):
            options = getattr(config, kind).options
            if tuple(options["strides"]) != (2,) or options["residual_blocks"] != 1:
                raise ToolkitError(f"{kind}.strides={options['strides']}: this family has [2] and one residual block")
        entries = config.quantizer.options["codebook_size"]
        return {"width": config.encoder.options["hidden"], "dim": config.dim, "entries": entries}

    def renamed(self, name: str) -> str:
        """The authors' own code has weight norm as it was in earlier versions of PyTorch."""
        for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
            if name.endswith(f".{old}"):
                return name.removesuffix(old) + f"parametrizations.weight.{new}"
        return name
