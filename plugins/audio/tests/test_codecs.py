"""Sound beside FLAC and Opus."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from made_sounds import noise

from toolkit import DataSpec
from toolkit_audio import codecs
from toolkit_audio.codecs import codecs_of
from toolkit_audio.waveform import FORMS, from_waveform, to_waveform


@pytest.mark.parametrize("form", FORMS)
def test_flac_loses_nothing_but_what_16_bits_lose(form: str) -> None:
    spec = DataSpec(1, (4000,), FORMS[form], varying=(True,), rates=(16000,))
    x = from_waveform(0.9 * torch.sin(torch.arange(4000) / 9), spec)[None]
    coded = codecs_of(spec)["flac"].through(x, None)
    assert coded.data.startswith(b"fLaC")
    assert (to_waveform(coded.x, spec) - to_waveform(x, spec)).abs().max() <= (1.01 / 65536 if form == "float" else 0)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_opus_is_the_sound_again_in_its_place(rate: int) -> None:
    """At every rate, as long as it was, no sample late, and in about as many bits as were asked for."""
    seconds = 1.03
    spec = DataSpec(1, (int(rate * seconds),), None, varying=(True,), rates=(rate,))
    times = torch.arange(spec.axes[0]) / rate
    x = 0.5 * torch.sin(2 * torch.pi * (200 + 900 * times) * times)[None]
    codec = codecs_of(spec)["opus"]
    for kilobits in (24, 96):
        coded = codec.through(x, kilobits)
        assert coded.data.startswith(b"OggS")
        assert coded.x.shape == x.shape
        assert 0.3 < 8 * (len(coded.data) - coded.header) / (1000 * kilobits * seconds) < 1.7
    inside = slice(rate // 10, -rate // 10)
    error = (coded.x - x)[:, inside].square().mean() / x[:, inside].square().mean()
    assert error < 0.02


def test_bytes_are_those_of_the_packets() -> None:
    """What FFmpeg makes of the same samples, by hand."""
    spec = DataSpec(1, (16000,), FORMS["pcm16"], varying=(True,), rates=(16000,))
    x = from_waveform(torch.from_numpy(noise(1.0)), spec)[None]
    coded = codecs_of(spec)["opus"].through(x, 24)
    context = av.CodecContext.create("libopus", "w")
    context.sample_rate, context.layout, context.format, context.bit_rate = 16000, "mono", "s16", 24000
    samples, size = (x - 32768).numpy().astype(np.int16), 0
    for start in range(0, 16000, 320):  # 20 ms, of which Opus makes a packet
        frame = av.AudioFrame.from_ndarray(samples[:, start : start + 320], format="s16", layout="mono")
        frame.sample_rate = 16000
        size += sum(packet.size for packet in context.encode(frame))
    size += sum(packet.size for packet in context.encode(None))
    assert len(coded.data) - coded.header == size


def test_an_encoder_that_ffmpeg_lacks_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DataSpec(1, (16000,), 256, rates=(16000,))
    assert not codecs_of(spec)["opus"].missing

    def unknown(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(codecs.av, "Codec", unknown)
    assert codecs_of(spec)["opus"].missing == "the installed FFmpeg has no encoder libopus"
