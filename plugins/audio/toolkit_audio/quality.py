"""Quality of reconstructed sound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib import import_module
from math import prod
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from toolkit import Bound, CodeSpec, DataSpec, Metric, ToolkitError
from toolkit.device import double
from toolkit.metric import Direction
from toolkit_audio.spectra import log_mel, magnitudes
from toolkit_audio.stft import spectral_distance
from toolkit_audio.waveform import sample_rate_of, scaled_to_waveform, to_waveform

WINDOWS = (512, 1024, 2048)
"""Samples of the windows of ``stft_distance`` and ``mel_distance``; hops are a quarter of these."""
SILENT = 1e-8
"""Power of an original below which its reconstruction has no signal-to-distortion ratio."""
LARGEST_RATIO = 100.0
"""Decibels at which two waveforms are the same."""


@final
class QualityMetric(Metric):
    """Compares the likelihood's mean with x, as waveforms: means over examples.

    ``si_sdr``: scale-invariant signal-to-distortion ratio in decibels (Le Roux et al. 2019), of examples that are not
    silent; ``stft_distance``: spectral convergence plus difference of log magnitudes, over windows of 512, 1024 and
    2048 samples (Yamamoto et al. 2020); ``mel_distance``: mean difference of the natural logs of 80 mel bands over the
    same windows; ``kbit_per_second`` of the codes at a uniform prior. For an autoregressive decoder, which has no mean,
    only the last.

    Args:
        pesq: adds PESQ (ITU-T P.862), at 8 000 or 16 000 samples per second; needs the package pesq.
        stoi: adds STOI, the intelligibility of speech (Taal et al. 2011); needs the package pystoi.
    """

    directions: ClassVar[Mapping[str, Direction]] = {
        "si_sdr": "max",
        "stft_distance": "min",
        "mel_distance": "min",
        "pesq": "max",
        "stoi": "max",
    }

    def __init__(self, data: DataSpec, code_spec: CodeSpec, *, pesq: bool = False, stoi: bool = False) -> None:
        self.data, self.code_spec, self.rate = data, code_spec, sample_rate_of(data)
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._scores: dict[str, Callable[[Any, Any], float]] = {}
        self._has_mean = True
        if pesq:
            self._scores["pesq"] = _pesq(self.rate)
        if stoi:
            self._scores["stoi"] = _stoi(self.rate)

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        mean = output.likelihood.mean
        self._has_mean = mean is not None
        if mean is None:
            return
        target, waveform = to_waveform(x, self.data), scaled_to_waveform(mean, self.data)
        target, estimate = target[:, 0].float(), waveform[:, 0].float()
        loud = target.square().mean(1) > SILENT
        self._add("si_sdr", si_sdr(estimate[loud], target[loud]))
        self._add("stft_distance", _per_window(estimate, target, _stft_distance))
        self._add("mel_distance", _per_window(estimate, target, self._mel_distance))
        for name, score in self._scores.items():
            pairs = zip(estimate[loud].cpu().numpy(), target[loud].cpu().numpy(), strict=True)
            self._add(name, torch.tensor([score(one, original) for one, original in pairs]))

    def compute(self) -> dict[str, float]:
        metrics = {name: self._sums[name] / count for name, count in self._counts.items() if count}
        bits = self.code_spec.rate * self.rate / prod(self.data.axes)
        return {**metrics, **({"kbit_per_second": bits / 1000} if self.code_spec.depth else {})}

    def state(self) -> tuple[dict[str, float], dict[str, int], bool]:
        return dict(self._sums), dict(self._counts), self._has_mean

    def merge(self, state: tuple[dict[str, float], dict[str, int], bool]) -> None:
        sums, counts, has_mean = state
        self._has_mean &= has_mean
        for name in sums:
            self._sums[name] += sums[name]
            self._counts[name] += counts[name]

    def warnings(self) -> list[str]:
        if self._has_mean:
            return []
        return ["audio_quality: an autoregressive decoder has no mean to compare; toolkit reconstruct samples from it"]

    def _add(self, name: str, values: Tensor) -> None:
        """Leaves out examples that a measure gives no value for."""
        values = values[values.isfinite()]
        self._sums[name] += float(double(values).sum())
        self._counts[name] += len(values)

    def _mel_distance(self, estimate: Tensor, target: Tensor, size: int) -> Tensor:
        mel, target_mel = (log_mel(waveform, self.rate, size, size // 4) for waveform in (estimate, target))
        return (mel - target_mel).abs().mean((1, 2))


def si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Decibels ``(batch,)`` of waveforms ``(batch, samples)``: the projection of ``estimate`` on ``target`` against the
    remaining distortion, both without their mean."""
    estimate, target = double(estimate), double(target)
    estimate, target = estimate - estimate.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
    scaled = target * ((estimate * target).sum(1) / target.square().sum(1)).unsqueeze(1)
    signal, distortion = scaled.square().sum(1), (estimate - scaled).square().sum(1)
    least = 10 ** (-LARGEST_RATIO / 10)
    return 10 * torch.log10((signal / distortion.clamp(min=1e-30)).clamp(least, 1 / least))


def _per_window(estimate: Tensor, target: Tensor, distance: Callable[[Tensor, Tensor, int], Tensor]) -> Tensor:
    return torch.stack([distance(estimate, target, size) for size in WINDOWS]).mean(0)


def _stft_distance(estimate: Tensor, target: Tensor, size: int) -> Tensor:
    window = torch.hann_window(size, device=estimate.device)
    pairs = zip(magnitudes(estimate, window, size // 4), magnitudes(target, window, size // 4), strict=True)
    return torch.stack([spectral_distance(one[None], original[None]) for one, original in pairs])


def _pesq(rate: int) -> Callable[[Any, Any], float]:
    if rate not in (8000, 16000):
        raise ValueError(f"pesq=true: PESQ is defined at 8000 and 16000 samples per second, not {rate}")
    package = _package("pesq", "pesq")
    mode, nothing = "nb" if rate == 8000 else "wb", package.PesqError.RETURN_VALUES
    return lambda estimate, target: _or_nothing(package.pesq(rate, target, estimate, mode, on_error=nothing))


def _stoi(rate: int) -> Callable[[Any, Any], float]:
    package = _package("stoi", "pystoi")
    return lambda estimate, target: float(package.stoi(target, estimate, rate))


def _or_nothing(value: float) -> float:
    """PESQ returns -1 if it detects no utterance."""
    return float(value) if value >= 0 else float("nan")


def _package(option: str, name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ToolkitError(
            f"metric.audio_quality.{option} needs the package {name}:"
            " pip install 'discrete-toolkit-audio[speech-quality]'"
        ) from error
