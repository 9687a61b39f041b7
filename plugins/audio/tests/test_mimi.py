"""Mimi's encoder and decoder, and the attention between their convolutions."""

from __future__ import annotations

import pytest
import torch

from toolkit import Condition, DataSpec, Decoder, Encoder, Likelihood
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


def test_before_the_first_position_there_are_its_copies() -> None:
    conv = CausalConv(1, 1, 4, stride=2, bias=False, before="replicate")
    torch.nn.init.ones_(conv.conv.weight)
    h = torch.tensor([[[5.0, 1.0, 2.0, 3.0]]])
    assert conv(h).tolist() == [[[16.0, 11.0]]]


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="heads=2: dim=6"):
        MimiEncoder(TestMimiEncoder.data, 6, heads=2)
