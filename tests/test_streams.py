"""Data that arrives gives what the whole gives, however it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from random import Random

import pytest
import torch
from test_autoencoder import lifted
from test_chunks import STEP, WAVE, convolutional
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.decoders.conv import ConvDecoder
from toolkit.decoders.wavenet import WaveNetDecoder
from toolkit.encoder import Encoder
from toolkit.encoders.conv import ConvEncoder
from toolkit.errors import ToolkitError
from toolkit.flow import Flow
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.sample import decode
from toolkit.spec import Condition, DataSpec
from toolkit.streams import StreamDecoder, StreamEncoder, decoder_latency, encoder_latency
from toolkit.testing.context import in_float64, randomized
from toolkit.testing.parts import point_autoencoder

SPEAKER = Condition("speaker", 3)
LEVELS = DataSpec(1, (24,), 16, varying=(True,), rates=(8.0,), conditions=(SPEAKER, STEP))
CODES = DataSpec(1, (6,), 9, ordered=False, conditions=(SPEAKER,))


@pytest.fixture
def float64() -> Iterator[None]:
    torch.manual_seed(0)
    with in_float64():
        yield


def stepwise() -> Autoencoder:
    """Four positions to a code, decoded by a WaveNet."""
    decoder = WaveNetDecoder(
        LEVELS,
        4,
        (6,),
        (SPEAKER, STEP),
        hidden=6,
        blocks=2,
        layers=4,
        skip=6,
        head=6,
        context=5,
        context_blocks=1,
    )
    quantizer = VectorQuantizer(4, codebook_size=9, init="random")
    encoder = ConvEncoder(LEVELS, 4, hidden=8, strides=(2, 2))
    return randomized(Autoencoder(LEVELS, encoder, quantizer, decoder, decoder_conditions=("speaker", "step")).eval())


def second() -> Autoencoder:
    """Over the codes of ``stepwise``, two of them to a code of its own."""
    quantizer = VectorQuantizer(4, codebook_size=7, init="random")
    decoder = ConvDecoder(4, (3,), (SPEAKER,), CategoricalLikelihood(CODES), hidden=8, strides=(2,))
    encoder = Embedded(CODES, 4)
    return randomized(Autoencoder(CODES, encoder, quantizer, decoder, decoder_conditions=("speaker",)).eval())


class Embedded(Encoder):
    """Pairs of symbols, and the pair before and after."""

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(data.levels or 0, dim)
        self.conv = torch.nn.Conv1d(dim, dim, 6, stride=2, padding=2)
        self.stride, self.context = (2,), (2, 2)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.conv(self.table(x[:, 0]).movedim(-1, 1))
        return z


def cut(t: Tensor, seed: int) -> list[Tensor]:
    """In pieces of random lengths, some of them empty; or, for every third, all alike."""
    random, length = Random(seed), t.shape[2]
    places = sorted(random.choices(range(length + 1), k=random.randint(0, 12)))
    if seed % 3 == 0:
        places = list(range(0, length, random.randint(1, 9)))
    return [t[:, :, start:stop] for start, stop in pairwise([0, *places, length])]


def encoder(flow: Flow, spec: DataSpec) -> StreamEncoder:
    return StreamEncoder(flow, spec, flow.autoencoder.code_spec, lambda n: {})


def decoder(flow: Flow, spec: DataSpec, conditions: Mapping[str, Tensor]) -> StreamDecoder:
    return StreamDecoder(flow, spec, flow.autoencoder.code_spec, lambda n: conditions, 5)


def pushed(stream: StreamEncoder | StreamDecoder, pieces: list[Tensor]) -> Tensor:
    return torch.cat([*(stream.push(piece) for piece in pieces), stream.flush()], 2)


@pytest.mark.parametrize("seed", range(8))
def test_any_cutting_is_the_whole(seed: int, float64: None) -> None:
    """Through convolutions, with a condition whose steps are one and a half codes."""
    model = convolutional()
    x, step = torch.rand(2, 1, 408) * 2 - 1, torch.randint(6, (2, 34))
    codes = pushed(encoder(Flow(model), WAVE), cut(x, seed))
    with torch.no_grad():
        assert torch.equal(codes, model.quantize(x).codes)
    data = pushed(decoder(Flow(model), WAVE, {"step": step}), cut(codes, seed + 1))
    torch.testing.assert_close(data, decode(model, codes, {"step": step}), atol=1e-10, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_decoder_that_keeps_a_state_goes_on(seed: int, float64: None) -> None:
    """A stream is its whole decoded with its seed, alone."""
    model = stepwise()
    codes = torch.randint(9, (2, 1, 21))
    known = {"speaker": torch.tensor([0, 2]), "step": torch.randint(6, (2, 7))}
    data = pushed(decoder(Flow(model), LEVELS, known), cut(codes, seed))
    for i in range(2):
        generator = torch.Generator().manual_seed(5 + i)
        row = {name: value[i : i + 1] for name, value in known.items()}
        assert torch.equal(data[i : i + 1], decode(model, codes[i : i + 1], row, generator=generator))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_runs_over_runs_are_chained(seed: int, float64: None) -> None:
    upper, lower = second(), stepwise()
    flow = Flow(upper, Flow(lower))
    x = torch.randint(16, (3, 1, 24 * 4))
    codes = pushed(encoder(flow, LEVELS), cut(x, seed))
    assert torch.equal(codes, torch.cat(list(flow.encoded([x])), 2))
    known = {"speaker": torch.tensor([0, 2, 1])}
    whole = pushed(decoder(flow, LEVELS, known), [codes])
    assert whole.shape == x.shape
    assert torch.equal(whole, pushed(decoder(flow, LEVELS, known), cut(codes, seed)))
    alone = pushed(decoder(flow, LEVELS, {"speaker": torch.tensor([0])}), cut(codes[:1], seed + 1))
    assert torch.equal(alone, whole[:1])
    # two codes of four positions; two of codes ahead in the upper, and the lower's own
    assert encoder_latency(flow) == 8 + 2 * 4 + encoder_latency(Flow(lower)) - 4
    assert decoder_latency(flow) == 8 * upper.decoder.context[1] + decoder_latency(Flow(lower))  # type: ignore[index]


def test_frames_by_themselves_are_certain_at_once(float64: None) -> None:
    model = lifted("move", "scene")
    spec = model.data
    x = torch.randint(8, (2, 3, 11, *spec.axes[1:]))
    known = {"move": torch.randint(5, (2, 11)), "scene": torch.tensor([1, 3])}
    ends, other = encoder(Flow(model), spec), decoder(Flow(model), spec, known)
    assert (ends.latency, other.latency) == (1, 0)
    pieces = [other.push(ends.push(x[:, :, i : i + 1])) for i in range(11)]
    whole = decode(model, model.quantize(x).codes, known)
    torch.testing.assert_close(torch.cat(pieces, 2), whole)


def test_the_latency_is_what_must_have_come(float64: None) -> None:
    """Position by position: a code is certain with the last position that the encoder sees, and not before."""
    model = convolutional()
    stream, x = encoder(Flow(model), WAVE), torch.rand(1, 1, 200) * 2 - 1
    for position in range(200):
        done = stream.push(x[:, :, position : position + 1]).shape[2]
        assert done == (position + 1 >= stream.latency and (position + 1 - stream.latency) % 8 == 0)
    assert stream.latency == 8 + model.encoder.context[1]  # type: ignore[index]
    assert stream.latency_ms is None
    other = decoder(Flow(model), WAVE, {})
    after = model.decoder.context[1]  # type: ignore[index]
    assert other.latency == 8 * after
    assert [other.push(torch.zeros(1, 1, 1).long()).shape[2] for _ in range(after + 2)] == [0] * after + [8, 8]
    timed = encoder(Flow(stepwise()), LEVELS)
    assert timed.latency_ms == timed.latency * 125


def test_streams_do_not_influence_one_another(float64: None) -> None:
    model, x = convolutional(), torch.rand(3, 1, 160) * 2 - 1
    together = pushed(encoder(Flow(model), WAVE), cut(x, 1))
    assert torch.equal(together[1:2], pushed(encoder(Flow(model), WAVE), cut(x[1:2], 2)))
    known = {"speaker": torch.tensor([1, 1, 1]), "step": torch.zeros(3, 20).long()}
    first = {name: value[:1] for name, value in known.items()}
    model, codes = stepwise(), torch.randint(9, (3, 1, 10))
    drawn = pushed(decoder(Flow(model), LEVELS, known), [codes])
    assert torch.equal(drawn[:1], pushed(decoder(Flow(model), LEVELS, first), [codes[:1]]))


def test_no_pieces_are_nothing(float64: None) -> None:
    model = convolutional()
    assert encoder(Flow(model), WAVE).flush().shape[2] == 0
    stream = encoder(Flow(model), WAVE)
    assert stream.push(torch.zeros(2, 1, 0)).shape == (2, 1, 0)
    assert stream.push(torch.zeros(2, 1, 7)).shape == (2, 1, 0)
    assert stream.flush().shape == (2, 1, 1)
    assert pushed(decoder(Flow(model), WAVE, {}), [torch.zeros(2, 1, 0).long()]).shape == (2, 1, 0)


def test_the_last_code_is_filled_up(float64: None) -> None:
    model = convolutional()
    x = torch.rand(1, 1, 131) * 2 - 1
    filled = torch.cat([x, x[:, :, -1:].expand(-1, -1, 5)], 2)
    with torch.no_grad():
        assert torch.equal(pushed(encoder(Flow(model), WAVE), cut(x, 4)), model.quantize(filled).codes)


def test_what_needs_the_whole_is_refused() -> None:
    encoding, decoding, quantizing = convolutional(), convolutional(), convolutional()
    encoding.encoder.context = decoding.decoder.context = None
    quantizing.quantizer.local = False
    for model, open_stream, name in (
        (encoding, lambda flow: encoder(flow, WAVE), "ConvEncoder declares no context"),
        (quantizing, lambda flow: encoder(flow, WAVE), "VectorQuantizer quantizes all positions together"),
        (decoding, lambda flow: decoder(flow, WAVE, {}), "ConvDecoder declares no context"),
    ):
        with pytest.raises(ToolkitError, match=name):
            open_stream(Flow(model))


def test_the_lower_run_is_refused_too() -> None:
    lower = stepwise()
    lower.encoder.context = None
    with pytest.raises(ToolkitError, match="ConvEncoder declares no context"):
        encoder(Flow(second(), Flow(lower)), LEVELS)


def test_mistakes(float64: None) -> None:
    stream = encoder(Flow(convolutional()), WAVE)
    with pytest.raises(ValueError, match=r"\(1, 2, 8\).*\(batch, 1, positions\)"):
        stream.push(torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match="floats in"):
        stream.push(torch.full((1, 1, 8), 9.0))
    stream.push(torch.zeros(1, 1, 8))
    with pytest.raises(ValueError, match="3 streams after pieces of 1"):
        stream.push(torch.zeros(3, 1, 8))
    stream.flush()
    with pytest.raises(ToolkitError, match="open another"):
        stream.push(torch.zeros(1, 1, 8))
    other = decoder(Flow(convolutional()), WAVE, {})
    with pytest.raises(ValueError, match=r"0\.\.8"):
        other.push(torch.full((1, 1, 3), 9))
    with pytest.raises(ValueError, match="positions"):
        other.push(torch.zeros(1, 1, 3, 3).long())


def test_a_part_of_points_has_no_context_yet() -> None:
    model = point_autoencoder(WAVE, 4)
    with pytest.raises(ToolkitError, match="PointEncoder declares no context"):
        encoder(Flow(model), WAVE)
