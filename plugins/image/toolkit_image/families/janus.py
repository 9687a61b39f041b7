"""Janus' tokenizer as transformers saves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from toolkit import DataSpec
from toolkit.adopting.written import inner, number, numbers, only
from toolkit.config import RunConfig
from toolkit.family import Entry, Family, Shapes
from toolkit_image.families.names import TAMING, Names, entries, sizes
from toolkit_image.families.network import Network, Tokenizer, alike, as_published, compared, tokenizer_of

NAMES = Names(TAMING)
WITHIN = "model.vqmodel."
"""Where a whole Janus has its tokenizer."""


@final
class JanusFamily(Family):
    """``JanusVQVAE`` of transformers, by itself or in a whole Janus: LlamaGen's VQ-16 (Wu et al. 2024).

    As in LlamaGen, codes are the entries of the most similar direction. transformers compares without scaling to
    length 1, which gives the same codes where all entries have that length, as LlamaGen's do when training begins.
    """

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        own, seen = inner(written, "vq_config"), sizes(NAMES, shapes)
        only(own, "the latents are not a Gaussian's", double_latent=False)
        multipliers = numbers(own, "channel_multiplier", seen.get("multipliers", [1, 1, 2, 2, 4]), 256)
        channels = number(own, "in_channels", seen.get("channels", 3), 4)
        only(own, "pixels go in and come out", out_channels=channels)
        return {
            "embed_dim": number(own, "embed_dim", seen.get("dim", 8)),
            "num_embeddings": number(own, "num_embeddings", seen.get("codebook_size", 16384)),
            "double_latent": False,
            "latent_channels": number(own, "latent_channels", seen.get("bottleneck", 256)),
            "num_patches": number(own, "num_patches", 32, 1 << 12),
            "in_channels": channels,
            "out_channels": channels,
            "base_channels": number(own, "base_channels", seen.get("hidden", 128)),
            "channel_multiplier": multipliers,
            "num_res_blocks": number(own, "num_res_blocks", seen.get("residual_blocks", 2), 64),
        }

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return _tokenizer(settings).data()

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        return _tokenizer(settings).words()

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        return entries(NAMES, _tokenizer(settings))

    def renamed(self, name: str) -> str:
        """Without the tokenizer's place in a whole Janus."""
        return name.removeprefix(WITHIN)

    def skipped(self, name: str) -> bool:
        """The rest of a whole Janus."""
        return name.startswith(("model.", "lm_head."))

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        tokenizer = tokenizer_of(config, data)
        network = alike(tokenizer)
        compared(tokenizer, normalize=True)
        as_published(network, groups=32, middle_attention=True, attention=(0,))
        return {
            "embed_dim": tokenizer.dim,
            "num_embeddings": tokenizer.codebook_size,
            "double_latent": False,
            "latent_channels": network.bottleneck,
            "num_patches": tokenizer.size // network.shrinks,
            "in_channels": tokenizer.channels,
            "out_channels": tokenizer.channels,
            "base_channels": network.hidden,
            "channel_multiplier": list(network.multipliers),
            "num_res_blocks": network.residual_blocks,
        }


def _tokenizer(settings: Mapping[str, Any]) -> Tokenizer:
    network = Network(
        hidden=settings["base_channels"],
        multipliers=tuple(settings["channel_multiplier"]),
        residual_blocks=settings["num_res_blocks"],
        bottleneck=settings["latent_channels"],
    )
    size = settings["num_patches"] * network.shrinks
    dim, entries_ = settings["embed_dim"], settings["num_embeddings"]
    return Tokenizer(network, network, dim, entries_, size, settings["in_channels"], normalize=True)
