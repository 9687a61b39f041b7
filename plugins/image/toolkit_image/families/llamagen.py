"""LlamaGen's tokenizers as its authors save them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

from toolkit import DataSpec
from toolkit.adopting.written import number, numbers, only
from toolkit.config import RunConfig
from toolkit.family import Entry, Family, Shapes
from toolkit_image.families.names import LLAMAGEN, Names, entries, sizes
from toolkit_image.families.network import Network, Tokenizer, alike, as_published, compared, tokenizer_of

NAMES = Names(LLAMAGEN)


@final
class LlamagenFamily(Family):
    """VQ-8 and VQ-16 of LlamaGen (Sun et al. 2024): VQGANs whose codes are the entries of the most similar direction.

    Its checkpoints have no settings beside them: all are read off the weights but the size of images, which is taken
    to be 256, the default of ``--image-size`` there.
    """

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        seen = sizes(NAMES, shapes)
        only(written, "codes are compared by direction", codebook_l2_norm=True)
        only(written, "no dropout is known", dropout_p=0.0)
        return {
            "codebook_size": number(written, "codebook_size", seen.get("codebook_size", 16384)),
            "codebook_embed_dim": number(written, "codebook_embed_dim", seen.get("dim", 8)),
            "codebook_l2_norm": True,
            "ch": number(written, "ch", seen.get("hidden", 128)),
            "encoder_ch_mult": numbers(written, "encoder_ch_mult", seen.get("multipliers", [1, 1, 2, 2, 4]), 256),
            "decoder_ch_mult": numbers(
                written, "decoder_ch_mult", seen.get("decoder_multipliers", [1, 1, 2, 2, 4]), 256
            ),
            "num_res_blocks": number(written, "num_res_blocks", seen.get("residual_blocks", 2), 64),
            "z_channels": number(written, "z_channels", seen.get("bottleneck", 256)),
            "in_channels": number(written, "in_channels", seen.get("channels", 3), 4),
            "dropout_p": 0.0,
            "image_size": number(written, "image_size", 256, 1 << 14),
        }

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return _tokenizer(settings).data()

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        return _tokenizer(settings).words()

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        return entries(NAMES, _tokenizer(settings))

    def skipped(self, name: str) -> bool:
        """The counter of used entries, and what training adds: discriminator and perceptual network."""
        return name == "quantize.codebook_used" or name.startswith("loss.")

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        tokenizer = tokenizer_of(config, data)
        network = alike(tokenizer, but=["multipliers"])
        compared(tokenizer, normalize=True)
        as_published(network, groups=32, middle_attention=True, attention=(0,))
        return {
            "codebook_size": tokenizer.codebook_size,
            "codebook_embed_dim": tokenizer.dim,
            "codebook_l2_norm": True,
            "ch": network.hidden,
            "encoder_ch_mult": list(network.multipliers),
            "decoder_ch_mult": list(tokenizer.decoder.multipliers),
            "num_res_blocks": network.residual_blocks,
            "z_channels": network.bottleneck,
            "in_channels": tokenizer.channels,
            "dropout_p": 0.0,
            "image_size": tokenizer.size,
        }


def _tokenizer(settings: Mapping[str, Any]) -> Tokenizer:
    network = Network(
        hidden=settings["ch"],
        multipliers=tuple(settings["encoder_ch_mult"]),
        residual_blocks=settings["num_res_blocks"],
        bottleneck=settings["z_channels"],
    )
    return Tokenizer(
        network,
        replace(network, multipliers=tuple(settings["decoder_ch_mult"])),
        settings["codebook_embed_dim"],
        settings["codebook_size"],
        settings["image_size"],
        settings["in_channels"],
        normalize=True,
    )
