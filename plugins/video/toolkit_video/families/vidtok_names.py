"""Which tensors of VidTok's layout are which of ``video_vidtok``, and what their shapes tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from toolkit.adopting.forms import SAME, Form, pointwise
from toolkit.family import Entry, Shapes

LEVELS = 8
"""Of each channel of its finite scalar quantizer."""

CHANNELS = 20
"""Most of these channels, whose codes a number of 64 bits holds."""


def told(shapes: Shapes) -> dict[str, Any]:
    """Settings that the tensors' shapes tell; none where they are not of this layout."""
    if "encoder.conv_in.weight" in shapes:
        return {"is_causal": False}
    first, last = shapes.get("encoder.conv_in.conv.weight", ()), shapes.get("decoder.conv_out.conv.weight", ())
    latents, into = shapes.get("encoder.conv_out.conv.weight", ()), shapes.get("decoder.conv_in.conv.weight", ())
    levels = _count(shapes, "encoder.down.{}.block.0.conv1.weight")
    if not all(len(shape) == 5 and min(shape) > 0 for shape in (first, last, latents, into)) or not levels:
        return {}
    widths = [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)]
    double = latents[0] != into[1]
    return {
        "in_channels": first[1],
        "out_channels": last[0],
        "ch": first[0],
        "ch_mult": [width // first[0] for width in widths],
        "z_channels": into[1],
        "double_z": double,
        "num_res_blocks": _count(shapes, "encoder.down.0.block.{}.conv1.weight"),
        "spatial_ds": _having(shapes, levels, "encoder.down.{}.downsample.conv.weight"),
        "spatial_us": _having(shapes, levels, "decoder.up.{}.upsample.conv.weight"),
        "tempo_ds": _having(shapes, levels, "encoder.down_temporal.{}.downsample.mix_factor"),
        "tempo_us": _having(shapes, levels, "decoder.up_temporal.{}.upsample.mix_factor"),
        "regularizer": "kl" if double else "fsq",
        "codebook_size": LEVELS ** min(into[1], CHANNELS),
    }


def stride_of(settings: Mapping[str, Any], way: str, level: int) -> list[int]:
    """Of a level, along time, height and width; ``way``: ds or us, down or up."""
    space, time = level in settings[f"spatial_{way}"], level in settings[f"tempo_{way}"]
    return [2 if time else 1, 2 if space else 1, 2 if space else 1]


def encoder(settings: Mapping[str, Any]) -> Iterator[Entry]:
    yield from _same("encoder.conv_in.conv", "encoder.proj_in.conv")
    blocks, width = settings["num_res_blocks"], 1
    for i, multiplier in enumerate(settings["ch_mult"]):
        theirs, ours = ("encoder.down", f"{i}"), f"encoder.levels.{i}"
        yield from _blocks(*theirs, ours, blocks, multiplier != width)
        time, space, _ = stride_of(settings, "ds", i)
        if space > 1:
            yield from _same(f"encoder.down.{i}.downsample.conv", f"{ours}.{2 * blocks}.conv")
        if time > 1:
            yield from _mixing(f"encoder.down_temporal.{i}.downsample", f"{ours}.{2 * blocks + 1}")
        width = multiplier
    yield from _ends("encoder")


def decoder(settings: Mapping[str, Any]) -> Iterator[Entry]:
    yield from _same("decoder.conv_in.conv", "decoder.proj_in.conv")
    blocks, multipliers = settings["num_res_blocks"] + 1, settings["ch_mult"]
    width = multipliers[-1]
    for ours_at, i in enumerate(reversed(range(len(multipliers)))):
        ours = f"decoder.levels.{ours_at}"
        yield from _blocks("decoder.up", f"{i}", ours, blocks, multipliers[i] != width)
        time, space, _ = stride_of(settings, "us", i)
        if space > 1:
            yield from _same(f"decoder.up.{i}.upsample.conv", f"{ours}.{2 * blocks}.conv.conv")
        if time > 1:
            yield from _mixing(f"decoder.up_temporal.{i}.upsample", f"{ours}.{2 * blocks + 1}")
        width = multipliers[i]
    yield from _ends("decoder")


def _blocks(theirs: str, level: str, ours: str, count: int, widens: bool) -> Iterator[Entry]:
    """Those of a level, over space and over time in turns here."""
    for j in range(count):
        space = f"{theirs}.{level}.block.{j}"
        yield from _block(space, f"{ours}.{2 * j}", "")
        if widens and not j:
            yield from _same(f"{space}.nin_shortcut", f"{ours}.0.shortcut", pointwise(2))
        yield from _block(f"{theirs}_temporal.{level}.block.{j}", f"{ours}.{2 * j + 1}", ".conv")


def _block(theirs: str, ours: str, inner: str) -> Iterator[Entry]:
    """``inner``: what their convolutions, which are causal, lie in."""
    for i in (1, 2):
        yield from _same(f"{theirs}.norm{i}.norm", f"{ours}.norm{i}")
        yield from _same(f"{theirs}.conv{i}{inner}", f"{ours}.conv{i}.conv")


def _mixing(theirs: str, ours: str) -> Iterator[Entry]:
    yield from _same(f"{theirs}.conv.conv", f"{ours}.conv.conv")
    yield Entry([f"{theirs}.mix_factor"], [f"{ours}.mix"])


def _ends(part: str) -> Iterator[Entry]:
    """The middle, and what follows the last level."""
    theirs, ours = f"{part}.mid", f"{part}.middle"
    yield from _block(f"{theirs}.block_1", f"{ours}.0", ".conv")
    yield from _same(f"{theirs}.attn_1.norm.norm", f"{ours}.1.norm")
    for name in ("weight", "bias"):
        yield Entry([f"{theirs}.attn_1.{key}.conv.{name}" for key in "qkv"], [f"{ours}.1.qkv.{name}"], QKV)
    yield from _same(f"{theirs}.attn_1.proj_out.conv", f"{ours}.1.out", pointwise(3))
    yield from _block(f"{theirs}.block_2", f"{ours}.2", ".conv")
    yield from _same(f"{part}.norm_out.norm", f"{part}.head.norm")
    yield from _same(f"{part}.conv_out.conv", f"{part}.head.conv.conv")


def _same(theirs: str, ours: str, form: Form = SAME) -> Iterator[Entry]:
    """A layer's weight and bias."""
    for name in ("weight", "bias"):
        yield Entry([f"{theirs}.{name}"], [f"{ours}.{name}"], form)


_POINTS = pointwise(3)

QKV = Form(
    lambda tensors: [torch.cat(list(_POINTS.here(tensors)))],
    lambda tensors: _POINTS.there(tensors[0].chunk(3)),
)
"""Query, key and value, three convolutions of kernel 1 there, one after the other in a linear layer here."""


def _count(shapes: Shapes, name: str) -> int:
    """How many there are, numbered from 0."""
    count = 0
    while name.format(count) in shapes:
        count += 1
    return count


def _having(shapes: Shapes, levels: int, name: str) -> list[int]:
    """Levels that have such a tensor."""
    return [i for i in range(levels) if name.format(i) in shapes]
