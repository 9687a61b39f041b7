"""Names of the same tensors in two layouts, by tables of renamings, and sizes out of a file's shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import torch
from torch import Tensor

from toolkit.adopting.forms import SAME, Form, only_here, pointwise, stacked
from toolkit.family import Entry, Shapes
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit_image.families.network import SCALE, Tokenizer
from toolkit_image.vqgan_decoder import VqganDecoder
from toolkit_image.vqgan_encoder import VqganEncoder

TABLE = "quantize.embedding.weight"
"""The codebook, in every layout."""

ENDS = (
    (r"\.norm_in\.", ".norm1."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".norm2."),
    (r"\.conv_out\.", ".conv2."),
    (r"^encoder\.proj_in\.", "encoder.conv_in."),
    (r"^decoder\.wide\.", "decoder.conv_in."),
    (r"^encoder\.narrow\.", "encoder.conv_out."),
    (r"^decoder\.out\.", "decoder.conv_out."),
    (r"^encoder\.out\.", "quant_conv."),
    (r"^decoder\.proj_in\.", "post_quant_conv."),
)
"""What all layouts agree on: inside a block, and at both ends of both networks."""

TAMING_BLOCKS = (
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"^(.*attention.*)\.out\.", r"\1.proj_out."),
    (r"^(encoder|decoder)\.norm\.", r"\1.norm_out."),
    (r"^encoder\.levels\.(\d+)\.resize\.", r"encoder.levels.\1.downsample."),
    (r"^decoder\.levels\.(\d+)\.resize\.", r"decoder.levels.\1.upsample."),
)
"""What taming-transformers and those who go by its names agree on."""

TAMING = (
    *ENDS,
    *TAMING_BLOCKS,
    (r"\.levels\.(\d+)\.blocks\.", r".levels.\1.block."),
    (r"\.levels\.(\d+)\.attention\.", r".levels.\1.attn."),
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.", "decoder.up."),
    (r"\.middle\.first\.", ".mid.block_1."),
    (r"\.middle\.attention\.", ".mid.attn_1."),
    (r"\.middle\.last\.", ".mid.block_2."),
)
"""taming-transformers' names, and transformers' for Janus."""

LLAMAGEN = (
    *ENDS,
    *TAMING_BLOCKS,
    (r"\.levels\.(\d+)\.blocks\.", r".levels.\1.res."),
    (r"\.levels\.(\d+)\.attention\.", r".levels.\1.attn."),
    (r"\.levels\.", ".conv_blocks."),
    (r"\.middle\.first\.", ".mid.0."),
    (r"\.middle\.attention\.", ".mid.1."),
    (r"\.middle\.last\.", ".mid.2."),
)

DIFFUSERS = (
    *ENDS,
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"^(.*attention.*)\.norm\.", r"\1.group_norm."),
    (r"^(.*attention.*)\.([qkv])\.", r"\1.to_\2."),
    (r"^(.*attention.*)\.out\.", r"\1.to_out.0."),
    (r"^(encoder|decoder)\.norm\.", r"\1.conv_norm_out."),
    (r"^encoder\.levels\.(\d+)\.resize\.", r"encoder.levels.\1.downsamplers.0."),
    (r"^decoder\.levels\.(\d+)\.resize\.", r"decoder.levels.\1.upsamplers.0."),
    (r"\.levels\.(\d+)\.blocks\.", r".levels.\1.resnets."),
    (r"\.levels\.(\d+)\.attention\.", r".levels.\1.attentions."),
    (r"^encoder\.levels\.", "encoder.down_blocks."),
    (r"^decoder\.levels\.", "decoder.up_blocks."),
    (r"\.middle\.first\.", ".mid_block.resnets.0."),
    (r"\.middle\.attention\.", ".mid_block.attentions.0."),
    (r"\.middle\.last\.", ".mid_block.resnets.1."),
)


@dataclass(frozen=True)
class Names:
    """A layout: patterns in our names and what stands there instead, one after the other."""

    renamings: Sequence[tuple[str, str]]
    mirrored: bool = False
    """Whether the decoder's levels are counted from the data up, too."""
    convolutions: bool = True
    """Whether attention's linear maps are convolutions of kernel 1."""

    def theirs(self, ours: str, levels: int = 0) -> str:
        """The name there of a tensor that is one in both; ``levels``: of the decoder."""
        if self.mirrored and (number := re.match(r"decoder\.levels\.(\d+)\.", ours)):
            ours = f"decoder.levels.{levels - 1 - int(number[1])}.{ours[number.end() :]}"
        for pattern, instead in self.renamings:
            ours = re.sub(pattern, instead, ours)
        return ours

    def entry(self, ours: str, levels: int) -> Entry:
        """A tensor of ours and what it is there."""
        if ".qkv." in ours:
            form = joined(pointwise(2), stacked(3)) if self.convolutions else stacked(3)
            return Entry([self.theirs(ours.replace(".qkv.", f".{one}."), levels) for one in "qkv"], [ours], form)
        convolved = self.convolutions and ".attention." in ours and ".norm." not in ours
        return Entry([self.theirs(ours, levels)], [ours], pointwise(2) if convolved else SAME)


def joined(first: Form, second: Form) -> Form:
    """One change after the other."""

    def here(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return second.here(first.here(tensors))

    def there(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return first.there(second.there(tensors))

    return Form(here, there)


def entries(names: Names, tokenizer: Tokenizer) -> list[Entry]:
    """Every tensor of a tokenizer: its networks', its codebook, and what only a run of ours has."""
    data = tokenizer.data()
    likelihood = NormalLikelihood(data, scale=SCALE)
    with torch.device("meta"):
        encoder = VqganEncoder(data, tokenizer.dim, **tokenizer.encoder.options())
        decoder = VqganDecoder(tokenizer.dim, (), likelihood, **tokenizer.decoder.options())
    levels = len(tokenizer.decoder.multipliers)
    own = [f"decoder.likelihood.{name}" for name in likelihood.state_dict()]
    ours = [f"{part}.{name}" for part, net in (("encoder", encoder), ("decoder", decoder)) for name in net.state_dict()]
    return [
        *(names.entry(name, levels) for name in ours if name not in own),
        Entry([TABLE], ["quantizer.codebook"]),
        Entry([], own, only_here(*likelihood.state_dict().values())),
        Entry([], ["quantizer.initialized"], only_here(torch.tensor(True))),
        Entry([], ["quantizer.counts"], only_here(torch.ones(tokenizer.codebook_size))),
    ]


def sizes(names: Names, shapes: Shapes) -> dict[str, Any]:
    """What a file's shapes say of a tokenizer, by the names of ``Network``'s options and ``channels``, ``dim`` and
    ``codebook_size``; nothing of another layout's. Levels that attend are counted from the data down."""

    def there(ours: str) -> bool:
        return names.theirs(ours) in shapes

    levels = list(takewhile(lambda n: there(f"encoder.levels.{n}.blocks.0.conv_in.weight"), count()))
    blocks = list(takewhile(lambda n: there(f"encoder.levels.0.blocks.{n}.conv_in.weight"), count()))

    def at(ours: str, axis: int = 0) -> int:
        shape = shapes.get(names.theirs(ours, len(levels)), ())
        return shape[axis] if len(shape) > axis else 0

    hidden = at("encoder.proj_in.weight")
    down = [at(f"encoder.levels.{n}.blocks.0.conv_in.weight") for n in levels]
    up = [at(f"decoder.levels.{n}.blocks.0.conv_in.weight") for n in reversed(levels)]
    if not (hidden and blocks) or any(width % hidden for width in (*down, *up)):
        return {}
    return {
        "hidden": hidden,
        "multipliers": [width // hidden for width in down],
        "decoder_multipliers": [width // hidden for width in up],
        "residual_blocks": len(blocks),
        "attention": [n for n in levels if there(f"encoder.levels.{n}.attention.0.norm.weight")],
        "middle_attention": there("encoder.middle.attention.norm.weight"),
        "bottleneck": at("encoder.out.weight", 1),
        "channels": at("encoder.proj_in.weight", 1),
        "dim": at("encoder.out.weight"),
        "codebook_size": (*shapes.get(TABLE, ()), 0)[0],
    }
