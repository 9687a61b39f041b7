"""A part's context: in closed form, and a causal encoder that is trained, continued, and used in chunks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy.toy_plugin import CausalEncoder
from toys import plugged_in

import toolkit
from toolkit.encoder import Encoder
from toolkit.nn.context import decoder_context, encoder_context
from toolkit.nn.receptive_field import receptive_field
from toolkit.report import Silence
from toolkit.spec import DataSpec
from toolkit.testing.context import cuttings
from toolkit.testing.encoder import EncoderSuite

WORDS = """
dataset=toy_waves encoder=toy_causal decoder=toy_conv likelihood=normal dim=4 quantizer=vq quantizer.codebook_size=8
stage=autoencoder trainer.batch_size=4 trainer.workers=0 trainer.checkpoint_every=3
""".split()  # noqa: SIM905


class Case(EncoderSuite):
    data = DataSpec(1, (24,))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return CausalEncoder(data, dim)


@pytest.mark.parametrize(
    ("stride", "layers", "context"),
    [
        (1, [nn.Conv1d(1, 1, 1)], (0, 0)),
        (1, [nn.Conv1d(1, 1, 5, padding=2), nn.ReLU()], (2, 2)),
        (1, [nn.Conv1d(1, 1, 3, padding=3, dilation=3)], (3, 3)),
        (2, [nn.Conv1d(1, 1, 4, stride=2, padding=1)], (1, 1)),
        (6, [nn.Conv1d(1, 1, 4, 2, 1), nn.Sequential(nn.ReLU(), nn.Conv1d(1, 1, 7, 3, 2))], (1 + 2 * 2, 1 + 2 * 2)),
    ],
)
def test_the_context_of_an_encoders_layers(stride: int, layers: list[nn.Module], context: tuple[int, int]) -> None:
    assert encoder_context(stride, layers) == context


@pytest.mark.parametrize(
    ("stride", "layers", "context"),
    [
        (2, [nn.ConvTranspose1d(1, 1, 2, 2)], (0, 0)),
        (2, [nn.ConvTranspose1d(1, 1, 4, 2)], (1, 0)),
        (2, [nn.ConvTranspose1d(1, 1, 4, 2, padding=1)], (1, 1)),
        (4, [nn.ConvTranspose1d(1, 1, 4, 2, padding=1), nn.ConvTranspose1d(1, 1, 4, 2, padding=1)], (1, 1)),
        (2, [nn.Conv1d(1, 1, 3, padding=1), nn.ConvTranspose1d(1, 1, 4, 2, padding=1)], (2, 2)),
    ],
)
def test_the_context_of_a_decoders_layers(stride: int, layers: list[nn.Module], context: tuple[int, int]) -> None:
    assert decoder_context(stride, layers) == context


def test_what_a_function_depends_on() -> None:
    """And None where that is nothing, or not known."""
    x = torch.rand(2, 3, 5, 7)
    assert receptive_field(lambda x: x[..., 1:] * x[..., :-1], x, (slice(None), 2)) == (range(5), range(2, 4))
    assert receptive_field(lambda x: x.cumsum(2), x, (3, 2)) == (range(4), range(2, 3))
    assert receptive_field(lambda x: 0 * x, x, (0, 0)) is None
    weight = torch.ones((), requires_grad=True)
    assert receptive_field(lambda x: weight * x.detach(), x, (0, 0)) is None


def test_cuttings_are_of_the_whole() -> None:
    x = torch.arange(14).expand(2, 1, -1)
    ways = list(cuttings(x, 2))
    assert all(torch.equal(torch.cat(pieces, 2), x) for pieces in ways)
    assert [[piece.shape[2] for piece in pieces] for pieces in ways[:2]] == [[2] * 7, [6, 6, 2]]


def test_a_causal_encoder_has_the_context_that_it_declares() -> None:
    Case().test_a_prefix_in_gives_the_prefix_out()
    Case().test_the_context_is_the_receptive_field()
    Case().test_chunks_with_context_give_the_whole()


@pytest.mark.long
def test_a_causal_encoder_in_chunks(tmp_path: Path) -> None:
    """Stopped and continued as if never stopped, then over a recording ten times as long, as it comes in."""
    with plugged_in():
        whole, run = tmp_path / "whole", tmp_path / "run"
        toolkit.train(toolkit.compose(*WORDS, "trainer.steps=6"), whole, report=Silence())
        toolkit.train(toolkit.compose(*WORDS, "trainer.steps=3"), run, report=Silence())
        toolkit.train(toolkit.compose("trainer.steps=6", run=run), run, report=Silence())
        weights = [load_file(folder / "autoencoder/step-00000006/model.safetensors") for folder in (whole, run)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        model = toolkit.load(run)
        stream = model.stream_encoder()
    x = torch.rand(1, 1, 160) * 2 - 1
    assert model.autoencoder.encoder.context == (6, 0)
    assert stream.latency == 2
    codes = torch.cat([*map(stream.push, x.split(7, 2)), stream.flush()], 2)
    assert torch.equal(codes, model.encode(x))
