"""Encoder and decoder of the image plugin."""

from __future__ import annotations

import pytest
import torch

from toolkit import Autoencoder, Condition, DataSpec, Decoder, Encoder, Likelihood
from toolkit.decoders import conv as conv_decoder
from toolkit.encoders import conv as conv_encoder
from toolkit.fit import MisfitError
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.nn.conv import Up
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.encoder import EncoderSuite
from toolkit_image.decoder import ConvDecoder
from toolkit_image.encoder import ConvEncoder

CIFAR = DataSpec(3, (32, 32), levels=256)


class TestConvEncoder(EncoderSuite):
    data = DataSpec(3, (56, 64), levels=256)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return ConvEncoder(data, dim, hidden=8)


class TestNarrowConvEncoder(EncoderSuite):
    data = DataSpec(1, (48, 48))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return ConvEncoder(data, dim, hidden=8, residual_hidden=3, residual_blocks=1, strides=(3, 2))


class TestFlatConvEncoder(EncoderSuite):
    data = DataSpec(1, (16, 16))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return ConvEncoder(data, dim, hidden=4, strides=())


class TestConvDecoder(DecoderSuite):
    data = DataSpec(3, (12, 16), levels=5)
    grid = (3, 4)
    upsampling: Up = "transposed"

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return ConvDecoder(dim, conditions, likelihood, hidden=8, upsampling=self.upsampling)


class TestNarrowConvDecoder(TestConvDecoder):
    data = DataSpec(1, (12, 18))
    grid = (2, 3)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return ConvDecoder(dim, conditions, likelihood, hidden=8, residual_hidden=3, strides=(2, 3))


class TestRepeatingConvDecoder(TestConvDecoder):
    upsampling = "nearest"


class TestFlatConvDecoder(TestConvDecoder):
    data = DataSpec(1, (5, 7))
    grid = (5, 7)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return ConvDecoder(dim, conditions, likelihood, hidden=4, strides=())


def shapes(module: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for name, p in module.named_parameters() if name.endswith("weight")]


def biases(module: torch.nn.Module) -> int:
    return sum(p.numel() for name, p in module.named_parameters() if name.endswith("bias"))


def test_the_encoder_is_the_papers() -> None:
    """Two 4x4 convolutions of stride 2 and two residual blocks of 3x3 and 1x1, 256 units everywhere."""
    encoder = ConvEncoder(CIFAR, 640)
    residual = [(256, 256, 3, 3), (256, 256, 1, 1)] * 2
    assert shapes(encoder) == [(256, 3, 4, 4), (256, 256, 4, 4), *residual, (640, 256, 1, 1)]
    assert biases(encoder) == 6 * 256 + 640
    assert encoder(torch.zeros(2, 3, 32, 32).long()).shape == (2, 640, 8, 8)


def test_the_decoder_is_the_papers() -> None:
    """Two residual blocks and two transposed 4x4 convolutions of stride 2; a 3x3 brings the latents in."""
    decoder = ConvDecoder(640, (), CategoricalLikelihood(CIFAR))
    residual = [(256, 256, 3, 3), (256, 256, 1, 1)] * 2
    assert shapes(decoder) == [(256, 640, 3, 3), *residual, (256, 256, 4, 4), (256, 768, 4, 4)]
    assert biases(decoder) == 6 * 256 + 768
    assert decoder(torch.zeros(2, 640, 8, 8), {}).shape == (3, 32, 32)


def test_it_is_the_cores_conv_over_two_axes() -> None:
    """Number by number, from the same seed."""
    likelihood, x, z = CategoricalLikelihood(CIFAR), torch.randint(256, (2, 3, 32, 32)), torch.randn(2, 5, 8, 8)
    torch.manual_seed(0)
    parts = ConvEncoder(CIFAR, 5, hidden=8), ConvDecoder(5, (), likelihood, hidden=8)
    torch.manual_seed(0)
    core = conv_encoder.ConvEncoder(CIFAR, 5, hidden=8), conv_decoder.ConvDecoder(5, (8, 8), (), likelihood, hidden=8)
    assert torch.equal(parts[0](x), core[0](x))
    assert torch.equal(parts[1](z, {}).log_prob(x), core[1](z, {}).log_prob(x))


def test_the_papers_model_spends_5760_bits() -> None:
    encoder = ConvEncoder(CIFAR, 640, hidden=8)
    quantizer = ProductQuantizer(640, groups=10)
    decoder = ConvDecoder(640, (), CategoricalLikelihood(CIFAR), hidden=8)
    code_spec = Autoencoder(CIFAR, encoder, quantizer, decoder).code_spec
    assert code_spec.shape == (10, 8, 8)
    assert code_spec.rate == 8 * 8 * 10 * 9


def test_activations_keep_their_size_in_the_beginning() -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(CIFAR, 64, hidden=64)
    z = encoder(torch.randint(256, (8, 3, 32, 32)))
    assert 0.2 < z.std() < 5


def test_strides_that_differ_are_a_misfit() -> None:
    encoder, quantizer = ConvEncoder(CIFAR, 8, hidden=4), VectorQuantizer(8, codebook_size=4)
    decoder = ConvDecoder(8, (), CategoricalLikelihood(CIFAR), hidden=4, strides=(2,))
    with pytest.raises(MisfitError, match=r"\(3, 16, 16\), the data is \(3, 32, 32\).*\(8, 8\).*strides"):
        Autoencoder(CIFAR, encoder, quantizer, decoder)


def test_a_condition_per_row_reaches_its_rows() -> None:
    torch.manual_seed(0)
    line = Condition("line", 2, per_step=True)
    decoder = ConvDecoder(4, (line,), CategoricalLikelihood(CIFAR), hidden=4, residual_blocks=0)
    z, rows = torch.randn(1, 4, 8, 8), torch.zeros(1, 32, dtype=torch.int64)
    other = rows.clone()
    other[:, :4] = 1
    with torch.no_grad():
        change = (decoder(z, {"line": rows}).mean - decoder(z, {"line": other}).mean).abs().amax((0, 1, 3))  # type: ignore[operator]
    assert (change[:4] > 0).all()
    assert (change[12:] == 0).all()
