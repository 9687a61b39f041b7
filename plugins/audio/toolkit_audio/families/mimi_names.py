"""Names of Mimi's tensors, there and here, and sizes out of a file's shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from toolkit import DataSpec
from toolkit.adopting.forms import SAME, Form, only_here, pointwise, stacked
from toolkit.family import Entry, Shapes
from toolkit_audio.families.codec import likelihood_of
from toolkit_audio.mimi_decoder import MimiDecoder
from toolkit_audio.mimi_encoder import MimiEncoder

IN_MEMORY = (
    (r"^encoder\.encoder_seanet\.", "encoder."),
    (r"^encoder\.(encoder_transformer|downsample)\.", r"\1."),
    (r"^decoder\.decoder_seanet\.", "decoder."),
    (r"^decoder\.(decoder_transformer|upsample)\.", r"\1."),
)
"""Names in a model of transformers' latest, and what they are called in the files that it and earlier ones save."""

PARTS = (
    (r"^(encoder|decoder)\.network\.", r"\1.layers."),
    (r"^(encoder|decoder)\.transformer\.blocks\.", r"\1_transformer.layers."),
    (r"^encoder\.down\.", "downsample."),
    (r"^decoder\.up\.", "upsample."),
    (r"\.before_attention\.", ".input_layernorm."),
    (r"\.before_mlp\.", ".post_attention_layernorm."),
    (r"\.attention_scale$", ".self_attn_layer_scale.scale"),
    (r"\.mlp_scale$", ".mlp_layer_scale.scale"),
    (r"(_transformer\..*)\.qkv\.", r"\1.self_attn.qkv_proj."),
    (r"(_transformer\..*)\.out\.", r"\1.self_attn.o_proj."),
    (r"(_transformer\..*)\.wide\.", r"\1.mlp.fc1."),
    (r"(_transformer\..*)\.narrow\.", r"\1.mlp.fc2."),
    (r"^(encoder|decoder)(\..*)\.wide\.", r"\1\2.block.1."),
    (r"^(encoder|decoder)(\..*)\.narrow\.", r"\1\2.block.3."),
)
"""Ours, and what stands there instead, one after the other."""

HALVES = {
    "first": "quantizer.semantic_residual_vector_quantizer",
    "second": "quantizer.acoustic_residual_vector_quantizer",
}
"""Of the quantizer."""
LEAST_USAGE = 1e-5
"""What the usage of an entry is clamped to, before its sum is divided by it."""


def entries(
    data: DataSpec,
    dim: int,
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    depths: Mapping[str, int],
    maps: bool,
) -> list[Entry]:
    """Every tensor, given the options of both networks, the codebooks of each half of the quantizer, and whether there
    are maps around them."""
    likelihood = likelihood_of(data)
    with torch.device("meta"):
        networks = {
            "encoder": MimiEncoder(data, dim, **encoder),
            "decoder": MimiDecoder(dim, (), likelihood, **decoder),
        }
    own = [f"decoder.likelihood.{name}" for name in likelihood.state_dict()]
    ours = [f"{kind}.{name}" for kind, network in networks.items() for name in network.state_dict()]
    return [
        *(_entry(name) for name in ours if name not in own),
        Entry([], own, only_here(*likelihood.state_dict().values())),
        *(entry for half, depth in depths.items() for entry in _quantizer(half, depth, maps)),
    ]


def _entry(ours: str) -> Entry:
    """A network's tensor."""
    theirs = ours
    for pattern, instead in PARTS:
        theirs = re.sub(pattern, instead, theirs)
    if ".qkv_proj." in theirs:
        return Entry([theirs.replace(".qkv_proj.", f".{one}_proj.") for one in "qkv"], [ours], stacked(3))
    return Entry([theirs], [ours], SAME)


def _quantizer(half: str, depth: int, maps: bool) -> Iterator[Entry]:
    """A half of the quantizer, with maps around it or not."""
    theirs, ours = HALVES[half], f"quantizer.{half}"
    if maps:
        yield Entry([f"{theirs}.input_proj.weight"], [f"{ours}.proj_in.weight"], pointwise(1))
        yield Entry([f"{theirs}.output_proj.weight"], [f"{ours}.proj_out.weight"], pointwise(1))
    stages = f"{ours}.inner.stages" if maps else f"{ours}.stages"
    for number in range(depth):
        yield Entry(
            [f"{theirs}.layers.{number}.codebook.{name}" for name in ("embed_sum", "cluster_usage", "initialized")],
            [f"{stages}.{number}.{name}" for name in ("codebook", "sums", "counts", "initialized")],
            averages(),
        )


def averages() -> Form:
    """Sums and counts of the latents of an entry, and whether they began; here the entries as well.

    Entries there are sums by counts. Where ours are no such quotient, as of an entry that was long not taken, the way
    back has for the count the power of two that is nearest, and for the sum the entry times that: so the codebook is
    the same bit for bit, and a count above 2e-5 is off by a factor of no more than the root of two.
    """

    def here(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        sums, counts, initialized = tensors
        return [_quotient(sums, counts), sums, counts, initialized.bool().reshape(())]

    def there(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        codebook, sums, counts, initialized = tensors
        power = counts.clamp(min=2 * LEAST_USAGE).log2().round().exp2()
        exact = (_quotient(sums, counts) == codebook).all(1)
        return [
            torch.where(exact.unsqueeze(1), sums, codebook * power.unsqueeze(1)),
            torch.where(exact, counts, power),
            initialized.to(counts.dtype).reshape(1),
        ]

    return Form(here, there)


def _quotient(sums: Tensor, counts: Tensor) -> Tensor:
    return sums / counts.clamp(min=LEAST_USAGE).unsqueeze(1)


def sizes(shapes: Shapes) -> dict[str, Any]:
    """What a file's shapes say of a model, as its settings, and ``latent_stride``; nothing of another layout's."""

    def at(name: str, axis: int) -> int:
        shape = shapes.get(name, ())
        return shape[axis] if len(shape) > axis else 0

    def numbers(pattern: str) -> list[int]:
        return sorted(int(match[1]) for name in shapes if (match := re.fullmatch(pattern, name)))

    layers = numbers(r"decoder\.layers\.(\d{1,3})\.conv\.weight")
    units = numbers(r"decoder\.layers\.(\d{1,3})\.block\.1\.conv\.weight")
    semantic, acoustic = (
        numbers(rf"{re.escape(half)}\.layers\.(\d{{1,4}})\.codebook\.embed_sum") for half in HALVES.values()
    )
    window = at("downsample.conv.weight", 2)
    if len(layers) < 3 or len(units) % (len(layers) - 2) or not semantic or not acoustic or window < 2:
        return {}
    first = f"{HALVES['first']}.layers.0.codebook.embed_sum"
    return {
        "audio_channels": at("encoder.layers.0.conv.weight", 1),
        "hidden_size": at("downsample.conv.weight", 0),
        "num_filters": at("encoder.layers.0.conv.weight", 0),
        "num_residual_layers": len(units) // (len(layers) - 2),
        "upsampling_ratios": [at(f"decoder.layers.{number}.conv.weight", 2) // 2 for number in layers[1:-1]],
        "codebook_size": at(first, 0),
        "codebook_dim": at(first, 1),
        "num_quantizers": len(semantic) + len(acoustic),
        "num_semantic_quantizers": len(semantic),
        "num_hidden_layers": len(numbers(r"encoder_transformer\.layers\.(\d{1,3})\.mlp\.fc1\.weight")),
        "intermediate_size": at("encoder_transformer.layers.0.mlp.fc1.weight", 0),
        "latent_stride": window // 2,
    }
