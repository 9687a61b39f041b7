"""Names of DAC's tensors, in two layouts and here, and sizes out of a file's shapes; its rows and codebooks are SNAC's,
too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import torch

from toolkit.adopting.forms import SAME, Form, only_here, pointwise, weight_norm
from toolkit.family import Entry, Shapes
from toolkit_audio.families.forms import both, per_channel, unfolded

UNIT = ("before_wide", "wide", "before_narrow", "narrow")
"""A residual unit's modules, in their order."""
NORM, DIRECTION = ".parametrizations.weight.original0", ".parametrizations.weight.original1"
QUANTIZER = "quantizer.quantizers.{}.{}"
MAPS = {"proj_in": "in_proj", "proj_out": "out_proj"}
"""Around a codebook, ours and theirs."""


@dataclass(frozen=True)
class Layout:
    """Where a layout has our modules, and what it calls a convolution's weight."""

    module: Callable[[str, int], str]
    """The module there of one of ours in a network with so many strides."""
    weight: Sequence[str]
    convolution: Form
    """Its form: our weights have their norms beside them."""
    linear: Form
    """That of a weight of a convolution of kernel 1, a linear map here."""


def in_transformers(ours: str, strides: int) -> str:
    """As ``DacModel`` has them, with numbers of units from 1 and those of strides from 0."""
    kind, place, *inside = ours.split(".")
    at = int(inside.pop(0)) - (kind == "encoder") if place == "network" else -1
    if at < 0 or at >= strides:
        return f"{kind}.{('conv1', 'snake1', 'conv2')[max(0, at - strides + 1)]}"
    units = ["res_unit1", "res_unit2", "res_unit3"]
    beside = [*units, "snake1", "conv1"] if kind == "encoder" else ["snake1", "conv_t1", *units]
    which, *part = inside
    unit = [("snake1", "conv1", "snake2", "conv2")[UNIT.index(one)] for one in part]
    return ".".join([kind, "block", str(at), beside[int(which)], *unit])


def in_descript(ours: str, strides: int) -> str:
    """As the authors have them: modules in a row, in a row."""
    kind, place, *inside = ours.split(".")
    numbers = [str(UNIT.index(one)) if one in UNIT else one for one in inside]
    if kind == "decoder":  # our first convolution stands before the others
        numbers = [str(int(numbers[0]) + 1), *numbers[1:]] if place == "network" else ["0"]
    first = {"encoder": "encoder.block.", "decoder": "decoder.model."}[kind]
    return first + ".block.".join(numbers)


TRANSFORMERS = Layout(in_transformers, ["weight"], unfolded(), pointwise(1))
DESCRIPT = Layout(in_descript, ["weight_g", "weight_v"], SAME, both(weight_norm(), pointwise(1)))


def entries(layout: Layout, networks: Sequence[str], strides: int, depth: int, codebook_size: int) -> list[Entry]:
    """Of all tensors of networks, by their names here, and of so many codebooks."""
    stages = [entry for number in range(depth) for entry in _of_stage(layout, number, codebook_size)]
    return [*(_of_network(layout, name, strides) for name in networks if not name.endswith(DIRECTION)), *stages]


def _of_network(layout: Layout, ours: str, strides: int) -> Entry:
    if ours.endswith(NORM):
        place = ours.removesuffix(NORM)
        theirs = layout.module(place, strides)
        return Entry([f"{theirs}.{name}" for name in layout.weight], [ours, place + DIRECTION], layout.convolution)
    place, _, last = ours.rpartition(".")
    theirs = layout.module(place, strides)
    if last == "frequency":
        return Entry([f"{theirs}.alpha"], [ours], per_channel())
    return Entry([f"{theirs}.{last}"], [ours])


def _of_stage(layout: Layout, number: int, codebook_size: int) -> list[Entry]:
    """Of a codebook, and the maps around it."""
    here = f"quantizer.stages.{number}"
    made = [
        Entry([QUANTIZER.format(number, "codebook.weight")], [f"{here}.inner.codebook"]),
        Entry([], [f"{here}.inner.initialized"], only_here(torch.tensor(True))),
        Entry([], [f"{here}.inner.counts"], only_here(torch.ones(codebook_size))),
    ]
    for ours, theirs in MAPS.items():
        weight = [QUANTIZER.format(number, f"{theirs}.{name}") for name in layout.weight]
        made.append(Entry(weight, [f"{here}.{ours}.weight"], layout.linear))
        made.append(Entry([QUANTIZER.format(number, f"{theirs}.bias")], [f"{here}.{ours}.bias"]))
    return made


def sizes(layout: Layout, shapes: Shapes) -> dict[str, Any]:
    """What a file's shapes say of a model, by the names of ``Sizes``; nothing of another layout's."""

    def weight(ours: str, strides: int = 1 << 10) -> tuple[int, ...]:
        """Of a convolution of ours: outputs, inputs, window, or the first two the other way round where transposed."""
        shape = shapes.get(f"{layout.module(ours, strides)}.{layout.weight[-1]}", ())
        return shape if len(shape) == 3 else ()

    blocks = list(takewhile(lambda n: weight(f"encoder.network.{n}.4"), count(1)))
    books = tables(shapes)
    first, last, start = (
        weight(name, len(blocks))
        for name in ("encoder.network.0", f"encoder.network.{len(blocks) + 2}", "decoder.proj_in")
    )
    if not (blocks and books and first and last and start):
        return {}
    return {
        "hidden": first[0],
        "strides": tuple(weight(f"encoder.network.{n}.4")[2] // 2 for n in blocks),
        "decoder_hidden": start[0],
        "dim": last[0],
        "depth": len(books),
        "codebook_size": books[0][0],
        "codebook_dim": books[0][1],
    }


def tables(shapes: Shapes) -> list[tuple[int, ...]]:
    """The shapes of the codebooks, entries and their dim."""
    every = (shapes.get(QUANTIZER.format(number, "codebook.weight"), ()) for number in count())
    return list(takewhile(lambda shape: len(shape) == 2, every))
