"""VidTok's networks: the laws of their kinds, with films of whole strides and of 1 + T frames, and their equations."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from toolkit import Autoencoder, Condition, DataSpec, Decoder, Encoder, Likelihood
from toolkit.chunks import decoded, padded, quantized
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizers.fsq import FSQQuantizer
from toolkit.sample import decode_latents
from toolkit.testing.context import in_float64
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.encoder import EncoderSuite
from toolkit_video.vidtok_decoder import VidTokDecoder
from toolkit_video.vidtok_encoder import VidTokEncoder
from toolkit_video.vidtok_scaling import SpaceUp, TimeDown, TimeRepeat, TimeUp


class TestVidTokEncoder(EncoderSuite):
    data = DataSpec(3, (64, 4, 4), levels=256)

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return VidTokEncoder(data, dim, hidden=3, multipliers=(1, 2), strides=((2, 2, 2),), blocks=1)


class TestVidTokEncoderOfOneAndMore(TestVidTokEncoder):
    """A first code for one frame, and the others for four; the second level widens nothing and the last one shrinks."""

    data = DataSpec(1, (121, 4, 4))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        strides = ((2, 2, 2), (1, 1, 1), (2, 2, 2))
        return VidTokEncoder(data, dim, hidden=3, multipliers=(1, 1, 2), strides=strides, blocks=1)


class TestVidTokEncoderOfVersionOne(TestVidTokEncoder):
    """Zeros before a film, instead of copies of its first frame."""

    data = DataSpec(1, (61, 4, 4))

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return VidTokEncoder(data, dim, hidden=3, multipliers=(1,), strides=((2, 2, 2),), blocks=1, padding="zeros")


class TestVidTokDecoder(DecoderSuite):
    data = DataSpec(3, (6, 4, 4), levels=5)
    grid = (3, 2, 2)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        strides = ((2, 2, 2),)
        return VidTokDecoder(data, dim, conditions, likelihood, hidden=3, multipliers=(2, 1), strides=strides, blocks=1)


class TestVidTokDecoderOfOneAndMore(TestVidTokDecoder):
    data = DataSpec(1, (9, 4, 8))
    grid = (3, 1, 2)

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        strides = ((2, 2, 2), (2, 2, 2), (1, 1, 1))
        return VidTokDecoder(
            data, dim, conditions, likelihood, hidden=3, multipliers=(2, 1, 1), strides=strides, blocks=1
        )


class TestVidTokDecoderOfVersionOne(TestVidTokDecoder):
    """Zeros before a film, and frames that are repeated: it looks at no code ahead."""

    data = DataSpec(1, (9, 4, 8))

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        strides = ((2, 2, 2), (2, 2, 2))
        decoder = VidTokDecoder(
            data,
            dim,
            conditions,
            likelihood,
            hidden=3,
            multipliers=(2, 1),
            strides=strides,
            blocks=1,
            padding="zeros",
            frames="repeated",
        )
        assert decoder.context is not None
        assert decoder.context[1] == 0
        return decoder

    grid = (3, 1, 2)


def model(frames: int) -> Autoencoder:
    """Four frames of 4 x 4 pixels to a code."""
    data, strides = DataSpec(3, (frames, 8, 8), levels=256), ((2, 2, 2), (2, 2, 2))
    torch.manual_seed(0)
    return Autoencoder(
        data,
        VidTokEncoder(data, 4, hidden=4, multipliers=(1, 2), strides=strides, blocks=1),
        FSQQuantizer(levels=(8, 8, 8, 8)),
        VidTokDecoder(
            data, 4, (), NormalLikelihood(data, scale=1.0), hidden=4, multipliers=(2, 1), strides=strides, blocks=1
        ),
    ).eval()


@pytest.mark.long
@pytest.mark.parametrize(("frames", "codes", "lead"), [(1, 1, 3), (4, 1, 0), (5, 2, 3), (16, 4, 0), (17, 5, 3)])
def test_the_grid_of_so_many_frames(frames: int, codes: int, lead: int) -> None:
    """1 + 4n frames have 1 + n codes, 4n have n; in between, the first code stands for fewer, too."""
    autoencoder = model(frames)
    assert (autoencoder.grid[0], autoencoder.lead) == (codes, lead)
    assert [autoencoder.positions(n) for n in range(4)] == [0, 4 - lead, 8 - lead, 12 - lead]


@pytest.mark.long
@torch.no_grad()
def test_films_of_one_and_more_frames_are_those_that_stood_still_before() -> None:
    """The same weights on 1 + T frames and on these with three copies of the first one before them."""
    one, whole = model(17), model(20)
    whole.load_state_dict(one.state_dict())
    x = torch.randint(256, (2, 3, 17, 8, 8))
    led = torch.cat([x[:, :, :1].expand(-1, -1, 3, -1, -1), x], 2)
    mine, theirs = one.quantize(x), whole.quantize(led)
    assert torch.equal(mine.codes, theirs.codes)
    torch.testing.assert_close(one.decode(mine.z, {}).mean, whole.decode(theirs.z, {}).mean[:, :, 3:])  # type: ignore[index]


@pytest.mark.long
@torch.no_grad()
def test_a_picture_is_a_film_of_one_frame() -> None:
    """Its code is the first of any film that begins with it, and of one that stands still."""
    film, picture, uneven = model(9), model(1), model(16)
    for other in (picture, uneven):
        other.load_state_dict(film.state_dict())
    x = torch.randint(256, (2, 3, 9, 8, 8))
    codes = film.quantize(x).codes
    assert torch.equal(picture.quantize(x[:, :, :1]).codes, codes[:, :, :1])
    assert torch.equal(uneven.quantize(x[:, :, :1].expand(-1, -1, 4, -1, -1)).codes, codes[:, :, :1])
    still = film.decode(film.embed(codes), {}).mean
    assert still is not None
    torch.testing.assert_close(picture.decode(film.embed(codes[:, :, :1]), {}).mean, still[:, :, :1])


@pytest.mark.long
@torch.no_grad()
@pytest.mark.parametrize("length", [1, 5, 63, 200])
def test_films_of_any_length_go_in_chunks(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of lengths that are no whole number of codes: the last frame fills the last one up."""
    monkeypatch.setattr("toolkit.chunks.AT_ONCE", 1)
    x = torch.randint(256, (1, 3, length, 8, 8))
    with in_float64():
        autoencoder = model(17).double()
        filled = torch.cat(list(padded([x], 4, autoencoder.lead)), 2)
        assert filled.shape[2] % 4 == 1
        pieces = list(quantized(autoencoder, filled.split(7, 2)))
        whole = autoencoder.quantize(filled)
        assert torch.equal(torch.cat([piece.codes for piece in pieces], 2), whole.codes)
        frames = decoded(autoencoder, whole.z.split(3, 2), {}, partial(decode_latents, autoencoder))
        expected = decode_latents(autoencoder, whole.z, {})
        assert expected.shape == filled.shape
        assert torch.equal(torch.cat(list(frames), 2), expected)


@torch.no_grad()
def test_time_is_halved_and_doubled_as_published() -> None:
    """A share of sigmoid(2) is an average of three, or a linear interpolation that does not cross the first code."""
    h, share = torch.randn(2, 6, 2, 2, 3), torch.tensor(2.0).sigmoid()
    film = h.movedim(-1, 1)
    down, up = TimeDown(3, "still"), TimeUp(3, "still", 2)
    average = F.avg_pool3d(F.pad(film, (0, 0, 0, 0, 1, 0), mode="replicate"), (3, 1, 1), (2, 1, 1)).movedim(1, -1)
    torch.testing.assert_close(down(h), share * average + (1 - share) * down.conv(h))
    parts = [F.interpolate(part, scale_factor=(2, 1, 1), mode="trilinear") for part in (film[:, :, :2], film[:, :, 2:])]
    between = torch.cat(parts, 2).movedim(1, -1)
    torch.testing.assert_close(up(h), share * between + (1 - share) * up.conv(between))


@torch.no_grad()
def test_time_is_halved_and_doubled_as_in_version_one() -> None:
    """Zeros are averaged with the first frames, and frames are repeated."""
    h, share = torch.randn(2, 6, 2, 2, 3), torch.tensor(2.0).sigmoid()
    film = h.movedim(-1, 1)
    down, up = TimeDown(3, "zeros"), TimeRepeat(3, "zeros")
    average = F.avg_pool3d(F.pad(film, (0, 0, 0, 0, 1, 0)), (3, 1, 1), (2, 1, 1)).movedim(1, -1)
    torch.testing.assert_close(down(h), share * average + (1 - share) * down.conv(h))
    twice = F.interpolate(film, scale_factor=(2, 1, 1), mode="nearest")
    learned = F.conv3d(F.pad(twice, (1, 1, 1, 1, 2, 0)), up.conv.conv.weight, up.conv.conv.bias)
    torch.testing.assert_close(up(h).movedim(-1, 1), share * twice + (1 - share) * learned)


@torch.no_grad()
def test_pixels_are_repeated() -> None:
    h, up = torch.randn(2, 3, 2, 4, 5), SpaceUp(5)
    pixels = F.interpolate(h.flatten(0, 1).movedim(-1, 1), scale_factor=2.0)
    torch.testing.assert_close(up(h).flatten(0, 1).movedim(-1, 1), up.conv.conv(pixels))


def test_conditions_that_change_along_the_film() -> None:
    data, step = DataSpec(3, (5, 8, 8), levels=256), Condition("action", 3, per_step=True)
    with pytest.raises(ValueError, match="action changes along the data"):
        VidTokDecoder(data, 4, (step,), NormalLikelihood(data, scale=1.0), hidden=4)


@pytest.mark.parametrize(
    ("strides", "told"),
    [(((2, 1, 1),), "each is"), (((4, 4, 4),), "each is"), (((1, 2, 2),) * 3, "at most one for each of the 2")],
)
def test_strides_that_are_none(strides: tuple[tuple[int, int, int], ...], told: str) -> None:
    data = DataSpec(3, (4, 8, 8), levels=256)
    with pytest.raises(ValueError, match=told):
        VidTokEncoder(data, 4, hidden=4, multipliers=(1, 2), strides=strides)
    with pytest.raises(ValueError, match=told):
        VidTokDecoder(data, 4, (), NormalLikelihood(data, scale=1.0), hidden=4, multipliers=(2, 1), strides=strides)


def test_the_published_grid() -> None:
    """1 + 16 frames of 256 x 256 to 5 x 32 x 32, a code for four frames of 8 x 8 pixels."""
    data = DataSpec(3, (17, 256, 256), levels=256)
    with torch.device("meta"):
        encoder = VidTokEncoder(data, 6)
        decoder = VidTokDecoder(data, 6, (), NormalLikelihood(data, scale=1.0))
    assert (encoder.context, decoder.context, encoder.stride) == ((112, 0), (46, 1), (4, None, None))
    assert sum(p.numel() for part in (encoder, decoder) for p in part.parameters()) == 157_451_661
