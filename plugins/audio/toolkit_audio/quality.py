"""How near reconstructed sound is, to the ear and to the waveform."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib import import_module
from math import prod
from typing import Any, final

import torch
from torch import Tensor

from toolkit import Bound, CodeSpec, DataSpec, Metric, ToolkitError
from toolkit_audio.spectra import log_mel, magnitudes
from toolkit_audio.stft import spectral_distance
from toolkit_audio.waveform import heard, sample_rate_of, to_waveform

WINDOWS = (512, 1024, 2048)
"""Samples of the windows of ``stft_distance`` and ``mel_distance``; hops are a quarter of these."""
SILENT = 1e-8
"""Power of an original below which its reconstruction has no signal-to-distortion ratio."""
LARGEST_RATIO = 100.0
"""Decibels at which two waveforms are the same."""


@final
class QualityMetric(Metric):
    """Of the likelihood's mean against x, as waveforms: means over examples.

    ``si_sdr``: scale-invariant signal-to-distortion ratio in decibels (Le Roux et al. 2019), of examples that are not
    silent; ``stft_distance``: spectral convergence plus difference of log magnitudes, over windows of 512, 1024 and
    2048 samples (Yamamoto et al. 2020); ``mel_distance``: mean difference of the natural logs of 80 mel bands over the
    same windows; ``kbit_per_second`` of the codes at a uniform prior. Of an autoregressive decoder, which has no mean,
    the last alone.

    Args:
        pesq: adds PESQ (ITU-T P.862), of 8 000 or 16 000 samples per second; needs the package pesq.
        stoi: adds STOI, how much of speech is understood (Taal et al. 2011); needs the package pystoi.
    """

    def __init__(self, data: DataSpec, code_spec: CodeSpec, *, pesq: bool = False, stoi: bool = False) -> None:
        self.data, self.code_spec, self.rate = data, code_spec, sample_rate_of(data)
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._judges: dict[str, Callable[[Any, Any], float]] = {}
        self._has_mean = True
        if pesq:
            self._judges["pesq"] = _pesq(self.rate)
        if stoi:
            self._judges["stoi"] = _stoi(self.rate)

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        mean = output.likelihood.mean
        self._has_mean = mean is not None
        if mean is None:
            return
        target, made = to_waveform(x, self.data)[:, 0].float(), heard(mean, self.data)[:, 0].float()
        loud = target.square().mean(1) > SILENT
        self._add("si_sdr", si_sdr(made[loud], target[loud]))
        self._add("stft_distance", _per_window(made, target, _stft_distance))
        self._add("mel_distance", _per_window(made, target, self._mel_distance))
        for name, judge in self._judges.items():
            pairs = zip(made[loud].cpu().numpy(), target[loud].cpu().numpy(), strict=True)
            self._add(name, torch.tensor([judge(one, original) for one, original in pairs]))

    def compute(self) -> dict[str, float]:
        metrics = {name: self._sums[name] / count for name, count in self._counts.items() if count}
        bits = self.code_spec.rate * self.rate / prod(self.data.axes)
        return {**metrics, **({"kbit_per_second": bits / 1000} if self.code_spec.depth else {})}

    def warnings(self) -> list[str]:
        if self._has_mean:
            return []
        return ["audio_quality: an autoregressive decoder has no mean to be judged; reconstruct draws what it says"]

    def _add(self, name: str, values: Tensor) -> None:
        """What an outside judge could not tell is no number, and left out."""
        values = values[values.isfinite()]
        self._sums[name] += float(values.double().sum())
        self._counts[name] += len(values)

    def _mel_distance(self, made: Tensor, target: Tensor, size: int) -> Tensor:
        return (
            (log_mel(made, self.rate, size, size // 4) - log_mel(target, self.rate, size, size // 4)).abs().mean((1, 2))
        )


def si_sdr(made: Tensor, target: Tensor) -> Tensor:
    """Decibels ``(batch,)`` of waveforms ``(batch, samples)``: the part of ``made`` that is a multiple of ``target``
    against the rest, both without their mean."""
    made, target = made.double(), target.double()
    made, target = made - made.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
    scaled = target * ((made * target).sum(1) / target.square().sum(1)).unsqueeze(1)
    signal, rest = scaled.square().sum(1), (made - scaled).square().sum(1)
    least = 10 ** (-LARGEST_RATIO / 10)
    return 10 * torch.log10((signal / rest.clamp(min=1e-30)).clamp(least, 1 / least))


def _per_window(made: Tensor, target: Tensor, distance: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
    return torch.stack([distance(made, target, size) for size in WINDOWS]).mean(0)


def _stft_distance(made: Tensor, target: Tensor, size: int) -> Tensor:
    window = torch.hann_window(size, device=made.device)
    pairs = zip(magnitudes(made, window, size // 4), magnitudes(target, window, size // 4), strict=True)
    return torch.stack([spectral_distance(one[None], original[None]) for one, original in pairs])


def _pesq(rate: int) -> Callable[[Any, Any], float]:
    if rate not in (8000, 16000):
        raise ValueError(f"pesq=true: PESQ is defined at 8000 and 16000 samples per second, not {rate}")
    package = _package("pesq", "pesq")
    mode, nothing = "nb" if rate == 8000 else "wb", package.PesqError.RETURN_VALUES
    return lambda made, target: _or_nothing(package.pesq(rate, target, made, mode, on_error=nothing))


def _stoi(rate: int) -> Callable[[Any, Any], float]:
    package = _package("stoi", "pystoi")
    return lambda made, target: float(package.stoi(target, made, rate))


def _or_nothing(value: float) -> float:
    """PESQ's -1 stands for no utterance found."""
    return float(value) if value >= 0 else float("nan")


def _package(option: str, name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ToolkitError(
            f"metric.audio_quality.{option} needs the package {name}:"
            " pip install 'discrete-toolkit-audio[speech-quality]'"
        ) from error
