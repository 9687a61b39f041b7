"""VQGANs as taming-transformers saves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from toolkit import DataSpec
from toolkit.adopting.written import inner, number, numbers, only
from toolkit.config import RunConfig
from toolkit.family import Entry, Family, Shapes
from toolkit_image.families.names import TAMING, Names, entries, sizes
from toolkit_image.families.network import Network, Tokenizer, alike, as_published, compared, tokenizer_of

NAMES = Names(TAMING, mirrored=True)


@final
class VqganFamily(Family):
    """VQGANs of taming-transformers and latent-diffusion (Esser et al. 2021, Rombach et al. 2022): f4, f8, f16.

    The settings are ``params`` of the YAML beside the checkpoint. Without it all are read off the weights but the size
    of images, which is taken to be 256.
    """

    def settings(self, written: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
        params, seen = inner(written, "model", "params"), sizes(NAMES, shapes)
        dd = inner(params, "ddconfig")
        only(params, "these codes are a nearest entry's", remap=None, sane_index_shape=False)
        only(dd, "the latents are not a Gaussian's", double_z=False)
        only(dd, "no dropout is known", dropout=0.0)
        only(dd, "halving is done by convolutions", resamp_with_conv=True)
        multipliers = numbers(dd, "ch_mult", seen.get("multipliers", [1, 1, 2, 2, 4]), 256)
        resolution = number(dd, "resolution", 256, 1 << 14)
        grids = [resolution >> level for level in range(len(multipliers))]
        attend = numbers(dd, "attn_resolutions", [grids[n] for n in seen.get("attention", [len(grids) - 1])])
        channels = number(dd, "in_channels", seen.get("channels", 3), 4)
        only(dd, "pixels go in and come out", out_ch=channels)
        return {
            "embed_dim": number(params, "embed_dim", seen.get("dim", 256)),
            "n_embed": number(params, "n_embed", seen.get("codebook_size", 1024)),
            "ddconfig": {
                "double_z": False,
                "z_channels": number(dd, "z_channels", seen.get("bottleneck", 256)),
                "resolution": resolution,
                "in_channels": channels,
                "out_ch": channels,
                "ch": number(dd, "ch", seen.get("hidden", 128)),
                "ch_mult": multipliers,
                "num_res_blocks": number(dd, "num_res_blocks", seen.get("residual_blocks", 2), 64),
                "attn_resolutions": [grid for grid in grids if grid in attend],
                "dropout": 0.0,
            },
        }

    def data(self, settings: Mapping[str, Any]) -> DataSpec:
        return _tokenizer(settings).data()

    def words(self, settings: Mapping[str, Any]) -> list[str]:
        return _tokenizer(settings).words()

    def entries(self, settings: Mapping[str, Any]) -> list[Entry]:
        return entries(NAMES, _tokenizer(settings))

    def skipped(self, name: str) -> bool:
        """The discriminator's and the perceptual network's, and what diffusion adds to an autoencoder."""
        return name.startswith(("loss.", "model_ema."))

    def settings_of(self, config: RunConfig, data: DataSpec) -> dict[str, Any]:
        tokenizer = tokenizer_of(config, data)
        network = alike(tokenizer)
        compared(tokenizer, normalize=False)
        as_published(network, groups=32, middle_attention=True)
        grids = [tokenizer.size >> level for level in range(len(network.multipliers))]
        return {
            "embed_dim": tokenizer.dim,
            "n_embed": tokenizer.codebook_size,
            "ddconfig": {
                "double_z": False,
                "z_channels": network.bottleneck,
                "resolution": tokenizer.size,
                "in_channels": tokenizer.channels,
                "out_ch": tokenizer.channels,
                "ch": network.hidden,
                "ch_mult": list(network.multipliers),
                "num_res_blocks": network.residual_blocks,
                "attn_resolutions": [grids[-1 - level] for level in sorted(network.attention, reverse=True)],
                "dropout": 0.0,
            },
        }


def _tokenizer(settings: Mapping[str, Any]) -> Tokenizer:
    dd = settings["ddconfig"]
    lowest = len(dd["ch_mult"]) - 1
    grids = [dd["resolution"] >> level for level in range(lowest + 1)]
    network = Network(
        hidden=dd["ch"],
        multipliers=tuple(dd["ch_mult"]),
        residual_blocks=dd["num_res_blocks"],
        attention=tuple(lowest - grids.index(grid) for grid in reversed(dd["attn_resolutions"])),
        bottleneck=dd["z_channels"],
    )
    return Tokenizer(network, network, settings["embed_dim"], settings["n_embed"], dd["resolution"], dd["in_channels"])
