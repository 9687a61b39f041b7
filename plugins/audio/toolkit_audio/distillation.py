"""The first code's latents against what a frozen network knows of speech."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Self, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from toolkit import Autoencoder, Bound, DataSpec, Loss, Objective, ToolkitError
from toolkit.device import in_float32
from toolkit.nn.codebook import upcast
from toolkit.nn.scripted import Scripted
from toolkit.objectives.elbo import ELBO
from toolkit.ranges import NonNegative, PositiveInt
from toolkit_audio.loudness import require_torchaudio
from toolkit_audio.waveform import sample_rate_of, to_waveform

WHAT = "a teacher, which takes waveforms (batch, samples) and gives features (batch, frames, channels)"


@final
class DistillationObjective(Objective):
    """Another objective plus the distance of the first code's latents from a frozen teacher's features of x, so that
    the first of several codes tells what is said and the others how (Zhang et al. 2024, SpeechTokenizer,
    arXiv:2308.16692, section 3.2; Défossez et al. 2024, Mimi, arXiv:2410.00037, section 3.3.3)::

        L = L_inner + weight dims d(W z_1, s)

    with z_1 the embedding of the first codes, through which the gradient goes straight to the encoder, W a learned
    linear map, and s the teacher's features, averaged to the latents' frames. The teacher is a TorchScript file, such
    as one of HuBERT that ``torch.jit.trace`` wrote: nothing is fetched. It is no part of the run, which keeps its
    SHA-256 and continues with the same alone; a trained run opens without it. Bits per dim are the inner objective's
    bound.

    Args:
        inner: the objective that it is added to.
        weights: the teacher's TorchScript file, called with waveforms ``(batch, samples)`` in [-1, 1], that gives
            features ``(batch, frames, channels)``. It is a program: take it from where you trust it.
        channels: of its features.
        rate: samples per second that it hears.
        weight: nats per dim of x for a distance of 1.
        along: features: -log sigmoid of the cosine over time, for each channel, as SpeechTokenizer has it; time: 1 less
            the cosine over channels, at each frame, as Mimi has it.
    """

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        *,
        inner: Callable[[], Objective] = ELBO,
        weights: str,
        channels: PositiveInt = 768,
        rate: PositiveInt = 16000,
        weight: NonNegative = 1.0,
        along: Literal["features", "time"] = "features",
    ) -> None:
        super().__init__()
        self.data, self.inner, self.own_rate = data, inner(), sample_rate_of(data)
        self.needs_posterior = self.inner.needs_posterior
        self.beyond = (*getattr(self.inner, "beyond", ()), "a teacher's features")
        self.path, self.channels, self.rate, self.weight, self.along = weights, channels, rate, weight, along
        self.to_teacher = nn.Linear(dim, channels)
        self.teacher: Scripted | None = None
        self.weights_hash: Tensor
        self.register_buffer("weights_hash", torch.zeros(32, dtype=torch.uint8))

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        output = self.inner(autoencoder, x, conditions)
        quantized = output.quantized
        if not quantized.codes.shape[1]:
            raise ToolkitError("objective=audio_distillation teaches the first code, and this bottleneck has no codes")
        first = autoencoder.embed(quantized.codes[:, :1])
        student = self.to_teacher((quantized.z + (first - quantized.z).detach()).mT)
        distance = self.distance(student, self.features(x, student.shape[1]))
        terms = {**output.terms, "distillation": distance.detach()}
        return output._replace(loss=output.loss + self.weight * self.data.dims * distance, terms=terms)

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        """The inner objective's."""
        return self.inner.bound(autoencoder, x, conditions)

    def distance(self, student: Tensor, features: Tensor) -> Tensor:
        """Of features ``(batch, frames, channels)``, the mean, 0-d; in at least float32."""
        student, features = upcast(student), upcast(features)
        alike: Tensor = F.cosine_similarity(student, features, 2 if self.along == "time" else 1)
        distance: Tensor = (1 - alike if self.along == "time" else -F.logsigmoid(alike)).mean()
        return distance

    @torch.no_grad()
    def features(self, x: Tensor, frames: int) -> Tensor:
        """The teacher's of data, averaged to so many frames, ``(batch, frames, channels)``."""
        waveform = to_waveform(x, self.data)[:, 0]
        if self.teacher is None:
            if isinstance(waveform, FakeTensor):  # parts are being fitted: no weights are read for that
                return waveform.new_zeros(len(waveform), frames, self.channels)
            self._load()
        with in_float32(waveform.device):
            waveform = waveform.float()
            if self.own_rate != self.rate:
                functional = require_torchaudio(f"objective.rate={self.rate}, of a sound at {self.own_rate},")
                waveform = functional.resample(waveform, self.own_rate, self.rate)
            features = cast(Scripted, self.teacher)(waveform)
        if not isinstance(features, Tensor) or features.dim() != 3 or features.shape[2] != self.channels:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ToolkitError(
                f"weights={self.path}: the teacher gives {shape} where (batch, frames, {self.channels}) is expected:"
                " set objective.channels to its channels, or trace the layer that you want"
            )
        averaged: Tensor = F.adaptive_avg_pool1d(features.mT, frames).mT
        return averaged

    def train(self, mode: bool = True) -> Self:
        """Reads the teacher where it has not been; ToolkitError where it is not that of before."""
        super().train(mode)
        if mode:
            if self.teacher is None:
                self._load()
            digest = cast(Scripted, self.teacher).digest
            self.weights_hash.copy_(torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8))
        return self

    def _load(self) -> None:
        teacher = Scripted.load(self.path, WHAT)
        before = bytes(self.weights_hash.tolist()).hex()
        if before.strip("0") and before != teacher.digest:
            raise ToolkitError(
                f"objective=audio_distillation was trained against another teacher (SHA-256 {before[:12]}…) than"
                f" {self.path} ({teacher.digest[:12]}…): give the former as weights=PATH"
            )
        self.teacher = teacher
