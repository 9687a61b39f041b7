"""What all corpora of files share: scanning, windows, labels, and errors."""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from toolkit import Condition, DataSpec, ToolkitError
from toolkit.dataset import SPLITS, SourceFile
from toolkit.datasets.files import (
    ErrorPolicy,
    log_once,
    part_name,
    require_folder,
    scan,
    set_aside,
    split_sizes,
    windows,
)
from toolkit.datasets.variance import estimate_variance
from toolkit.ranges import NonNegative, PositiveInt, Range
from toolkit_audio import PACKAGE
from toolkit_audio.alignment import label_rate
from toolkit_audio.files import AudioDataset
from toolkit_audio.frames import Mark
from toolkit_audio.loudness import gain, measure_loudness, require_torchaudio
from toolkit_audio.phone_labels import PhoneLabels, read_phone_map
from toolkit_audio.reading import Header, length_at, read_span, survey
from toolkit_audio.splits import Utterance, listed
from toolkit_audio.trimming import sounding
from toolkit_audio.waveform import FORMS, from_waveform, sample_rate_of

logger = logging.getLogger(__name__)

SAMPLE = 64
"""Crops that the variance is estimated from, at most."""
NOTHING = "too few utterances that can be read to train on"


class Sound(NamedTuple):
    """The result of scanning a file, in samples of the data's rate."""

    start: int
    """The first sample after silence is trimmed."""
    samples: int
    """Length without the trimmed silence."""
    gain: float
    """Factor of the amplitude."""
    marks: tuple[Mark, ...]
    """Where decoding may begin, in samples of the file's own rate."""
    whole: Header
    """The file's own rate, and its length at it."""


class CorpusDataset(AudioDataset):
    """Utterances in files, labeled by speaker and, with alignments, by phone.

    ``find`` lists a corpus's files. Each is scanned once, and the result is cached in the user's cache folder. An
    example is a window of ``seconds``: a file has as many evenly spaced windows as cover it; a shorter file is one
    window, padded with silence or, with other ``lengths``, an example as long as it is. With ``crop="random"`` and a
    generator, the window is anywhere in its file. Only the window is decoded.

    Args:
        root: the corpus's folder.
        sample_rate: samples per second; files of other rates are resampled, and channels averaged.
        seconds: length of an example.
        form: mulaw: 256 levels; pcm16: 65536 levels; float: numbers in [-1, 1].
        lengths: equal: all examples are that long; own: a shorter file is an example of its own length, and is padded
            in a batch; grouped: the same, but batches are of one length each, for parts that take no padding.
        grain: samples of which each own length is a whole number, the file's last ones filled up with silence; a whole
            number of times the samples of a code.
        crop: random: a training example is anywhere in its file; fixed: at the file's evenly spaced windows.
        trim: ends of a file that are this many decibels below its loudest part are trimmed; null: nothing is.
        loudness: LUFS that every file is scaled to, usually -23; null: unchanged. Needs torchaudio.
        held_out: whether utterances or speakers are held out, 5 % for val and 5 % for test, if the corpus has no such
            splits.
        lists: a folder with train.txt, val.txt and test.txt, each listing files without suffix; null: none.
        phones: a folder of alignments, .TextGrid, .phn or .lab, under the files' own paths; null: none.
        phone_map: a JSON object that maps phones to the class that they count as; null: none.
        on_error: whether a file that cannot be read stops the run, or is skipped with a warning.
    """

    path_options = ("root", "lists", "phones", "phone_map")

    def __init__(
        self,
        *,
        root: str,
        sample_rate: PositiveInt = 16000,
        seconds: Annotated[float, Range(above=0, most=86400)] = 1.0,
        form: Literal["mulaw", "pcm16", "float"] = "mulaw",
        lengths: Literal["equal", "own", "grouped"] = "equal",
        grain: PositiveInt = 1280,
        crop: Literal["random", "fixed"] = "random",
        trim: NonNegative | None = None,
        loudness: Annotated[float, Range(least=-100, most=0)] | None = None,
        held_out: Literal["utterances", "speakers"] = "utterances",
        lists: str | None = None,
        phones: str | None = None,
        phone_map: str | None = None,
        on_error: Literal["skip", "stop"] = "stop",
    ) -> None:
        if sample_rate < 1000:
            raise ValueError(f"sample_rate={sample_rate}: at least 1000 samples per second")
        if round(seconds * sample_rate) < 1:
            raise ValueError(f"seconds={seconds}: an example has at least one sample")
        if lengths != "equal" and round(seconds * sample_rate) % grain:
            raise ValueError(f"seconds={seconds}: at {sample_rate} samples per second no whole number of grain={grain}")
        if loudness is not None:
            require_torchaudio("dataset.loudness")
        self.root, self.crop = require_folder(root, "the corpus is"), crop
        self.grain, self.one_length = grain if lengths != "equal" else None, lengths == "grouped"
        self.policy = ErrorPolicy(self.root, on_error)
        utterances = self.find(self.root)
        if lists is not None:
            utterances = listed(utterances, require_folder(lists, "train.txt is", "dataset.lists"))
        self.sounds = self._scan([utterance.path for utterance in utterances], sample_rate, trim, loudness)
        self.phones = self._phone_labels(phones, phone_map)
        usable = [utterance for utterance in utterances if utterance.path in self.sounds]
        if not usable:
            raise ToolkitError(f"{self.root}: {NOTHING}")
        self.splits = set_aside(usable, lambda utterance: utterance.split, _key(held_out))
        self.speakers = {name: i for i, name in enumerate(sorted({utterance.speaker for utterance in utterances}))}
        self.spec = DataSpec(
            1,
            (round(seconds * sample_rate),),
            levels=FORMS[form],
            varying=(True,),
            rates=(float(sample_rate),),
            conditions=self._conditions(sample_rate),
        )
        self.windows = {split: self._windows(split) for split in SPLITS}
        if not self.size("train"):
            raise ToolkitError(f"{self.root}: {NOTHING}")
        self._log()
        self.spec = replace(self.spec, variance=estimate_variance(self, SAMPLE))

    @classmethod
    @abstractmethod
    def find(cls, root: Path) -> list[Utterance]:
        """The files below a root. ToolkitError if there is no such corpus."""

    @classmethod
    def missing_dependencies(cls) -> list[str]:
        try:
            require_torchaudio("dataset.loudness")
        except ToolkitError as error:
            return [str(error)]
        return []

    def size(self, split: str) -> int:
        return len(self.windows[split])

    def lengths(self, split: str) -> list[int] | None:
        if self.grain is None:
            return None
        utterances = self.splits[split]
        return [self._length(self.sounds[utterances[number].path]) for number in self.windows[split][:, 0]]

    def _length(self, sound: Sound) -> int:
        """Samples of an example of a file."""
        window = self.spec.axes[0]
        return window if self.grain is None else min(window, -(-sound.samples // self.grain) * self.grain)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (1, samples), the label ``speaker`` and, with alignments, ``phone`` over time."""
        numbers, utterances = self.windows[split], self.splits[split]
        return self.policy.example(
            split,
            index,
            len(numbers),
            lambda place: utterances[numbers[place, 0]].path,
            # As long as the one that was asked for, whichever stands in for it.
            lambda place: self._example(
                utterances[numbers[place, 0]],
                int(numbers[place, 1]),
                generator,
                self._length(self.sounds[utterances[numbers[index, 0]].path]),
            ),
        )

    def example_name(self, split: str, index: int) -> str:
        numbers, utterances = self.windows[split], self.splits[split]
        place = self.policy.place(index, len(numbers), lambda place: utterances[numbers[place, 0]].path)
        return part_name(utterances[numbers[place, 0]].path, int(numbers[place, 1]))

    def source_files(self) -> Iterable[SourceFile]:
        """Sounds, and alignments under the name ``phones/…``."""
        for split, utterances in self.splits.items():
            for utterance in utterances:
                path = utterance.path
                yield SourceFile(path, os.path.join(self.root, path), split, utterance.speaker)
                if self.phones and path in self.phones.files:
                    file = self.phones.files[path]
                    yield SourceFile(f"phones/{file}", os.path.join(self.phones.folder, file), split)

    def _example(
        self, utterance: Utterance, start: int, generator: torch.Generator | None, length: int
    ) -> dict[str, Tensor]:
        sound, rate = self.sounds[utterance.path], sample_rate_of(self.spec)
        if generator is not None and self.crop == "random":
            start = int(torch.randint(max(0, sound.samples - length) + 1, (), generator=generator))
        begin = sound.start + start
        samples = read_span(self.root / utterance.path, begin, begin + min(length, sound.samples), rate, sound.marks)
        waveform = torch.from_numpy(np.pad(samples * np.float32(sound.gain), (0, length - len(samples))))
        example = {"x": from_waveform(waveform, self.spec).unsqueeze(0)}
        example["speaker"] = torch.tensor(self.speakers[utterance.speaker])
        if self.phones:
            labels = label_rate(rate)
            example["phone"] = self.phones.labels(utterance.path, begin / rate, length // (rate // labels), labels)
        return example

    def _conditions(self, sample_rate: int) -> tuple[Condition, ...]:
        speaker = Condition("speaker", len(self.speakers), tuple(self.speakers))
        if not self.phones:
            return (speaker,)
        names, stride = self.phones.names, sample_rate // label_rate(sample_rate)
        return (speaker, Condition("phone", len(names), names, per_step=True, stride=stride))

    def _scan(
        self, paths: list[str], sample_rate: int, trim: NonNegative | None, loudness: float | None
    ) -> dict[str, Sound]:
        """The files that can be read, by path."""
        if trim is None and loudness is None:
            unpack = partial(_whole, sample_rate=sample_rate)
            sounds, failures = scan(self.root, paths, _header, unpack, package=PACKAGE, purpose="length")
        else:
            measure = partial(_measured, sample_rate=sample_rate, trim=trim, with_loudness=loudness is not None)
            unpack = partial(_part, loudness=loudness)
            purpose = f"part and length {sample_rate} {trim} {loudness is not None}"
            sounds, failures = scan(self.root, paths, measure, unpack, package=PACKAGE, purpose=purpose)
        empty = [path for path, sound in sounds.items() if sound.samples < 1]
        why = f"has no sound, not one sample at {sample_rate} per second"
        self.policy.add(failures | {path: f"{self.root / path}: {why}" for path in empty})
        return {path: sound for path, sound in sounds.items() if sound.samples >= 1}

    def _phone_labels(self, folder: str | None, phone_map: str | None) -> PhoneLabels | None:
        """Labels by alignments; a sound whose alignment cannot be used is one that cannot be used."""
        if folder is None or not self.sounds:
            return None
        classes = read_phone_map(Path(phone_map).expanduser()) if phone_map is not None else {}
        place = require_folder(folder, "the alignments are", "dataset.phones")
        labels = PhoneLabels(place, {path: sound.whole for path, sound in self.sounds.items()}, classes)
        self.policy.add(labels.failures)
        self.sounds = {path: sound for path, sound in self.sounds.items() if path not in labels.failures}
        return labels

    def _windows(self, split: str) -> np.ndarray:
        """Utterance and first sample ``(n, 2)`` of every example."""
        return windows((self.sounds[utterance.path].samples for utterance in self.splits[split]), self.spec.axes[0])

    def _log(self) -> None:
        samples = sum(self.sounds[utterance.path].samples for split in SPLITS for utterance in self.splits[split])
        minutes, speakers = samples / sample_rate_of(self.spec) / 60, len(self.speakers)
        sizes = split_sizes(self.splits)
        log_once(logger, f"{self.root}: {minutes:.1f} minutes by {speakers} speakers; utterances: {sizes}")


def _key(held_out: Literal["utterances", "speakers"]) -> Callable[[Utterance], str]:
    """What decides by its hash whether an utterance is set aside."""
    return (lambda each: each.speaker) if held_out == "speakers" else (lambda each: each.path)


def scan_headers(root: Path, paths: list[str]) -> tuple[dict[str, Header], dict[str, str]]:
    """Rate and length of every file that can be read, by path, and the reason, by path, for the others."""
    return scan(root, paths, _header, _its_header, package=PACKAGE, purpose="length")


def _its_header(header: list[Any]) -> Header:
    return Header(header[0], header[1])


def _header(path: Path) -> list[Any]:
    (rate, samples), marks = survey(path)
    return [rate, samples, *marks]


def _whole(header: list[Any], sample_rate: int) -> Sound:
    rate, samples, *marks = header
    return Sound(0, length_at(samples, rate, sample_rate), 1.0, _marks(marks), Header(rate, samples))


def _marks(numbers: list[list[int]]) -> tuple[Mark, ...]:
    return tuple(Mark(*mark) for mark in numbers)


def _measured(path: Path, sample_rate: int, trim: NonNegative | None, with_loudness: bool) -> list[Any]:
    """Start, samples, loudness and peak, from the whole file; its rate, its length, and where decoding may begin."""
    sound = read_span(path, 0, None, sample_rate)
    start, stop = (0, len(sound)) if trim is None else sounding(sound, sample_rate, trim)
    sound = sound[start:stop]
    loudness = measure_loudness(sound, sample_rate) if with_loudness else None
    return [start, stop - start, loudness, float(np.abs(sound).max(initial=0)), *_header(path)]


def _part(answer: list[Any], loudness: float | None) -> Sound:
    start, samples, measured, peak, rate, whole, *marks = answer
    return Sound(start, samples, gain(measured, loudness, peak), _marks(marks), Header(rate, whole))
