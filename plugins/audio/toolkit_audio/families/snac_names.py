"""Names of SNAC's tensors, there and here, and settings out of a file's shapes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any

import torch

from toolkit.adopting.forms import SAME, only_there, pointwise, weight_norm
from toolkit.family import Entry, Shapes
from toolkit_audio.families.dac_names import DIRECTION, NORM, UNIT, Layout, tables
from toolkit_audio.families.forms import both
from toolkit_audio.sliding_attention import THETA
from toolkit_audio.window_attention import HEAD

ATTENTION = {"qkv": "to_qkv", "out": "to_out"}
LONGEST_WINDOW = 32
"""Of the published models that attend."""


def in_snac(ours: str, strides: int) -> str:
    """As the authors have them: modules in a row, in a row."""
    kind, place, first, *inside = ours.split(".")
    if kind == "decoder" and place == "network":  # our first two convolutions stand before the others
        first = str(int(first) + 2)
    path = [kind, {"encoder": "block", "decoder": "model"}[kind], first]
    for part in inside:
        number = str(UNIT.index(part)) if part in UNIT else part
        path += ["block", number] if number.isdigit() else [ATTENTION.get(part, part)]
    return ".".join(path)


SNAC = Layout(in_snac, [NORM.removeprefix("."), DIRECTION.removeprefix(".")], SAME, both(weight_norm(), pointwise(1)))


def rotations(settings: Mapping[str, Any]) -> list[Entry]:
    """The angles that a model with attention keeps, always the same."""
    if settings["attn_window_size"] is None:
        return []
    angles = 1.0 / THETA ** (torch.arange(0, HEAD, 2).float() / HEAD)
    places = f"encoder.block.{len(settings['encoder_rates']) + 1}", "decoder.model.2"
    return [Entry([f"{place}.rel_pos.inv_freq"], [], only_there(angles)) for place in places]


def seen(shapes: Shapes) -> dict[str, Any]:
    """What a file's shapes say of a model, as its settings; nothing of another layout's.

    How often each codebook is taken, they do not say, nor how long the windows are: what is published has strides that
    double, and windows of 32.
    """

    def weight(module: str) -> tuple[int, ...]:
        """Of a convolution: outputs, inputs, window."""
        shape = shapes.get(module + DIRECTION, ())
        return shape if len(shape) == 3 else ()

    blocks = list(takewhile(lambda n: weight(f"encoder.block.{n}.block.4"), count(1)))
    first, start, books = weight("encoder.block.0"), weight("decoder.model.1"), tables(shapes)
    if not (blocks and books and first and start):
        return {}
    attends = "decoder.model.2.to_qkv.weight" in shapes
    return {
        "encoder_dim": first[0],
        "encoder_rates": [weight(f"encoder.block.{n}.block.4")[2] // 2 for n in blocks],
        "decoder_dim": start[0],
        "attn_window_size": LONGEST_WINDOW if attends else None,
        "codebook_size": books[0][0],
        "codebook_dim": books[0][1],
        "vq_strides": [2**n for n in reversed(range(len(books)))],
        "noise": f"decoder.model.{3 if attends else 2}.block.2.linear{DIRECTION}" in shapes,
        "depthwise": first[0] == 1 or weight("encoder.block.1.block.0.block.1")[1:2] == (1,),
    }
