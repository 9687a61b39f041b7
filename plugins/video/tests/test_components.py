"""Encoder and decoder of the video plugin."""

from __future__ import annotations

import pytest
import torch

from toolkit import Autoencoder, Condition, DataSpec, Decoder, Encoder, Likelihood
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.encoder import EncoderSuite
from toolkit_video.decoder import ConvDecoder
from toolkit_video.encoder import ConvEncoder

CLIPS = DataSpec(3, (8, 8, 8), levels=256)


class TestConvEncoder(EncoderSuite):
    data = DataSpec(3, (24, 44, 48), levels=256)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return ConvEncoder(data, dim, hidden=4, residual_blocks=1)


class TestCausalConvEncoder(EncoderSuite):
    data = DataSpec(1, (36, 14, 14))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        strides = ((3, 1, 1), (1, 1, 1))
        return ConvEncoder(data, dim, hidden=4, residual_blocks=1, residual_hidden=3, strides=strides, causal=True)


class TestAttentiveConvEncoder(EncoderSuite):
    data = DataSpec(3, (8, 8, 12), levels=256)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return ConvEncoder(data, dim, hidden=4, attention=2, causal=True)


class TestFlatConvEncoder(EncoderSuite):
    data = DataSpec(1, (8, 8, 8))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return ConvEncoder(data, dim, hidden=4, residual_blocks=0, strides=())


class TestConvDecoder(DecoderSuite):
    data = DataSpec(3, (4, 8, 12), levels=5)
    grid = (2, 2, 3)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return ConvDecoder(dim, conditions, likelihood, hidden=4)


class TestAttentiveConvDecoder(TestConvDecoder):
    data = DataSpec(1, (6, 6, 4))
    grid = (2, 2, 4)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        strides = ((3, 1, 1), (1, 3, 1))
        return ConvDecoder(dim, conditions, likelihood, hidden=4, strides=strides, attention=1, causal=True)


class TestFlatConvDecoder(TestConvDecoder):
    data = DataSpec(1, (2, 5, 7))
    grid = (2, 5, 7)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return ConvDecoder(dim, conditions, likelihood, hidden=4, strides=())


@pytest.mark.parametrize("attention", [0, 2])
def test_a_prefix_of_codes_gives_the_prefix_of_frames(attention: int) -> None:
    """The causal decoder's law, which its suite cannot know."""
    torch.manual_seed(0)
    strides = ((2, 2, 2), (1, 1, 1), (3, 1, 1))
    decoder = ConvDecoder(
        5, (), NormalLikelihood(CLIPS, scale=1.0), hidden=4, strides=strides, attention=attention, causal=True
    )
    z = torch.randn(2, 5, 4, 2, 2)
    with torch.no_grad():
        whole = decoder(z, {}).mean
        assert whole is not None
        for length in range(1, 4):
            part = decoder(z[:, :, :length], {}).mean
            torch.testing.assert_close(part, whole[:, :, : 6 * length])


def test_without_causality_a_frame_depends_on_later_codes() -> None:
    torch.manual_seed(0)
    decoder, z = (
        ConvDecoder(5, (), NormalLikelihood(CLIPS, scale=1.0), hidden=4),
        torch.randn(1, 5, 4, 2, 2, requires_grad=True),
    )
    mean = decoder(z, {}).mean
    assert mean is not None
    (gradient,) = torch.autograd.grad(mean[:, :, 0].sum(), z)
    assert gradient[:, :, 1].any()


def test_attention_sees_whole_lines() -> None:
    """With a single block and no convolution wider than one, a code depends on the frames of its own lines alone."""
    torch.manual_seed(0)
    encoder = ConvEncoder(CLIPS, 2, hidden=4, residual_blocks=1, strides=(), attention=2)
    h = torch.randn(1, 4, 8, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(encoder.residual[1](h)[0, :, 2, 3, 4].sum(), h)
    seen = gradient[0].ne(0).any(0)
    expected = torch.zeros(8, 8, 8, dtype=torch.bool)
    expected[:, 3, 4] = expected[2, :, 4] = expected[2, 3, :] = True
    assert torch.equal(seen, expected)


def test_the_videogpt_grid() -> None:
    """16 x 64 x 64 to 8 x 32 x 32, of 1024 codes: 81 920 bits."""
    data = DataSpec(3, (16, 64, 64), levels=256)
    encoder = ConvEncoder(data, 16, hidden=8, strides=((2, 2, 2),), attention=2)
    decoder = ConvDecoder(16, (), NormalLikelihood(data, scale=1.0), hidden=8, strides=((2, 2, 2),), attention=2)
    code_spec = Autoencoder(data, encoder, EMAQuantizer(16, codebook_size=1024), decoder).code_spec
    assert (code_spec.grid, code_spec.rate) == ((8, 32, 32), 8 * 32 * 32 * 10)


def test_activations_keep_their_size_in_the_beginning() -> None:
    torch.manual_seed(0)
    z = ConvEncoder(CLIPS, 64, hidden=64)(torch.randint(256, (2, 3, 8, 32, 32)))
    assert 0.1 < z.std() < 5


def test_actions_reach_the_frames_of_their_code() -> None:
    torch.manual_seed(0)
    action = Condition("action", 3, per_step=True, steps_per_code=2)
    decoder = ConvDecoder(4, (action,), CategoricalLikelihood(CLIPS), hidden=4, residual_blocks=0, causal=True)
    z, actions = torch.randn(1, 4, 4, 2, 2), torch.zeros(1, 8, dtype=torch.int64)
    other = actions.clone()
    other[:, 5] = 1
    with torch.no_grad():
        one, two = (decoder(z, {"action": each}).mean for each in (actions, other))
    assert one is not None
    assert two is not None
    change = (one - two).abs().amax((0, 1, 3, 4))
    assert (change[:4] == 0).all()
    assert (change[4:6] > 0).all()


def test_strides_and_heads_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"strides=\[\[1, 0, 2\]\]: each is 1 or more"):
        ConvEncoder(CLIPS, 4, strides=((1, 0, 2),))
    with pytest.raises(ValueError, match="hidden=4 heads=3"):
        ConvEncoder(CLIPS, 4, hidden=4, attention=3)
