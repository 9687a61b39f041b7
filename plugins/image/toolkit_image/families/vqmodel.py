"""VQModel of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from toolkit import DataSpec, ToolkitError
from toolkit.adopting.written import number, numbers, only, truth
from toolkit.config import RunConfig
from toolkit.family import Entry, Family, Shapes
from toolkit_image.families.names import DIFFUSERS, Names, entries, sizes
from toolkit_image.families.network import Network, Tokenizer, alike, compared, tokenizer_of

NAMES = Names(DIFFUSERS, convolutions=False)
DOWN = {True: "AttnDownEncoderBlock2D", False: "DownEncoderBlock2D"}
"""What a level of the encoder is called there, by whether it attends."""
UP = {True: "AttnUpDecoderBlock2D", False: "UpDecoderBlock2D"}
UNSET = 32
"""The ``sample_size`` of models whose publisher left it as it was, or gave that of the codes."""


@final
class VqmodelFamily(Family):
    """``VQModel`` of diffusers: the VQGANs of latent diffusion, VQ-Diffusion and aMUSEd (Patil et al. 2024).

    A ``sample_size`` of 32, which models have whose publisher set none, is taken to be 256.
    """

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        seen = sizes(NAMES, shapes)
        only(written, "its norms are of groups", norm_type="group")
        only(written, "its activation is swish", act_fn="silu")
        seen_widths = [seen["hidden"] * multiplier for multiplier in seen["multipliers"]] if seen else [64]
        widths = numbers(written, "block_out_channels", seen_widths)
        if not widths or any(width % widths[0] for width in widths):
            raise ToolkitError(f"block_out_channels={widths}: parts of ours have multiples of the first")
        attend = [level in seen.get("attention", ()) for level in range(len(widths))]
        channels = number(written, "in_channels", seen.get("channels", 3), 4)
        only(written, "pixels go in and come out", out_channels=channels)
        latent = number(written, "latent_channels", seen.get("bottleneck", 3))
        size = number(written, "sample_size", UNSET, 1 << 14)
        dim = {"vq_embed_dim": written.get("vq_embed_dim") or seen.get("dim", latent)}
        down, up = (
            _kinds(written, "down_block_types", DOWN, attend),
            _kinds(written, "up_block_types", UP, attend[::-1]),
        )
        if [kind == DOWN[True] for kind in down] != [kind == UP[True] for kind in reversed(up)]:
            raise ToolkitError(f"up_block_types={up}: parts of ours attend where down_block_types={down} do")
        return {
            "in_channels": channels,
            "out_channels": channels,
            "down_block_types": down,
            "up_block_types": up,
            "block_out_channels": widths,
            "layers_per_block": number(written, "layers_per_block", seen.get("residual_blocks", 1), 64),
            "act_fn": "silu",
            "latent_channels": latent,
            "sample_size": 256 if size == UNSET else size,
            "num_vq_embeddings": number(written, "num_vq_embeddings", seen.get("codebook_size", 256)),
            "norm_num_groups": number(written, "norm_num_groups", 32),
            "vq_embed_dim": number(dim, "vq_embed_dim", latent),
            "norm_type": "group",
            "mid_block_add_attention": truth(written, "mid_block_add_attention", seen.get("middle_attention", True)),
        }

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return _tokenizer(settings).data()

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        return _tokenizer(settings).words()

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        return entries(NAMES, _tokenizer(settings))

    def skipped(self, name: str) -> bool:
        """Nothing: there are weights alone."""
        return False

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        tokenizer = tokenizer_of(config, data)
        network = alike(tokenizer)
        compared(tokenizer, normalize=False)
        attend = [level in network.attention for level in range(len(network.multipliers))]
        return {
            "in_channels": tokenizer.channels,
            "out_channels": tokenizer.channels,
            "down_block_types": [DOWN[attends] for attends in reversed(attend)],
            "up_block_types": [UP[attends] for attends in attend],
            "block_out_channels": [network.hidden * multiplier for multiplier in network.multipliers],
            "layers_per_block": network.residual_blocks,
            "act_fn": "silu",
            "latent_channels": network.bottleneck,
            "sample_size": tokenizer.size,
            "num_vq_embeddings": tokenizer.codebook_size,
            "norm_num_groups": network.groups,
            "vq_embed_dim": tokenizer.dim,
            "norm_type": "group",
            "mid_block_add_attention": network.middle_attention,
        }


def _kinds(written: Mapping[str, Any], key: str, kinds: Mapping[bool, str], attend: Sequence[bool]) -> list[str]:
    """The kinds of the levels' blocks; ToolkitError, naming the setting, for one that parts of ours do not have."""
    values = written.get(key, [kinds[attends] for attends in attend])
    known = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == len(attend)
    if not known or any(value not in kinds.values() for value in values):
        names = " or ".join(kinds.values())
        raise ToolkitError(f"{key}={str(values)[:80]}: expected {names}, once for each of block_out_channels")
    return list(values)


def _tokenizer(settings: Mapping[str, Any]) -> Tokenizer:
    widths = settings["block_out_channels"]
    network = Network(
        hidden=widths[0],
        multipliers=tuple(width // widths[0] for width in widths),
        residual_blocks=settings["layers_per_block"],
        attention=tuple(level for level, kind in enumerate(settings["up_block_types"]) if kind == UP[True]),
        middle_attention=settings["mid_block_add_attention"],
        bottleneck=settings["latent_channels"],
        groups=settings["norm_num_groups"],
    )
    dim, entries_ = settings["vq_embed_dim"], settings["num_vq_embeddings"]
    return Tokenizer(network, network, dim, entries_, settings["sample_size"], settings["in_channels"])
