"""Corpora of files, and the vowels that need none."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import pytest
import torch
from made_sounds import align, encode, noise, save

from toolkit import Dataset, ToolkitError
from toolkit.datasets.files import cache
from toolkit.testing.dataset import DatasetSuite
from toolkit_audio import corpus, reading
from toolkit_audio.folder import FolderDataset
from toolkit_audio.librispeech import LibriSpeechDataset
from toolkit_audio.reading import length_at, read_span
from toolkit_audio.vctk import VCTKDataset
from toolkit_audio.vowels import SPEAKERS, VowelsDataset
from toolkit_audio.waveform import to_waveform


class TestVowelsDataset(DatasetSuite):
    form: Literal["mulaw", "pcm16", "float"] = "mulaw"

    def make(self) -> Dataset:
        return VowelsDataset(form=self.form, train_size=9, val_size=3, test_size=3)


@pytest.mark.slow
class TestVowelsDatasetOf16Bits(TestVowelsDataset):
    form = "pcm16"


@pytest.mark.slow
class TestVowelsDatasetOfFloats(TestVowelsDataset):
    form = "float"


class TestFolderDataset(DatasetSuite):
    form: Literal["mulaw", "pcm16", "float"] = "mulaw"

    @pytest.fixture(autouse=True)
    def _files(self, voices: Path) -> None:
        self.root = voices

    def make(self) -> Dataset:
        return FolderDataset(root=str(self.root), seconds=0.2, form=self.form)


@pytest.mark.slow
class TestFolderDatasetOfFloats(TestFolderDataset):
    form = "float"


class TestFolderDatasetWithPhones(TestFolderDataset):
    @pytest.fixture(autouse=True)
    def _alignments(self, voices: Path) -> None:
        align(voices)

    def make(self) -> Dataset:
        return FolderDataset(root=str(self.root), seconds=0.2, phones=str(self.root / ".." / "phones"))


class TestFolderDatasetOfOwnLengths(TestFolderDatasetWithPhones):
    def make(self) -> Dataset:
        root, phones = str(self.root), str(self.root / ".." / "phones")
        return FolderDataset(root=root, seconds=0.6, lengths="own", grain=1600, phones=phones)


def names(dataset: corpus.CorpusDataset, split: str) -> set[str]:
    return {each.path for each in dataset.splits[split]}


def test_vowels_are_what_their_labels_say() -> None:
    """The spectrum of every vowel peaks near its first formant, and that of silence nowhere."""
    dataset = VowelsDataset(form="float")
    for index in range(20):
        example = dataset.example("train", index, None)
        sound, phones = example["x"][0], example["phone"]
        loud = sound[: len(phones) * 80].view(-1, 80).square().mean(1)
        inside = torch.ones(len(phones) - 6).bool()
        for shift in range(7):  # away from the glides
            inside &= phones[shift : len(phones) - 6 + shift] == phones[3:-3]
        assert (loud[3:-3][inside & (phones[3:-3] > 0)] > 1e-5).all()
        assert (loud[3:-3][inside & (phones[3:-3] == 0)] < 1e-5).all()


@pytest.mark.slow
def test_the_vowels_variance_is_that_of_the_training_split() -> None:
    for form in ("mulaw", "pcm16", "float"):
        dataset = VowelsDataset(form=form)
        x = torch.stack([dataset.example("train", i, None)["x"] for i in range(200)])
        assert dataset.spec.variance == pytest.approx(float(dataset.spec.scale(x).var()), rel=0.1)


def test_speakers_differ_in_pitch() -> None:
    """The autocorrelation of each speaker's sound peaks at the speaker's own period."""
    dataset = VowelsDataset(form="float")
    told = {}
    for index in range(60):
        example = dataset.example("train", index, None)
        power = torch.fft.rfft(example["x"][0].double(), 1 << 14).abs().square()
        correlation = torch.fft.irfft(power)[: 8000 // 60]
        period = 8000 // 350 + int(correlation[8000 // 350 :].argmax())
        told.setdefault(int(example["speaker"]), []).append(8000 / period)
    for speaker, pitches in told.items():
        assert np.median(pitches) == pytest.approx(list(SPEAKERS.values())[speaker].pitch, rel=0.06)


def test_windows_cover_their_file_at_even_distances(tmp_path: Path) -> None:
    sound = noise(1.1)
    for i in range(3):
        save(tmp_path / "anna" / f"{i}.wav", sound)
    dataset = FolderDataset(root=str(tmp_path), seconds=0.25, form="float")
    assert {split: dataset.size(split) for split in ("train", "val", "test")} == {"train": 5, "val": 5, "test": 5}
    whole = read_span(tmp_path / "anna" / "0.wav", 0, None, 16000)
    for index, start in enumerate((0, 3400, 6800, 10200, 13600)):
        assert np.array_equal(dataset.example("train", index, None)["x"][0], whole[start : start + 4000])


def test_a_random_window_lies_in_its_file(tmp_path: Path) -> None:
    """Every place is as likely: a ramp tells where a window began."""
    for i in range(3):
        save(tmp_path / "anna" / f"{i}.wav", np.linspace(0, 0.9, 8000, dtype=np.float32))
    dataset = FolderDataset(root=str(tmp_path), seconds=0.25, form="float")
    draws = [dataset.example("train", 0, torch.Generator().manual_seed(s))["x"][0, 0].item() for s in range(200)]
    begins = np.array(draws) / 0.9 * 7999
    assert begins.min() >= -1
    assert begins.max() <= 4001
    assert np.abs(np.quantile(begins, [0.25, 0.5, 0.75]) / 4000 - [0.25, 0.5, 0.75]).max() < 0.12
    fixed = FolderDataset(root=str(tmp_path), seconds=0.25, form="float", crop="fixed")
    assert torch.equal(fixed.example("train", 0, torch.Generator())["x"], fixed.example("train", 0, None)["x"])


def test_a_short_file_is_filled_up_with_silence(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "anna" / f"{i}.wav", noise(0.1))
    dataset = FolderDataset(root=str(tmp_path), seconds=0.25, form="float")
    x = dataset.example("train", 0, torch.Generator())["x"][0]
    assert x[:1600].abs().max() > 0
    assert x[1600:].abs().max() == 0


@pytest.mark.long
@pytest.mark.parametrize("trim", [None, 40.0])
def test_an_alignment_must_end_where_its_sound_ends(trim: float | None, voices: Path) -> None:
    """The whole sound, not what is left of it after trimming; what does not is a file that cannot be used."""
    phones = align(voices)
    save(voices / "anna" / "0.wav", np.concatenate([noise(0.3), np.zeros(8000, np.float32)]))
    (phones / "anna" / "0.lab").write_text("0 0.3 a\n0.3 0.8 sil\n")
    words = {"root": str(voices), "seconds": 0.2, "phones": str(phones), "trim": trim}
    assert "sil" in (FolderDataset(**words).spec.conditions[1].labels or ())
    (phones / "anna" / "0.lab").write_text("0 0.3 a\n0.3 0.75 sil\n")
    why = r"anna/0\.lab: ends at 0\.75 in seconds; its sound ends at 0\.8 s.*\ndataset\.on_error=skip"
    with pytest.raises(ToolkitError, match=why):
        FolderDataset(**words)
    dataset = FolderDataset(**words, on_error="skip")
    assert dataset.policy.skipped == {"anna/0.wav"}
    assert "anna/0.wav" not in set().union(*(names(dataset, split) for split in dataset.splits))


def test_phones_are_those_of_the_window(voices: Path) -> None:
    phones = align(voices)
    dataset = FolderDataset(root=str(voices), seconds=0.2, phones=str(phones), form="float")
    condition = dataset.spec.conditions[1]
    assert (condition.labels, condition.stride, condition.per_step) == (("a", "b"), 160, True)
    for split in ("train", "val", "test"):
        for index in range(dataset.size(split)):
            number, start = dataset.windows[split][index].tolist()
            utterance = dataset.splits[split][number]
            middles = start / 16000 + (np.arange(20) + 0.5) / 100
            end = dataset.sounds[utterance.path].samples / 16000
            last = (end - 0.01 <= middles) & (middles < end)
            expected = np.where((middles < 0.1) | last, 0, np.where(middles < 0.25, 1, 2))
            if utterance.path not in dataset.phones.files:  # type: ignore[union-attr]
                expected[:] = 2
            assert dataset.example(split, index, None)["phone"].tolist() == expected.tolist()


def test_vctk_in_both_layouts(tmp_path: Path) -> None:
    for i in range(1, 4):
        save(tmp_path / "old" / "wav48" / "p225" / f"p225_00{i}.wav", noise(0.3, 48000), 48000)
        folder = tmp_path / "new" / "wav48_silence_trimmed" / "p225"
        folder.mkdir(parents=True, exist_ok=True)
        for microphone in (1, 2):
            encode(folder / f"p225_00{i}_mic{microphone}.flac", noise(0.3, 48000)[None], 48000, "flac", "s16")
    for layout in ("old", "new"):
        dataset = VCTKDataset(root=str(tmp_path / layout), seconds=0.1)
        assert dataset.spec.conditions[0].labels == ("p225",)
        assert sum(len(dataset.splits[split]) for split in dataset.splits) == 3
        assert not any("mic2" in path for split in dataset.splits for path in names(dataset, split))
    with pytest.raises(ToolkitError, match=r"VCTK is not there.*wav48_silence_trimmed/SPEAKER"):
        VCTKDataset(root=str(tmp_path))


def test_librispeech_has_its_own_splits_where_it_has_them_all(tmp_path: Path) -> None:
    for folder in ("train-clean-100", "dev-clean", "test-other"):
        for i in range(3):
            path = tmp_path / "LibriSpeech" / folder / "84" / "121" / f"84-121-000{i}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            encode(path, noise(0.3)[None], 16000, "flac", "s16")
    dataset = LibriSpeechDataset(root=str(tmp_path), seconds=0.1)
    assert {split: len(found) for split, found in dataset.splits.items()} == {"train": 3, "val": 3, "test": 3}
    assert all("dev-clean" in path for path in names(dataset, "val"))
    shutil.rmtree(tmp_path / "LibriSpeech" / "train-clean-100")
    alone = LibriSpeechDataset(root=str(tmp_path / "LibriSpeech"), seconds=0.1)
    assert alone.size("train") > alone.size("test") > 0
    with pytest.raises(ToolkitError, match="LibriSpeech is not there"):
        LibriSpeechDataset(root=str(tmp_path / "LibriSpeech" / "dev-clean"))


def test_held_out_speakers_are_in_one_split_alone(voices: Path) -> None:
    dataset = FolderDataset(root=str(voices), seconds=0.2, held_out="speakers")
    held = {split: {each.speaker for each in dataset.splits[split]} for split in dataset.splits}
    assert all(len(speakers) == 1 for speakers in held.values())
    assert len(set.union(*held.values())) == 3


def test_an_utterance_stays_in_its_split_when_others_come(tmp_path: Path) -> None:
    for i in range(60):
        save(tmp_path / "anna" / f"{i:03d}.wav", noise(0.05))
    before = {split: names(FolderDataset(root=str(tmp_path), seconds=0.05), split) for split in ("val", "test")}
    assert all(before.values())
    for i in range(60, 100):
        save(tmp_path / "anna" / f"{i:03d}.wav", noise(0.05))
    after = FolderDataset(root=str(tmp_path), seconds=0.05)
    assert all(before[split] <= names(after, split) for split in before)


def test_lists_say_which_files_are_which(voices: Path, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("anna/0\nanna/1\n\n")
    (tmp_path / "test.txt").write_text("p226/3\n")
    dataset = FolderDataset(root=str(voices), seconds=0.2, lists=str(tmp_path))
    assert names(dataset, "test") == {"p226/3.wav"}
    assert names(dataset, "train") | names(dataset, "val") == {"anna/0.wav", "anna/1.wav"}
    (tmp_path / "test.txt").write_text("p226/99\n")
    with pytest.raises(ToolkitError, match=r"test.txt: names p226/99, which is not in the corpus"):
        FolderDataset(root=str(voices), seconds=0.2, lists=str(tmp_path))
    (tmp_path / "train.txt").unlink()
    (tmp_path / "test.txt").write_text("p226/3\n")
    with pytest.raises(ToolkitError, match=r"no train.txt"):
        FolderDataset(root=str(voices), seconds=0.2, lists=str(tmp_path))


def test_lists_of_any_spelling(voices: Path, tmp_path: Path) -> None:
    (tmp_path / "Train.txt").write_text("화자 [1], x=y/0\nanna/1\n", encoding="utf-8-sig")
    (tmp_path / "dev.txt").write_text("anna/2.wav\n", encoding="utf-16")
    (tmp_path / "testing.txt").write_text("p226/3\r\n")
    dataset = FolderDataset(root=str(voices), seconds=0.2, lists=str(tmp_path))
    assert names(dataset, "train") == {"화자 [1], x=y/0.wav", "anna/1.wav"}
    assert (names(dataset, "val"), names(dataset, "test")) == ({"anna/2.wav"}, {"p226/3.wav"})


@pytest.mark.parametrize(
    ("lists", "why"),
    [
        ({"train.txt": "화자/0".encode("cp949")}, r"train\.txt: cannot be read \(its encoding is neither UTF-8"),
        ({"train.txt": b"anna/0\n", "test.txt": b"anna/0\n"}, r"test\.txt: names anna/0, and so does .* train"),
        ({"train.txt": b"anna/0\n", "val.txt": b"", "dev.txt": b""}, r"dev\.txt and val\.txt are both for val"),
        ({"train.txt": b"anna/0\nanna/2\n"}, r"names anna/2, which is anna/2\.flac and anna/2\.wav; write .* suffix"),
    ],
)
def test_lists_that_are_refused(lists: dict[str, bytes], why: str, voices: Path, tmp_path: Path) -> None:
    encode(voices / "anna" / "2.flac", noise(0.3)[None], 16000, "flac", "s16")
    for name, content in lists.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ToolkitError, match=why) as caught:
        FolderDataset(root=str(voices), seconds=0.2, lists=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_files_of_one_stem_are_both_there(voices: Path, tmp_path: Path) -> None:
    encode(voices / "anna" / "2.flac", noise(0.3)[None], 16000, "flac", "s16")
    (tmp_path / "train.txt").write_text("anna/2.flac\nanna/2.wav\n")
    dataset = FolderDataset(root=str(voices), seconds=0.2, lists=str(tmp_path))
    assert set().union(*(names(dataset, split) for split in dataset.splits)) == {"anna/2.flac", "anna/2.wav"}


def test_what_is_passed_over_is_counted(voices: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("notes.txt", "anna/0.txt", "anna/.hidden.wav"):
        (voices / name).write_text("no sound")
    (voices / "anna" / "up").symlink_to("..")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            dataset = FolderDataset(root=str(voices), seconds=0.2)
    assert caplog.text.count(f"{voices}: 18 files; passed over: ") == 1
    for part in ("2 .txt", "1 hidden", "1 linked folders that lead to what is read already"):
        assert part in caplog.text
    assert sum(len(paths) for paths in dataset.splits.values()) == 18


def test_splits_in_other_words_are_no_speakers(tmp_path: Path) -> None:
    for place in ("Training/anna/0", "Training/anna/1", "DEV/anna/2", "testing/anna/3"):
        save(tmp_path / f"{place}.wav", noise(0.3))
    dataset = FolderDataset(root=str(tmp_path), seconds=0.2)
    assert dataset.spec.conditions[0].labels == ("anna",)
    assert names(dataset, "val") == {"DEV/anna/2.wav"}
    (tmp_path / "DEV").rename(tmp_path / "dev-clean")
    with pytest.raises(ToolkitError, match="dev-clean: looks like a split"):
        FolderDataset(root=str(tmp_path), seconds=0.2)


def test_folders_that_are_not_named(voices: Path) -> None:
    for options in ({"root": ""}, {"phones": ""}, {"lists": ""}):
        (option,) = options
        with pytest.raises(ToolkitError, match=rf"dataset\.{option} is empty"):
            FolderDataset(**{"root": str(voices), **options})


def test_trimming_leaves_out_silent_ends(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(4000, np.float32), noise(0.5), np.zeros(6000, np.float32)])
    for i in range(3):
        save(tmp_path / "anna" / f"{i}.wav", sound)
    dataset = FolderDataset(root=str(tmp_path), seconds=0.1, trim=40)
    (kept,) = set(dataset.sounds.values())
    assert abs(kept.start - 4000) <= 400
    assert abs(kept.samples - 8000) <= 800
    assert (to_waveform(dataset.example("train", 0, None)["x"], dataset.spec)[0, :400].abs() > 0).any()
    names = [dataset.example_name("train", i) for i in range(dataset.size("train"))]
    assert len({*names}) == len(names) == 5
    assert names[0] in dataset.sounds
    assert names[1].startswith(f"{names[0].removesuffix('.wav')}@")


def test_loudness_is_brought_to_what_is_asked_for(tmp_path: Path, functional: ModuleType) -> None:
    for i, level in enumerate((0.05, 0.5, 1.0)):
        save(tmp_path / "anna" / f"{i}.wav", level * noise(1, seed=3))
    dataset = FolderDataset(root=str(tmp_path), seconds=1.0, loudness=-30, form="float")
    for split in ("train", "val", "test"):
        assert float(functional.loudness(dataset.example(split, 0, None)["x"], 16000)) == pytest.approx(-30, abs=0.1)
    loud = FolderDataset(root=str(tmp_path), seconds=1.0, loudness=30, form="float")
    assert loud.example("train", 0, None)["x"].abs().max() == pytest.approx(1, abs=1e-3)


def test_a_second_start_looks_at_no_file_again(voices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FolderDataset(root=str(voices), seconds=0.2)
    looked: list[Path] = []
    monkeypatch.setattr(corpus, "_header", lambda path: looked.append(path) or [16000, 8000])
    assert FolderDataset(root=str(voices), seconds=0.2).sounds == first.sounds
    assert looked == []
    save(voices / "anna" / "0.wav", noise(0.9))
    again = FolderDataset(root=str(voices), seconds=0.2)
    assert looked == [voices / "anna" / "0.wav"]
    assert again.sounds["anna/0.wav"].samples == 8000


@pytest.mark.long
def test_a_damaged_memory_is_made_anew(voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = FolderDataset(root=str(voices), seconds=0.2)
    (memory,) = (tmp_path / "cache").glob("*/*.json")
    for damage in ("{", '["a"]', '{"anna/0.wav": 3}'):
        memory.write_text(damage)
        assert FolderDataset(root=str(voices), seconds=0.2).sounds == first.sounds


def test_a_memory_that_cannot_be_kept_is_done_without(voices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert FolderDataset(root=str(voices), seconds=0.2).size("train")


def test_what_a_scan_counts_is_remembered(voices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths and the places from which decoding may begin, so that a file is decoded once, and windows are exact."""
    monkeypatch.setattr(reading, "NEAR", 0.8)
    monkeypatch.setattr(reading, "SPACING", 0.5)
    path = encode(voices / "anna" / "long.mp3", noise(6, 44100)[None], 44100, "libmp3lame", "s16p")
    first = FolderDataset(root=str(voices), seconds=0.2, form="float")
    monkeypatch.setattr(corpus, "survey", None)
    again = FolderDataset(root=str(voices), seconds=0.2, form="float")
    assert again.sounds == first.sounds
    assert again.sounds["anna/long.mp3"].samples == length_at(6 * 44100, 44100, 16000)
    assert len(again.sounds["anna/long.mp3"].marks) > 5
    whole = read_span(path, 0, None, 16000)
    for split in ("train", "val", "test"):
        for index, (number, start) in enumerate(again.windows[split].tolist()):
            if again.splits[split][number].path == "anna/long.mp3":
                x = again.example(split, index, None)["x"][0].numpy()
                np.testing.assert_allclose(x, whole[start : start + 3200], rtol=0, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("damage", ["nan", "no channels", "65535 channels", "a pipe", "a bomb", "too short"])
def test_whatever_one_file_raises_is_that_files_fault(damage: str, voices: Path) -> None:
    path = voices / "anna" / ("bad.flac" if damage == "a bomb" else "bad.wav")
    if damage == "a pipe":
        os.mkfifo(path)
    elif damage == "nan":
        encode(path, np.append(noise(1), np.float32(np.nan))[None], 16000, "pcm_f32le", "flt")
    elif damage == "too short":
        save(path, noise(1, 44100)[:2], 44100)
    elif damage == "a bomb":
        encode(path, noise(1)[None], 16000, "flac", "s16")
        content = bytearray(path.read_bytes())
        content[21:26] = bytes([content[21] | 15]) + b"\xff" * 4
        path.write_bytes(content)
    else:
        content = bytearray(save(path, noise(1)).read_bytes())
        content[22:24] = (0 if damage == "no channels" else 65535).to_bytes(2, "little")
        path.write_bytes(content)
    with pytest.raises(ToolkitError, match=rf"{path.name}: "):
        FolderDataset(root=str(voices), seconds=0.2)
    dataset = FolderDataset(root=str(voices), seconds=0.2, on_error="skip")
    assert dataset.policy.skipped == {f"anna/{path.name}"}


def test_many_files_are_told(voices: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(cache, "MANY", 10)
    with caplog.at_level(logging.INFO):
        FolderDataset(root=str(voices), seconds=0.2)
    assert "looking at 18 files, once" in caplog.text
    assert "0.2 minutes by 3 speakers" in caplog.text


@pytest.mark.slow
def test_the_real_corpora(speech: Path) -> None:
    vctk = VCTKDataset(root=str(speech / "vctk-mini"), held_out="utterances")
    assert vctk.spec.conditions[0].labels == ("p225", "p226", "p227", "p228")
    libri = LibriSpeechDataset(root=str(speech))
    assert len(libri.spec.conditions[0].labels) == 10
    folder = FolderDataset(root=str(speech / "speechocean24"))
    assert len(folder.spec.conditions[0].labels) == 24
    assert {split: len(found) for split, found in folder.splits.items()}["test"] == 40
    espeak = speech / "espeak-ms"
    words = {"phones": str(espeak / "phones"), "phone_map": str(espeak / "phone-map.json"), "lists": str(espeak)}
    phones = FolderDataset(root=str(espeak / "wav"), **words)
    assert phones.spec.conditions[1].size == 43
    assert len(phones.splits["test"]) == 60
    for dataset in (vctk, libri, folder, phones):
        assert dataset.example("test", 0, None)["x"].shape == (1, 16000)
