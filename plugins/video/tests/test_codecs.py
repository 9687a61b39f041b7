"""Clips beside H.264."""

from __future__ import annotations

from io import BytesIO

import av
import pytest
import torch
from torch import Tensor

from toolkit import DataSpec
from toolkit_video import codecs
from toolkit_video.codecs import codecs_of


def gradients(channels: int, frames: int, height: int, width: int) -> Tensor:
    """Smooth frames that move."""
    t, y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in (frames, height, width)), indexing="ij")
    values = torch.stack([(x + y * (c + 1) / 3 + t / 4).frac() for c in range(channels)])
    return (20 + 200 * (values - 0.5).abs()).to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 48), (33, 31)])
def test_a_clip_is_itself_again_at_a_small_factor(channels: int, size: tuple[int, int]) -> None:
    """Also with odd sides, which 4:2:0 has not; and the fewer bits, the less."""
    x = gradients(channels, 6, *size)
    codec = codecs_of(DataSpec(channels, (6, *size), 256, rates=(8, None, None)))["h264"]
    coded = [codec.through(x, factor) for factor in codec.qualities]
    errors = [float((one.x.double() - x.double()).square().mean()) for one in coded]
    numbers = [len(one.data) - one.header for one in coded]
    assert all(one.x.shape == x.shape and one.x.dtype == torch.uint8 for one in coded)
    assert errors[-1] < 40
    assert errors[-1] < errors[0]
    assert numbers[0] < numbers[-1]


def test_a_narrow_clip_is_the_same_bytes_each_time() -> None:
    """Whatever lay in memory before: x264's assembly reads some of it where frames are narrow."""
    x = torch.randint(256, (3, 6, 20, 26), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    codec = codecs_of(DataSpec(3, (6, 20, 26), 256, rates=(8, None, None)))["h264"]
    assert len({codec.through(x, 43).data for _ in range(8)}) == 1


def test_the_header_is_what_holds_no_pictures() -> None:
    """What is left is the frames' own units, as they lie in the file, each after its length."""
    x = gradients(3, 6, 32, 32)
    coded = codecs_of(DataSpec(3, (6, 32, 32), 256, rates=(8, None, None)))["h264"].through(x, 28)
    with av.open(BytesIO(coded.data)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    size = 0
    for packet in packets:
        at = 0
        while at < len(packet):
            length = int.from_bytes(packet[at : at + 4], "big")
            size += length if packet[at + 4] & 31 in (1, 5) else 0
            at += 4 + length
    assert len(coded.data) - coded.header == size
    assert b"x264" in b"".join(packets)  # its settings in words, which are no picture


def test_an_encoder_that_ffmpeg_lacks_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(codecs.av, "Codec", unknown)
    (codec,) = codecs_of(DataSpec(3, (6, 32, 32), 256, rates=(8, None, None))).values()
    assert codec.missing == "the installed FFmpeg has no encoder libx264"
