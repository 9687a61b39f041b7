"""Folders of sound, alignments and lists, damaged at random, under every command that reads them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from fuzz_data import SHORT, Data, ends
from made_sounds import encode, noise, save

from toolkit.__main__ import run

pytestmark = pytest.mark.long

WORDS = [
    *("dataset=audio_folder", "dataset.seconds=0.128", "encoder=audio_conv", "encoder.hidden=4", "dim=4"),
    *("quantizer=vq", "quantizer.codebook_size=8", "decoder=audio_conv", "decoder.hidden=4", "likelihood=normal"),
    *("metric=[codebook]", "stage=autoencoder"),
]
KINDS = {
    "flac": ("flac", "s16"),
    "mp3": ("libmp3lame", "s16p"),
    "ogg": ("vorbis", "fltp"),
    "opus": ("libopus", "flt"),
    "m4a": ("aac", "fltp"),
    "aiff": ("pcm_s16be", "s16"),
    "mka": ("pcm_f32le", "flt"),
}
VORBIS = {"strict": "experimental"}


def sounds(root: Path) -> None:
    """Two speakers with sound of every kind."""
    for number, speaker in enumerate(("anna", "bob")):
        for i in range(2):
            save(root / speaker / f"{i}.wav", noise(0.3 + 0.1 * i, seed=10 * number + i))
        for i, (suffix, (codec, form)) in enumerate(KINDS.items()):
            sound = np.stack([noise(0.4, seed=20 * number + i)] * 2)
            with suppress(av.codec.codec.UnknownCodecError):  # this FFmpeg has no such encoder
                encode(root / speaker / f"{suffix}.{suffix}", sound, 16000, codec, form, "stereo", VORBIS)


def aligned(root: Path) -> None:
    """Two speakers with alignments of four kinds, and lists of the splits."""
    for speaker in ("anna", "bob"):
        for i in range(4):
            save(root / "wav" / speaker / f"{i}.wav", noise(0.4, seed=i))
    for i, speaker in enumerate(("anna", "bob")):
        folder = root / "phones" / speaker
        folder.mkdir(parents=True)
        (folder / "0.lab").write_text("0 0.1 a\n0.1 0.25 b\n0.25 0.4 sil\n")
        (folder / "1.lab").write_text("0 1000000 a\n1000000 4000000 b\n")
        (folder / "2.phn").write_text("0 1600 h#\n1600 6400 a\n")
        (folder / "3.TextGrid").write_text(TEXTGRID)
        (root / "lists").mkdir(exist_ok=True)
        name = ("train.txt", "val.txt")[i]
        (root / "lists" / name).write_text("".join(f"{speaker}/{i}\n" for i in range(4)))
    (root / "lists" / "test.txt").write_text("")
    (root / "map.json").write_text('{"h#": "sil", "a": "a", "b": "b", "sil": "sil"}')


TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 0.4
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 0.4
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.2
            text = "a"
        intervals [2]:
            xmin = 0.2
            xmax = 0.4
            text = "b"
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Data:
    home = tmp_path_factory.mktemp("sounds")
    sounds(home / "data")
    assert run(["train", *WORDS, *SHORT, f"dataset.root={home / 'data'}", f"hydra.run.dir={home / 'run'}"]) == 0
    return Data(home, WORDS)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Data:
    home = tmp_path_factory.mktemp("speech")
    aligned(home / "data")
    names = {"root": "wav", "phones": "phones", "lists": "lists"}
    roots = [f"dataset.{key}={home / 'data' / name}" for key, name in names.items()]
    assert run(["train", *WORDS, *SHORT, *roots, f"hydra.run.dir={home / 'run'}"]) == 0
    return Data(home, WORDS, tuple(f"dataset.{key}=data/{name}" for key, name in names.items()))


@pytest.mark.parametrize("numbers", [range(2), pytest.param(range(2, 126), marks=pytest.mark.slow)], ids=["2", "124"])
def test_any_sounds(corpus: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: range) -> None:
    ends(corpus, numbers, tmp_path, capsys)


@pytest.mark.parametrize("numbers", [range(1), pytest.param(range(1, 84), marks=pytest.mark.slow)], ids=["1", "83"])
def test_any_alignments(speech: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: range) -> None:
    ends(speech, numbers, tmp_path, capsys)
