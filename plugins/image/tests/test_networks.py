"""VQGAN's networks, transformers over patches, and latents that belong to no place."""

from __future__ import annotations

import pytest
import torch

from toolkit import Autoencoder, Condition, DataSpec, Decoder, Encoder, Likelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.encoder import EncoderSuite
from toolkit_image.latents_decoder import LatentsDecoder
from toolkit_image.latents_encoder import LatentsEncoder
from toolkit_image.vit_blocks import sines
from toolkit_image.vit_decoder import VitDecoder
from toolkit_image.vit_encoder import VitEncoder
from toolkit_image.vqgan_decoder import VqganDecoder
from toolkit_image.vqgan_encoder import VqganEncoder

PIXELS = DataSpec(3, (256, 256), levels=256)


class TestVqganEncoder(EncoderSuite):
    data = DataSpec(3, (8, 12), levels=256)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return VqganEncoder(data, dim, hidden=8, multipliers=(1, 2), residual_blocks=1, bottleneck=4, groups=4)


class TestVqganDecoder(DecoderSuite):
    data = DataSpec(3, (8, 12), levels=5)
    grid = (4, 6)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        sizes = {"hidden": 8, "residual_blocks": 1, "bottleneck": 4, "groups": 4}
        return VqganDecoder(dim, conditions, likelihood, multipliers=(1, 2), **sizes)


class TestVitEncoder(EncoderSuite):
    data = DataSpec(3, (8, 12), levels=256)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return VitEncoder(data, dim, patch=4, hidden=8, layers=2, heads=2)


class TestVitDecoder(DecoderSuite):
    data = DataSpec(3, (8, 12), levels=5)
    grid = (2, 3)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return VitDecoder(dim, grid, conditions, likelihood, patch=4, hidden=8, layers=2, heads=2)


class TestLatentsEncoder(EncoderSuite):
    data = DataSpec(3, (8, 12), levels=256)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return LatentsEncoder(data, dim, latents=5, patch=4, hidden=8, layers=2, heads=2)


class TestLatentsDecoder(DecoderSuite):
    data = DataSpec(3, (8, 12), levels=5)
    grid = (5, 1)
    least_of_latents = 0.005  # patches read them through attention, which begins as a mean

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return LatentsDecoder(data, dim, grid, conditions, likelihood, patch=4, hidden=8, layers=2, heads=2)


def parameters(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_vqgan_is_as_large_as_what_is_published() -> None:
    """LlamaGen's VQ-16 has 71.88 M parameters, and 16384 entries of 8 numbers are among them."""
    with torch.device("meta"):
        likelihood = NormalLikelihood(PIXELS, scale=0.2)
        model = VqganEncoder(PIXELS, 8), VqganDecoder(8, (), likelihood)
    assert parameters(*model) + 16384 * 8 == 71_883_403


def test_the_vit_is_the_papers_small() -> None:
    """Eight blocks of 512 channels: 12 x 512 x 512 weights each, 32 x 32 latents."""
    with torch.device("meta"):
        encoder = VitEncoder(PIXELS, 32)
        blocks = parameters(*encoder.transformer.blocks)
        z = encoder(torch.zeros(1, *PIXELS.shape))
    assert blocks == 8 * (12 * 512**2 + 13 * 512)
    assert z.shape == (1, 32, 32, 32)


def test_an_image_is_a_row_of_codes() -> None:
    """As many as there are queries, whatever the image's size."""
    data = DataSpec(3, (16, 32))
    encoder = LatentsEncoder(data, 4, latents=7, patch=8, hidden=8, layers=1, heads=1)
    decoder = LatentsDecoder(
        data, 4, (7, 1), (), NormalLikelihood(data, scale=1.0), patch=8, hidden=8, layers=1, heads=1
    )
    model = Autoencoder(data, encoder, VectorQuantizer(4, codebook_size=16), decoder)
    assert model.code_spec.shape == (1, 7, 1)
    assert model.code_spec.rate == 7 * 4


def test_a_query_reads_every_patch_and_every_patch_is_read_by_a_mask() -> None:
    """Unlike a convolution's, a latent changes with any pixel, and any pixel with a latent."""
    torch.manual_seed(0)
    data = DataSpec(1, (8, 8))
    encoder = LatentsEncoder(data, 2, latents=3, patch=4, hidden=8, layers=1, heads=1)
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    encoder(x)[0, 0, 2, 0].backward()
    assert x.grad is not None
    assert (x.grad != 0).all()
    decoder = LatentsDecoder(
        data, 2, (3, 1), (), NormalLikelihood(data, scale=1.0), patch=4, hidden=8, layers=1, heads=1
    )
    z = torch.zeros(1, 2, 3, 1, requires_grad=True)
    (rate,) = torch.autograd.grad(decoder(z, {}).mean[0, 0, 7, 7], z)  # type: ignore[index]
    assert (rate != 0).all()


def test_positions_differ_and_go_on() -> None:
    """Every position has its own sines, as long as any other, and a larger grid begins with those of a smaller one."""
    table = sines((6, 5), 8, None)
    assert torch.cdist(table, table).fill_diagonal_(1).min() > 0.1
    torch.testing.assert_close(table.square().sum(1), torch.full((30,), 4.0))
    assert torch.equal(sines((9, 7), 8, None).view(9, 7, 8)[:6, :5].flatten(0, 1), table)


def test_a_vqgan_shrinks_and_grows_to_other_sizes() -> None:
    """Its weights know no grid."""
    torch.manual_seed(0)
    small = DataSpec(3, (16, 16))
    encoder = VqganEncoder(small, 4, hidden=8, multipliers=(1, 1, 1), residual_blocks=1, bottleneck=4, groups=4)
    assert encoder(torch.zeros(1, 3, 24, 40)).shape == (1, 4, 6, 10)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"multipliers": ()}, ["multipliers=[]"]),
        ({"attention": (5,)}, ["attention=[5]", "5 levels"]),
        ({"hidden": 40}, ["hidden=40", "groups=32"]),
        ({"multipliers": (1,) * 10}, ["multipliers=", "512", "(256, 256)"]),
    ],
)
def test_sizes_that_cannot_be(options: dict[str, object], names: list[str]) -> None:
    with pytest.raises(ValueError, match="=") as error:
        VqganEncoder(PIXELS, 8, **options)  # type: ignore[arg-type]
    assert all(name in str(error.value) for name in names)


def test_patches_that_do_not_fill_an_image() -> None:
    with pytest.raises(ValueError, match=r"patch=7.*256"):
        VitEncoder(PIXELS, 8, patch=7)
    with pytest.raises(ValueError, match=r"hidden=6.*4"):
        VitEncoder(PIXELS, 8, hidden=6, heads=1)
