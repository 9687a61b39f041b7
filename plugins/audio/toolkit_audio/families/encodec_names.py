"""Names of EnCodec's tensors, there and here, and sizes out of a file's shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any

import torch

from toolkit import DataSpec
from toolkit.adopting.forms import SAME, only_here
from toolkit.family import Entry, Shapes
from toolkit_audio.families.codec import likelihood_of
from toolkit_audio.families.forms import truth
from toolkit_audio.seanet_decoder import SeanetDecoder
from toolkit_audio.seanet_encoder import SeanetEncoder

AUTHORS = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.conv(?:tr)?\.conv(?:tr)?\.", ".conv."),
    (r"\.conv(?:tr)?\.norm\.", ".norm."),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
"""Names in the authors' files, of which the last two are also those of transformers' earlier files, and what they are
called in the layout."""

CODEBOOK = {"codebook": "embed", "sums": "embed_avg", "counts": "cluster_size", "initialized": "inited"}
"""A codebook's tensors: ours and theirs."""
TABLES = "quantizer.layers.{}.codebook.{}"


def entries(
    data: DataSpec, dim: int, encoder: Mapping[str, Any], decoder: Mapping[str, Any], depth: int
) -> list[Entry]:
    """Every tensor, given the options of both networks and the number of codebooks."""
    likelihood = likelihood_of(data)
    with torch.device("meta"):
        networks = {
            "encoder": SeanetEncoder(data, dim, **encoder),
            "decoder": SeanetDecoder(dim, (), likelihood, **decoder),
        }
    own = [f"decoder.likelihood.{name}" for name in likelihood.state_dict()]
    ours = [f"{kind}.{name}" for kind, network in networks.items() for name in network.state_dict()]
    return [
        *(Entry([_theirs(name)], [name]) for name in ours if name not in own),
        Entry([], own, only_here(*likelihood.state_dict().values())),
        *(_table(number, ours, theirs) for number in range(depth) for ours, theirs in CODEBOOK.items()),
    ]


def _theirs(ours: str) -> str:
    """The name there of a network's tensor. Our decoder's first convolution stands before the others."""
    name = ours.replace("decoder.proj_in.", "decoder.layers.0.").replace("encoder.network.", "encoder.layers.")
    name = re.sub(r"^decoder\.network\.(\d+)\.", lambda found: f"decoder.layers.{int(found[1]) + 1}.", name)
    return name.replace(".wide.", ".block.1.").replace(".narrow.", ".block.3.")


def _table(number: int, ours: str, theirs: str) -> Entry:
    form = truth() if ours == "initialized" else SAME
    return Entry([TABLES.format(number, theirs)], [f"quantizer.stages.{number}.{ours}"], form)


def sizes(shapes: Shapes) -> dict[str, Any]:
    """What a file's shapes say of a model, as its settings; nothing of another layout's."""

    def weight(name: str) -> tuple[int, ...]:
        """Of a convolution: outputs, inputs, window."""
        own = (f"{name}.conv.parametrizations.weight.original1", f"{name}.conv.weight")
        return next((shapes[key] for key in own if len(shapes.get(key, ())) == 3), ())

    layers = sorted({int(found[1]) for name in shapes if (found := re.match(r"encoder\.layers\.(\d{1,3})\.", name))})
    convolutions = [n for n in layers if weight(f"encoder.layers.{n}")]
    tables = list(takewhile(lambda n: len(shapes.get(TABLES.format(n, "embed"), ())) == 2, count()))
    if len(convolutions) < 3 or not tables:
        return {}
    first, *strided, last = (weight(f"encoder.layers.{n}") for n in convolutions)
    units = [n for n in layers if n < convolutions[1] and weight(f"encoder.layers.{n}.block.1")]
    lstm = [name for name in shapes if re.fullmatch(r"encoder\.layers\.\d+\.lstm\.weight_ih_l\d+", name)]
    return {
        "num_filters": first[0],
        "audio_channels": first[1],
        "hidden_size": last[0],
        "last_kernel_size": last[2],
        "upsampling_ratios": [window // 2 for *_, window in reversed(strided)],
        "num_residual_layers": len(units),
        **({"residual_kernel_size": weight(f"encoder.layers.{units[0]}.block.1")[2]} if units else {}),
        "use_conv_shortcut": any(".shortcut." in name for name in shapes),
        "num_lstm_layers": len(lstm),
        "norm_type": "time_group_norm" if "encoder.layers.0.norm.weight" in shapes else "weight_norm",
        "codebook_size": shapes[TABLES.format(0, "embed")][0],
        "depth": len(tables),
    }
