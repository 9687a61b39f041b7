"""Synthetic speakers saying vowels: a labeled dataset that needs no download."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from toolkit import Condition, DataSpec
from toolkit.dataset import SPLITS
from toolkit.ranges import PositiveInt, Range
from toolkit_audio.alignment import label_rate
from toolkit_audio.files import AudioDataset
from toolkit_audio.spans import SILENCE
from toolkit_audio.waveform import FORMS, from_waveform

VOWELS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
"""The first three formants in Hz of a man's vowels (Peterson and Barney 1952)."""
BANDWIDTHS = (80.0, 100.0, 140.0)
"""Of the formants, in Hz."""
PHONES = (SILENCE, *VOWELS)


class Speaker(NamedTuple):
    """A voice."""

    pitch: float
    """Mean, in Hz."""
    size: float
    """Factor on the formants: above 1 is a shorter vocal tract."""


SPEAKERS = {
    "bass": Speaker(90, 0.94),
    "baritone": Speaker(120, 0.97),
    "tenor": Speaker(155, 1.0),
    "alto": Speaker(200, 1.05),
    "soprano": Speaker(260, 1.09),
}
VARIANCES = {"mulaw": 0.236, "pcm16": 0.0127, "float": 0.0127}
"""Of the training split on the scale of its form."""
GLIDE = 0.03
"""Seconds from one vowel's formants to the next's."""
SHORTEST, LONGEST = 0.12, 0.3
"""Seconds of a phone."""
SILENT = 0.15
"""Probability of a pause after a vowel."""
DRIFT = 0.03
"""Relative deviation of the pitch to either side."""
PEAK = 0.5
"""The largest amplitude of an example's voice."""
BREATH = 0.005
"""Standard deviation of the noise in it, about 30 dB below."""


@final
class VowelsDataset(AudioDataset):
    """Five synthetic speakers, which differ in pitch and formants, say vowels in any order, with pauses.

    Labeled by ``speaker`` and, a hundred times a second, by ``phone``: sil, a, e, i, o, u. The sound is a train of
    pulses filtered by the vowel's formants, which glide, plus a little noise. An example is a function of its split and
    index, whatever the sizes of the splits.

    Args:
        sample_rate: samples per second; 100 divides it.
        seconds: length of an example.
        form: mulaw: 256 levels; pcm16: 65536 levels; float: numbers in [-1, 1].
        train_size: examples of the training split.
        val_size: of the validation split.
        test_size: of the test split.
    """

    def __init__(
        self,
        *,
        sample_rate: PositiveInt = 8000,
        seconds: Annotated[float, Range(above=0, most=86400)] = 1.0,
        form: Literal["mulaw", "pcm16", "float"] = "mulaw",
        train_size: PositiveInt = 2000,
        val_size: PositiveInt = 200,
        test_size: PositiveInt = 200,
    ) -> None:
        if sample_rate < 4000 or label_rate(sample_rate) != 100:
            raise ValueError(f"sample_rate={sample_rate}: a multiple of 100, at least 4000, is needed")
        length = round(seconds * sample_rate)
        if length < sample_rate // 100:
            raise ValueError(f"seconds={seconds}: at least a hundredth of a second")
        self.sizes = dict(zip(SPLITS, (train_size, val_size, test_size), strict=True))
        for split, count in self.sizes.items():
            if count < 1:
                raise ValueError(f"{split}_size={count}: a split needs at least one example")
        self.rate = sample_rate
        self.spec = DataSpec(
            1,
            (length,),
            levels=FORMS[form],
            varying=(True,),
            rates=(float(sample_rate),),
            variance=VARIANCES[form],
            conditions=(
                Condition("speaker", len(SPEAKERS), tuple(SPEAKERS)),
                Condition("phone", len(PHONES), PHONES, per_step=True, stride=sample_rate // 100),
            ),
        )

    def size(self, split: str) -> int:
        return self.sizes[split]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """``x`` (1, samples), the labels ``speaker`` and ``phone`` (hundredths,); the generator is not used."""
        if not 0 <= index < self.sizes[split]:
            raise IndexError(f"{split} has {self.sizes[split]} examples, no index {index}")
        choices = np.random.default_rng((SPLITS.index(split), index))
        speaker = int(choices.integers(len(SPEAKERS)))
        length, every = self.spec.axes[0], self.rate // 100
        phones = utter(length // every + 1, choices)
        sound = voice(list(SPEAKERS.values())[speaker], phones, self.rate, choices)[:length]
        x = from_waveform(torch.from_numpy(sound.astype(np.float32)), self.spec)
        labels = torch.from_numpy(phones[: length // every])
        return {"x": x.unsqueeze(0), "speaker": torch.tensor(speaker), "phone": labels}


def utter(frames: int, choices: np.random.Generator) -> np.ndarray:
    """Phones ``int64 (frames,)``, a hundred a second: no phone follows itself."""
    phones: list[int] = []
    last = 0
    while len(phones) < frames:
        pause = last != 0 and choices.random() < SILENT
        others = [phone for phone in range(1, len(PHONES)) if phone != last]
        last = 0 if pause else int(choices.choice(others))
        phones += [last] * round(100 * choices.uniform(SHORTEST, LONGEST))
    return np.array(phones[:frames], np.int64)


def voice(speaker: Speaker, phones: np.ndarray, rate: int, choices: np.random.Generator) -> np.ndarray:
    """A speaker saying phones, a hundred a second: samples in [-1, 1], float64."""
    every, times = rate // 100, np.arange(len(phones) * (rate // 100)) / rate
    formants, loud = (_smooth(np.repeat(track, every, 0), rate) for track in _tracks(phones))
    drift = DRIFT * np.sin(2 * np.pi * (choices.uniform(0.5, 2) * times + choices.random()))
    pitch = speaker.pitch * (1 + drift)
    phase = 2 * np.pi * (np.cumsum(pitch) / rate + choices.random())
    sound, turn, turned = np.zeros(len(times)), np.exp(1j * phase), np.ones(len(times), complex)
    for harmonic in range(1, int(0.45 * rate / (speaker.pitch * (1 + DRIFT))) + 1):
        turned *= turn
        sound += (_resonance(harmonic * pitch, formants * speaker.size) * turned).real / np.sqrt(harmonic)
    sound *= loud[:, 0]
    breath = loud[:, 0] * choices.standard_normal(len(sound))
    samples: np.ndarray = PEAK * sound / max(1e-9, np.abs(sound).max()) + BREATH * breath
    return samples


def _tracks(phones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Formants ``(frames, 3)``, in a pause those of the vowel before it, and loudness ``(frames, 1)``."""
    table = np.array(list(VOWELS.values()), float)
    said = np.maximum.accumulate(np.where(phones > 0, np.arange(len(phones)), 0))
    return table[np.maximum(phones[said] - 1, 0)], (phones > 0).astype(float)[:, None]


def _smooth(track: np.ndarray, rate: int) -> np.ndarray:
    """Each column's running mean over the glide."""
    width = round(GLIDE * rate)
    padded = np.pad(track, ((width // 2, width - 1 - width // 2), (0, 0)), mode="edge")
    sums = np.cumsum(np.pad(padded, ((1, 0), (0, 0))), 0)
    smooth: np.ndarray = (sums[width:] - sums[:-width]) / width
    return smooth


def _resonance(frequency: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """The vocal tract's complex response: a product of two-pole resonances, 1 at 0 Hz."""
    response = np.ones(frequency.shape, complex)
    for formant, bandwidth in zip(formants.T, BANDWIDTHS, strict=True):
        response *= formant**2 / (formant**2 - frequency**2 + 1j * bandwidth * frequency)
    return response
