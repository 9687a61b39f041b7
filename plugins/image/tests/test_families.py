"""Families of image tokenizers, against independent implementations with random weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from toolkit import DataSpec, ToolkitError
from toolkit.adopting.mapping import to_theirs
from toolkit.cli.config.compose import compose
from toolkit.dataset import Dataset
from toolkit.family import Family
from toolkit.testing import FamilySuite
from toolkit.testing.family import Publication
from toolkit_image.families.janus import JanusFamily
from toolkit_image.families.llamagen import LlamagenFamily
from toolkit_image.families.vqgan import VqganFamily
from toolkit_image.families.vqmodel import VqmodelFamily
from toolkit_image.folder import FolderDataset

TINY_VQMODEL = {
    "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "latent_channels": 8,
    "sample_size": 16,
    "num_vq_embeddings": 64,
    "norm_num_groups": 8,
    "vq_embed_dim": 4,
}
AMUSED = {
    "down_block_types": ["DownEncoderBlock2D"] * 5,
    "up_block_types": ["UpDecoderBlock2D"] * 5,
    "block_out_channels": [128, 256, 256, 512, 768],
    "layers_per_block": 2,
    "latent_channels": 64,
    "sample_size": 64,
    "num_vq_embeddings": 8192,
    "vq_embed_dim": 64,
    "mid_block_add_attention": False,
}
"""The sizes of aMUSEd's, on smaller images."""
TINY_JANUS = {
    "base_channels": 32,
    "channel_multiplier": [1, 2],
    "num_res_blocks": 1,
    "latent_channels": 16,
    "embed_dim": 4,
    "num_embeddings": 64,
    "num_patches": 8,
}
VQ16 = {"num_patches": 4}
"""The published sizes, on smaller images."""


def spread(codebook: nn.Embedding) -> None:
    """Entries of length 1: as they are drawn by default, all codes are the same few."""
    with torch.no_grad():
        codebook.weight.copy_(F.normalize(torch.randn_like(codebook.weight), dim=1))


@cache
def vqmodel(sizes: str) -> Any:
    module = pytest.importorskip("diffusers.models.autoencoders.vq_model")
    torch.manual_seed(0)
    model = module.VQModel(**{"tiny": TINY_VQMODEL, "amused": AMUSED}[sizes]).eval()
    spread(model.quantize.embedding)
    return model


@cache
def janus(sizes: str) -> Any:
    """With PyTorch's own weights: transformers draws them so small that all images come out gray."""
    configuration = pytest.importorskip("transformers.models.janus.configuration_janus")
    modeling = pytest.importorskip("transformers.models.janus.modeling_janus")
    torch.manual_seed(0)
    model = modeling.JanusVQVAE(configuration.JanusVQVAEConfig(**{"tiny": TINY_JANUS, "vq16": VQ16}[sizes])).eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            module.reset_parameters()
    spread(model.quantize.embedding)
    return model


def pixels(n: int, size: int) -> Tensor:
    return torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(1))


def scaled(x: Tensor) -> Tensor:
    return x / 127.5 - 1


def a_folder(folder: Path, size: int) -> Dataset:
    for split in ("train", "val", "test"):
        (folder / split).mkdir()
        Image.new("RGB", (size + 3, size)).save(folder / split / "a.png")
    return FolderDataset(root=str(folder), size=size)


class TestVqmodel(FamilySuite):
    sizes = "tiny"

    def family(self) -> Family:
        return VqmodelFamily()

    def publication(self) -> Publication:
        model = vqmodel(self.sizes)
        return Publication(dict(model.config), model.state_dict())

    def data(self) -> Tensor:
        return pixels(20, vqmodel(self.sizes).config["sample_size"])

    def encoded(self, x: Tensor) -> Tensor:
        model = vqmodel(self.sizes)
        z = model.encode(scaled(x)).latents
        return cast(Tensor, model.quantize(z)[2][2].view(len(x), 1, *z.shape[2:]))

    def decoded(self, codes: Tensor) -> Tensor:
        model = vqmodel(self.sizes)
        n, _, height, width = codes.shape
        entries = model.quantize.get_codebook_entry(codes.flatten(), (n, height, width, -1))
        return cast(Tensor, model.decode(entries, force_not_quantize=True).sample)

    def dataset(self, folder: Path) -> Dataset:
        return a_folder(folder, vqmodel(self.sizes).config["sample_size"])


@pytest.mark.slow
class TestAmused(TestVqmodel):
    """At this depth either side is some 1e-5 off what float64 gives."""

    sizes = "amused"
    tolerance = 1e-4


@pytest.mark.slow
class TestJanus(FamilySuite):
    sizes = "tiny"

    def family(self) -> Family:
        return JanusFamily()

    def publication(self) -> Publication:
        model = janus(self.sizes)
        return Publication(model.config.to_dict(), model.state_dict())

    def data(self) -> Tensor:
        return pixels(20, self.size)

    def encoded(self, x: Tensor) -> Tensor:
        codes: Tensor = janus(self.sizes).encode(scaled(x)).image_tokens
        side = janus(self.sizes).config.num_patches
        return codes.view(len(x), 1, side, side)

    def decoded(self, codes: Tensor) -> Tensor:
        return cast(Tensor, janus(self.sizes).decode(codes.flatten(1)))

    def dataset(self, folder: Path) -> Dataset:
        return a_folder(folder, self.size)

    @property
    def size(self) -> int:
        config = janus(self.sizes).config
        return int(config.num_patches << (len(config.channel_multiplier) - 1))


@pytest.mark.slow
class TestWholeJanus(TestJanus):
    """The tokenizer where a language model is around it."""

    def publication(self) -> Publication:
        own = {f"model.vqmodel.{name}": tensor for name, tensor in janus(self.sizes).state_dict().items()}
        others = {"model.language_model.norm.weight": torch.ones(8), "lm_head.weight": torch.ones(8, 8)}
        return Publication({"vq_config": janus(self.sizes).config.to_dict()}, {**own, **others})


@pytest.mark.slow
class TestJanusAtItsSize(TestJanus):
    """As TestAmused."""

    sizes = "vq16"
    tolerance = 1e-4

    def test_in_float64_the_data_are_equal(self) -> None:
        ours, theirs = (deepcopy(model).double() for model in (self._held.stage.model.eval(), janus(self.sizes)))
        codes = torch.randint(16384, (2, 1, 4, 4), generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            mean = ours.decode(ours.embed(codes), {}).mean
            entries = F.normalize(ours.quantizer.codebook, dim=1)[codes[:, 0]].movedim(-1, 1)
            expected = theirs.decoder(theirs.post_quant_conv(entries))
        torch.testing.assert_close(mean, expected, rtol=0, atol=1e-10)


def renamed(tensors: Mapping[str, Tensor], *rules: tuple[str, str]) -> dict[str, Tensor]:
    changed = {}
    for name, tensor in tensors.items():
        for pattern, instead in rules:
            name = re.sub(pattern, instead, name)
        changed[name] = tensor
    return changed


@pytest.mark.slow
class TestLlamagen(TestJanus):
    """Janus' tokenizer under the names that LlamaGen's own code gives it."""

    def family(self) -> Family:
        return LlamagenFamily()

    def publication(self) -> Publication:
        names = renamed(
            janus(self.sizes).state_dict(),
            (r"^(encoder|decoder)\.(down|up)\.", r"\1.conv_blocks."),
            (r"\.block\.", ".res."),
            (r"\.mid\.block_1\.", ".mid.0."),
            (r"\.mid\.attn_1\.", ".mid.1."),
            (r"\.mid\.block_2\.", ".mid.2."),
        )
        return Publication({"image_size": self.size}, {**names, "quantize.codebook_used": torch.zeros(65536)})


@pytest.mark.slow
class TestVqgan(TestJanus):
    """The same network under the names of taming-transformers, where the decoder's first level is the widest grid; and
    entries of one length are nearest where they are most similar."""

    def family(self) -> Family:
        return VqganFamily()

    def publication(self) -> Publication:
        levels = len(janus(self.sizes).config.channel_multiplier)
        names = {
            re.sub(r"^decoder\.up\.(\d+)", lambda level: f"decoder.up.{levels - 1 - int(level[1])}", name): tensor
            for name, tensor in janus(self.sizes).state_dict().items()
        }
        discriminator = {"loss.discriminator.main.0.weight": torch.ones(8, 3, 4, 4)}
        return Publication({"model": {"params": {"ddconfig": {"resolution": self.size}}}}, {**names, **discriminator})


def test_ours_load_in_diffusers() -> None:
    """None missing and none unexpected, and it computes what ours do."""
    model, suite = vqmodel("tiny"), TestVqmodel()
    family, held = suite.family(), suite._held
    with torch.no_grad():
        ours = held.stage.model.eval()
        for parameter in ours.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    settings = family.settings_of(held.config, held.data)
    other = type(model).from_config(settings).eval()
    told = other.load_state_dict(to_theirs(family.entries(settings), ours.state_dict()))
    assert not told.missing_keys
    assert not told.unexpected_keys
    x = suite.data()
    with torch.no_grad():
        expected = ours.decode(ours.quantize(x).z, {}).mean
        assert expected is not None
        torch.testing.assert_close(other(scaled(x)).sample, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", [VqganFamily(), LlamagenFamily(), JanusFamily(), VqmodelFamily()])
def test_settings_that_a_stranger_wrote_are_refused_by_name(family: Family) -> None:
    complete = family.settings({}, {})
    for key, value in complete.items():
        for wrong in ("a", [["b"]], -1, {"c": 1}, 1 << 70):
            if wrong != value and not (key == "ddconfig" and wrong == {"c": 1}):
                with pytest.raises(ToolkitError, match=key):
                    family.settings({**complete, key: wrong}, {})


def test_published_sizes_without_settings() -> None:
    """What each layout is taken to be where nothing is known of it."""
    assert VqganFamily().data(VqganFamily().settings({}, {})) == DataSpec(3, (256, 256), levels=256)
    taming = VqganFamily().settings({}, {})
    assert taming["ddconfig"]["attn_resolutions"] == [16]
    assert (taming["n_embed"], taming["embed_dim"]) == (1024, 256)
    assert JanusFamily().data(JanusFamily().settings({}, {})).axes == (512, 512)


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["encoder=image_conv"], ["encoder=image_conv", "image_vqgan"]),
        (["quantizer=ema"], ["quantizer=ema", "vq"]),
        (["likelihood=logistic"], ["likelihood=logistic", "normal"]),
        (["decoder.groups=16"], ["decoder.groups=16"]),
        (["quantizer.normalize=false"], ["quantizer.normalize=false"]),
        (["encoder.attention=[1]", "decoder.attention=[1]"], ["encoder.attention=[1]"]),
        (["conditions.decoder=[class]"], ["conditions.decoder=[class]"]),
    ],
)
def test_runs_of_other_parts_are_refused_by_option(words: list[str], names: list[str]) -> None:
    family = LlamagenFamily()
    settings = family.settings({}, {})
    replaced = {word.split("=")[0] for word in words if "." not in word}
    own = [word for word in family.words(settings) if re.split("[.=]", word)[0] not in replaced]
    config = compose([*own, "dataset.root=none", *words]).config
    with pytest.raises(ToolkitError) as error:
        family.settings_of(config, family.data(settings))
    assert all(name in str(error.value) for name in names)
