"""Sound out of files: the right samples, whole or in part, whatever the form."""

from __future__ import annotations

import os
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_sounds import encode, noise, save

from toolkit import ToolkitError
from toolkit_audio import frames
from toolkit_audio.files import write_wav
from toolkit_audio.reading import Header, read_header, read_span, resample

FORMS = {
    "16-bit wav": ("a.wav", "pcm_s16le", "s16", 2e-5),
    "24-bit wav": ("a.wav", "pcm_s24le", "s32", 1e-6),
    "32-bit wav": ("a.wav", "pcm_s32le", "s32", 1e-6),
    "float wav": ("a.wav", "pcm_f32le", "flt", 0),
    "double wav": ("a.wav", "pcm_f64le", "dbl", 1e-7),
    "8-bit wav": ("a.wav", "pcm_u8", "u8", 1 / 128),
    "flac": ("a.flac", "flac", "s16", 2e-5),
    "24-bit flac": ("a.flac", "flac", "s32", 1e-6),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_sample_is_the_same_sound(form: str, tmp_path: Path) -> None:
    name, codec, samples, error = FORMS[form]
    sound = noise(0.5)
    path = encode(tmp_path / name, sound[None], 16000, codec, samples)
    assert read_header(path) == Header(16000, 8000)
    np.testing.assert_allclose(read_span(path, 0, None, 16000), sound, rtol=0, atol=error)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_span_is_just_its_samples(suffix: str, tmp_path: Path) -> None:
    path = encode(tmp_path / f"a.{suffix}", noise(5)[None], 16000, {"wav": "pcm_s16le"}.get(suffix, suffix), "s16")
    whole = read_span(path, 0, None, 16000)
    for start, stop in [(0, 1), (0, 80000), (1, 2), (4095, 4097), (40000, 47000), (79000, 80000), (79999, 80000)]:
        assert np.array_equal(read_span(path, start, stop, 16000), whole[start:stop]), (start, stop)


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (96000, 16000), (44100, 16000), (16000, 22050)])
def test_a_span_of_another_rate_is_that_of_the_whole_file(rate: int, wanted: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", noise(2, rate), rate)
    whole = read_span(path, 0, None, wanted)
    assert len(whole) == 2 * wanted
    for start, stop in [(0, 100), (12345, 12745), (wanted, wanted + 1000), (2 * wanted - 50, 2 * wanted)]:
        np.testing.assert_allclose(read_span(path, start, stop, wanted), whole[start:stop], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (48000, 16000), (44100, 16000), (16000, 24000)])
def test_a_sine_stays_that_sine_at_another_rate(rate: int, wanted: int) -> None:
    sound = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    made = resample(sound, rate, wanted)
    assert len(made) == wanted
    expected = np.sin(2 * np.pi * 440 * np.arange(wanted) / wanted)
    np.testing.assert_allclose(made[200:-200], expected[200:-200], atol=1e-4)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize(("layout", "channels"), [("stereo", 2), ("7.1", 8)])
def test_channels_are_averaged(suffix: str, layout: str, channels: int, tmp_path: Path) -> None:
    sound = np.stack([noise(0.2, seed=c) for c in range(channels)])
    codec, form = {"wav": ("pcm_f32le", "flt"), "flac": ("flac", "s16")}[suffix]
    path = encode(tmp_path / f"a.{suffix}", sound, 16000, codec, form, layout)
    np.testing.assert_allclose(read_span(path, 0, None, 16000), sound.mean(0), atol=3e-5)


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("7.1", 8)])
def test_channels_in_planes_are_averaged(layout: str, channels: int, tmp_path: Path) -> None:
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48000) / 48000).astype(np.float32)
    sound = np.stack([sine, *[0 * sine] * (channels - 1)])
    path = encode(tmp_path / "a.m4a", sound, 48000, "aac", "fltp", layout)
    heard = read_span(path, 0, None, 48000)[8000:40000]
    assert np.sqrt((heard**2).mean()) == pytest.approx(0.5 / np.sqrt(2) / channels, rel=0.05)


def test_a_span_of_a_lossy_file_lies_where_it_is(tmp_path: Path) -> None:
    """A click at 3 s is found at 3 s, from wherever reading begins."""
    sound = np.zeros(5 * 48000, np.float32)
    sound[3 * 48000 : 3 * 48000 + 48] = 0.9
    path = encode(tmp_path / "a.mp3", sound[None], 48000, "libmp3lame", "s16p")
    for start in (0, 100_000, 140_000):
        heard = read_span(path, start, start + 48000 * 2 if start else None, 48000)
        assert abs(start + int(np.abs(heard).argmax()) - 3 * 48000) < 100


def test_a_film_has_sound_or_has_none(tmp_path: Path) -> None:
    sound = save(tmp_path / "a.wav", noise(1, 48000), 48000)
    picture = ["-f", "lavfi", "-i", "testsrc=size=32x32:rate=10:duration=1"]
    if not _has("ffmpeg"):
        pytest.skip("no ffmpeg to make a film with")
    for extra, name in ((["-i", str(sound), "-c:a", "aac"], "talkie.mp4"), ([], "silent.mp4")):
        words = ["ffmpeg", "-v", "error", *picture, *extra, str(tmp_path / name)]
        subprocess.run(words, check=True)
    assert abs(len(read_span(tmp_path / "talkie.mp4", 0, None, 48000)) - 48000) < 3000
    with pytest.raises(ToolkitError, match=r"silent.mp4: has no sound"):
        read_header(tmp_path / "silent.mp4")


def _has(program: str) -> bool:
    from shutil import which

    return which(program) is not None


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is empty"), (b"a letter, and no sound\n" * 50, "cannot be read as sound"), (b"RIFF\0\0", "cannot be read")],
    ids=["empty", "text", "torn"],
)
def test_what_is_no_sound_is_told_in_a_sentence(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    for read in (lambda: read_header(path), lambda: read_span(path, 0, 100, 16000)):
        with pytest.raises(ToolkitError, match=why) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_sound_of_no_samples(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", [np.zeros((1, 1), np.int16)], 16000, "pcm_s16le", "s16")
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:-2].replace(b"data\x02", b"data\x00"))
    with pytest.raises(ToolkitError, match=r"a.wav: "):
        read_header(tmp_path / "a.wav")


def test_a_missing_file_and_a_folder_are_told_alike(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"none.wav: the file does not exist"):
        read_header(tmp_path / "none.wav")
    with pytest.raises(ToolkitError, match="cannot be read as sound"):
        read_header(tmp_path)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_that_is_cut_short(suffix: str, tmp_path: Path) -> None:
    """What is left of it can be read, what is gone is told."""
    path = encode(tmp_path / f"a.{suffix}", noise(4)[None], 16000, {"wav": "pcm_s16le"}.get(suffix, suffix), "s16")
    whole = read_span(path, 0, None, 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert np.array_equal(read_span(path, 4000, 8000, 16000), whole[4000:8000])
    spans = [(0, 64000), (60000, 64000)] + ([(0, None)] if suffix == "flac" else [])  # a wav's end is its file's
    for start, stop in spans:
        with pytest.raises(ToolkitError, match=rf"a.{suffix}: (cut short|cannot be read)"):
            read_span(path, start, stop, 16000)


def test_a_late_frame_is_a_hole_only_where_rounding_cannot_explain_it(tmp_path: Path) -> None:
    """A second, then another that begins some time after it: silence between them, or nothing."""
    for late, silence in [(0, 0), (300, 0), (-300, 0), (-1500, 0), (8000, 8000), (40000, 40000), (16000 * 3600, 0)]:
        path = _two_seconds(tmp_path / "a.mkv", late)
        heard = read_span(path, 0, None, 16000)
        assert len(heard) == 32000 + silence, late
        assert read_header(path).samples == len(heard)
        assert np.array_equal(heard != 0, np.repeat([True, False, True], [16000, silence, 16000]))
        assert np.array_equal(read_span(path, 15000, 17000, 16000), heard[15000:17000])


def _two_seconds(path: Path, late: int) -> Path:
    """A constant for two seconds at 16 kHz, the second one late by some samples."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for begins in range(0, 32000, 1600):
            samples = np.full((1, 1600), 8192, np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = begins + (late if begins >= 16000 else 0)
            container.mux(stream.encode(frame))
    return path


@pytest.mark.long
def test_a_length_that_is_only_estimated_is_counted(tmp_path: Path) -> None:
    """Ten seconds of noise, then ten of a tone: the rate of the first seconds says nothing about the rest."""
    t = np.arange(20 * 44100) / 44100
    sound = 0.2 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.random.default_rng(0).uniform(-1, 1, len(t)) * (t < 10)
    for name, codec, form, options in [("a.mp3", "libmp3lame", "s16p", {"q": "2"}), ("a.aac", "aac", "fltp", {})]:
        header = {"write_xing": "0", "id3v2_version": "0"} if codec == "libmp3lame" else {}
        path = encode(tmp_path / name, sound[None].astype(np.float32), 44100, codec, form, "mono", options, header)
        assert 882_000 <= read_header(path).samples == len(read_span(path, 0, None, 44100)) < 882_000 + 4096


@pytest.mark.parametrize("size", [0, 9, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_wav_file_whose_size_was_never_written(size: int, tmp_path: Path) -> None:
    """Programs that write to a pipe do not know it; a size that is smaller than the file is believed."""
    path = save(tmp_path / "a.wav", noise(1))
    content = path.read_bytes()
    place = content.index(b"data") + 4
    path.write_bytes(content[:place] + size.to_bytes(4, "little") + content[place + 4 :])
    assert read_header(path).samples == len(read_span(path, 0, None, 16000)) == (4 if size == 9 else 16000)


def test_an_mp4_file_that_is_cut_short(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", noise(4, 44100)[None], 44100, "aac", "fltp", header={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    for read in (lambda: read_header(path), lambda: read_span(path, 0, None, 44100)):
        with pytest.raises(ToolkitError, match=r"a.m4a: cut short"):
            read()


@pytest.mark.parametrize("samples", [211 * 44100, 2**36 - 1])
def test_a_flac_header_that_promises_too_much(samples: int, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.flac", noise(2, 44100)[None], 44100, "flac", "s16")
    content = path.read_bytes()
    fields = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    path.write_bytes(content[:18] + fields.to_bytes(8, "big") + content[26:])
    for read in (lambda: read_header(path), lambda: read_span(path, 0, None, 44100)):
        with pytest.raises(ToolkitError, match=rf"a.flac: cut short, it ends at sample 88200 of {samples}"):
            read()


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e300])
def test_samples_that_are_no_finite_numbers(number: float, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wav", noise(1)[None], 16000, "pcm_f64le", "dbl")
    content = bytearray(path.read_bytes())
    content[len(content) - 8000 : len(content) - 7992] = np.float64(number).tobytes()
    path.write_bytes(content)
    for read in (lambda: read_header(path), lambda: read_span(path, 0, None, 16000)):
        with pytest.raises(ToolkitError, match=r"a.wav: cannot be read as sound \(sample 15000 is -?(nan|inf)\)"):
            read()
    assert np.isfinite(read_span(path, 0, 8000, 16000)).all()


@pytest.mark.parametrize("channels", [0, 65535])
@pytest.mark.parametrize("rate", [16000, 0, 1, 2**31 - 1])
def test_numbers_of_channels_and_rates_that_no_sound_has(channels: int, rate: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", noise(1))
    content = bytearray(path.read_bytes())
    content[22:24], content[24:28] = channels.to_bytes(2, "little"), rate.to_bytes(4, "little")
    path.write_bytes(content)
    for read in (lambda: read_header(path), lambda: read_span(path, 0, 100, 16000)):
        with pytest.raises(ToolkitError, match=r"a.wav: cannot be read as sound"):
            read()


@pytest.mark.parametrize("error", [AttributeError, OverflowError, ValueError, MemoryError, IndexError])
def test_whatever_a_file_makes_pyav_raise_names_the_file(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.mka", noise(1)[None], 16000, "flac", "s16")

    def fail(*_: object) -> None:
        raise error("strange")

    monkeypatch.setattr(frames, "_packets", fail)
    for read in (lambda: read_header(path), lambda: read_span(path, 0, 100, 16000)):
        with pytest.raises(ToolkitError, match=r"a.mka: cannot be read as sound \(strange\)"):
            read()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(ToolkitError, match="cannot be read as sound"):
        read_header(tmp_path / "a.wav")


def test_what_follows_the_last_frame_is_no_sound(tmp_path: Path) -> None:
    """Part of a frame, or a tag, at the end of a file of frames."""
    path = encode(tmp_path / "a.aac", noise(1)[None], 16000, "aac", "fltp")
    whole, content = read_span(path, 0, None, 16000), path.read_bytes()
    path.write_bytes(content + content[:60])
    assert np.array_equal(read_span(path, 0, None, 16000)[: len(whole)], whole)


def test_real_speech_is_read_in_parts_as_it_is_whole(speech: Path) -> None:
    choices = np.random.default_rng(0)
    files = sorted(speech.glob("*/*/*/*/*.flac"))[::12] + sorted(speech.glob("vctk-mini/wav48/*/*.wav"))[::8]
    assert files
    for path in files:
        header = read_header(path)
        whole = read_span(path, 0, None, header.rate)
        assert len(whole) == header.samples
        for start in choices.integers(0, header.samples - 1000, 5).tolist():
            assert np.array_equal(read_span(path, start, start + 1000, header.rate), whole[start : start + 1000])
