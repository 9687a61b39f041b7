"""One law over all kinds of sound files: they are read as they are decoded, whole or in part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sound_containers import KINDS, LOSSLESS, bursts, make, plain

from toolkit_audio import reading
from toolkit_audio.frames import begin, opened
from toolkit_audio.reading import Header, length_at, read_header, read_pieces, read_span, survey

LENGTH = 3000
"""Samples of a window."""
SEEKING = ("flac in mka", "pcm in mkv", "vorbis", "vorbis in webm", "opus", "mp3 cbr", "mp3 vbr without xing")
"""Kinds that decoding can begin in the middle of."""
DEPENDENT = ("mp2", "ac3", "eac3", "aac at 24 kbit/s")
"""Kinds in which all decoded depends on all before it, as noise is drawn."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("containers")


@pytest.fixture
def _dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places to begin at in files of seconds, as there are in longer ones."""
    monkeypatch.setattr(reading, "NEAR", 0.8)
    monkeypatch.setattr(reading, "SPACING", 0.3)


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.few(12)
def test_a_file_is_its_frames_joined_end_to_end(name: str, folder: Path) -> None:
    path = make(folder, name)
    whole = plain(path)
    assert len(whole) >= len(bursts(KINDS[name].rate)[0]) - 2048  # AMR and WMA begin or end a frame late
    assert np.array_equal(read_span(path, 0, None, KINDS[name].rate), whole)
    assert read_header(path) == Header(KINDS[name].rate, len(whole))
    pieces = list(read_pieces(path, KINDS[name].rate))
    assert len(pieces) > 1
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.array_equal(np.concatenate(list(read_pieces(path, 22050))), read_span(path, 0, None, 22050))


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_are_the_same_samples(name: str, folder: Path) -> None:
    sound = bursts(44100)[0]
    heard = read_span(make(folder, name), 0, None, 44100)
    assert len(heard) == len(sound)
    assert np.abs(heard - sound).max() <= 1.001 / 32768
    assert np.array_equal(heard, read_span(make(folder, "wav s16"), 0, None, 44100))


@pytest.mark.long
@pytest.mark.usefixtures("_dense")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.few(12)
def test_a_window_is_that_place_of_the_whole_file(name: str, folder: Path) -> None:
    path, rate = make(folder, name), KINDS[name].rate
    (_, samples), marks = survey(path)
    whole = read_span(path, 0, None, rate)
    starts = np.random.default_rng(0).integers(0, samples - LENGTH, 4).tolist()
    for start in [0, 1, *starts, samples - LENGTH]:
        assert np.array_equal(read_span(path, start, start + LENGTH, rate, marks), whole[start : start + LENGTH]), start
    for start in starts[:1]:
        assert np.array_equal(read_span(path, start, start + LENGTH, rate), whole[start : start + LENGTH]), start
    other = read_span(path, 0, None, 22050)
    for start in [length_at(start, rate, 22050) for start in starts[:2]]:
        window = read_span(path, start, start + 500, 22050, marks)
        np.testing.assert_allclose(window, other[start : start + 500], rtol=0, atol=1e-4)


@pytest.mark.usefixtures("_dense")
@pytest.mark.parametrize("name", SEEKING)
def test_decoding_begins_near_a_window(name: str, folder: Path) -> None:
    path = make(folder, name)
    (rate, samples), marks = survey(path)
    assert marks
    with opened(path) as (container, stream):
        pieces = begin(container, stream, samples - LENGTH, marks)
        assert pieces is not None
        assert samples - LENGTH - 1.5 * rate < next(pieces).at < samples - LENGTH - 0.4 * rate


@pytest.mark.usefixtures("_dense")
@pytest.mark.parametrize("name", DEPENDENT)
def test_what_depends_on_all_before_it_is_decoded_from_the_beginning(name: str, folder: Path) -> None:
    assert survey(make(folder, name)).marks == ()


@pytest.mark.usefixtures("_dense")
def test_a_file_that_has_changed_is_read_from_its_beginning(folder: Path) -> None:
    """Marks of another file lead nowhere, not to other samples."""
    marks = survey(make(folder, "mp3 cbr")).marks
    path = make(folder, "mp3 at 32 kbit/s")
    whole = plain(path)
    assert np.array_equal(read_span(path, 100_000, 103_000, 44100, marks), whole[100_000:103_000])


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_window_of_a_long_file_is_that_place_of_it(name: str, tmp_path: Path) -> None:
    path, rate = make(tmp_path, name, 60.0), KINDS[name].rate
    (_, samples), marks = survey(path)
    whole = plain(path)
    assert samples == len(whole)
    for start in np.random.default_rng(0).integers(0, samples - LENGTH, 6).tolist():
        assert np.array_equal(read_span(path, start, start + LENGTH, rate, marks), whole[start : start + LENGTH]), start
