"""Mimi's encoder and decoder, and the attention between their convolutions."""

from __future__ import annotations

import pytest
import torch

from toolkit import Autoencoder, Condition, DataSpec, Decoder, Encoder, Likelihood
from toolkit.flow import Flow
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.split import SplitQuantizer
from toolkit.sample import decode
from toolkit.streams import StreamDecoder, StreamEncoder
from toolkit.testing.context import close_to, in_float64, randomized
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.encoder import EncoderSuite
from toolkit_audio.causal_conv import CausalConv
from toolkit_audio.mimi_decoder import MimiDecoder
from toolkit_audio.mimi_encoder import MimiEncoder
from toolkit_audio.sliding_attention import attend_to_latest, turned, turns


class TestMimiEncoder(EncoderSuite):
    data = DataSpec(1, (10 * 12,), levels=256, rates=(8000.0,))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return MimiEncoder(data, dim, hidden=2, strides=(2, 3), dilations=(1, 2), layers=2, heads=3, window=3, mlp=8)


class TestMimiDecoder(DecoderSuite):
    data = DataSpec(1, (5 * 12,), levels=16, rates=(8000.0,))
    grid = (5,)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        options = {"hidden": 2, "strides": (3, 2), "layers": 2, "heads": 3, "window": 3, "mlp": 8}
        return MimiDecoder(dim, conditions, likelihood, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("window", [1, 4])
def test_a_position_sees_itself_and_the_latest_before_it(length: int, window: int) -> None:
    """However the positions are taken together."""
    query, key, value = torch.randn(3, 2, 3, length, 6, dtype=torch.float64)
    expected = torch.zeros_like(value)
    for i in range(length):
        seen = slice(max(0, i + 1 - window), i + 1)
        weights = (query[:, :, i : i + 1] @ key[:, :, seen].mT * 6**-0.5).softmax(3)
        expected[:, :, i] = (weights @ value[:, :, seen]).squeeze(2)
    torch.testing.assert_close(attend_to_latest(query, key, value, window), expected)


def test_a_turn_is_by_the_distance_alone() -> None:
    """Products of a query and a key after their turns depend on how far apart they are, and on no more."""
    query, key = torch.randn(2, 6, dtype=torch.float64)
    cos, sin = turns(20, 6, query)
    queries, keys = (turned(t.expand(20, -1), cos, sin) for t in (query, key))
    products = queries @ keys.T
    for ago in (0, 1, 7):
        along = products.diagonal(-ago)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    torch.testing.assert_close(products[0, 0], query @ key)
    assert not torch.allclose(products[1, 0], products[0, 0])


@pytest.mark.long
@torch.no_grad()
def test_what_arrives_gives_what_the_whole_gives() -> None:
    """Codes as soon as their own samples are there, and sound as soon as its code is; far more than a context."""
    data = DataSpec(1, (24 * 12,), varying=(True,), rates=(8000.0,))
    sizes = {"hidden": 2, "layers": 2, "heads": 2, "window": 3, "mlp": 8}
    encoder = MimiEncoder(data, 8, strides=(2, 3), **sizes)  # type: ignore[arg-type]
    decoder = MimiDecoder(8, (), NormalLikelihood(data, scale=0.1), strides=(3, 2), **sizes)  # type: ignore[arg-type]
    quantizer = SplitQuantizer(8, first=small_ema, second=small_ema)
    model, x = randomized(Autoencoder(data, encoder, quantizer, decoder).eval()), torch.rand(2, 1, 24 * 12) * 2 - 1
    assert max(encoder.context[0] // 12, decoder.context[0]) < 12  # type: ignore[index]
    with in_float64():
        codes = model.quantize(x.double()).codes
        arriving = StreamEncoder(Flow(model), data, model.code_spec, lambda n: {})
        assert arriving.latency == 12
        pieces = [arriving.push(piece) for piece in x.double().split(7, 2)]
        assert sum(piece.shape[2] for piece in pieces) == 24
        assert torch.equal(torch.cat([*pieces, arriving.flush()], 2), codes)
        sound = StreamDecoder(Flow(model), data, model.code_spec, lambda n: {}, 0)
        assert sound.latency == 0
        whole = decode(model, codes, {})
        assert (whole.abs() < 1).float().mean() > 0.1
        close_to(torch.cat([sound.push(piece) for piece in codes.split(1, 2)], 2), whole)


def small_ema(dim: int) -> EMAQuantizer:
    return EMAQuantizer(dim, codebook_size=6, init="random")


def test_before_the_first_position_there_are_its_copies() -> None:
    conv = CausalConv(1, 1, 4, stride=2, bias=False, before="replicate")
    torch.nn.init.ones_(conv.conv.weight)
    h = torch.tensor([[[5.0, 1.0, 2.0, 3.0]]])
    assert conv(h).tolist() == [[[16.0, 11.0]]]


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="heads=2: dim=6"):
        MimiEncoder(TestMimiEncoder.data, 6, heads=2)
