"""How well codes predict phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from toolkit import Bound, CodeSpec, DataSpec, Metric
from toolkit.metric import Direction
from toolkit_audio.spans import is_silence
from toolkit_audio.spectra import log_mel
from toolkit_audio.waveform import sample_rate_of, to_waveform

ITERATIONS = 30
"""Of k-means."""
MOST = 50_000
"""Training frames that k-means uses, at most."""


@final
class PhonesMetric(Metric):
    """How well codes predict phones (van den Oord et al. 2017, section 4.3: 49.3 %, the majority 7.2 %).

    Each code of the first depth stands for the phone that it most often falls on in training examples;
    ``phone_accuracy`` is how often that is right in the evaluated split. Two baselines use no model:
    ``phone_majority``, always the most frequent phone, and ``phone_kmeans``, as many k-means centers as the codebook
    has entries, over 80 log-mel magnitudes around each code's middle. The phone of a code is the one in its middle;
    codes without a phone do not count. Plots the confusion matrix.

    Much of most recordings is silence, which is easy to know: where the data has a phone for it (``sil``, ``sp``,
    ``pau`` and the like), the three are reported again as ``…_without_silence``, of the other phones alone, in the
    evaluated split and in what codes and centers stand for.
    """

    directions: ClassVar[Mapping[str, Direction]] = {"phone_accuracy": "max"}

    fitted = True

    def __init__(self, data: DataSpec, code_spec: CodeSpec) -> None:
        condition = next((condition for condition in data.conditions if condition.name == "phone"), None)
        if condition is None:
            raise ValueError(
                "it needs phones over time, and this data has no condition phone:"
                " set dataset.phones=FOLDER, or choose dataset=audio_vowels"
            )
        if not code_spec.depth:
            raise ValueError("it evaluates codes, and a continuous bottleneck has no codes")
        if code_spec.parts:
            raise ValueError(f"it needs codes over time, and these lie flat, in parts of {code_spec.parts}")
        self.data, self.rate = data, sample_rate_of(data)
        self.phones, self.names = condition.size, condition.labels or tuple(map(str, range(condition.size)))
        self.entries = code_spec.codebook_sizes[0]
        self._learned, self._measured = _Frames(), _Frames()

    def fit(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self._take(self._learned, x, output, conditions)

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self._take(self._measured, x, output, conditions)

    def state(self) -> tuple[_Parts, _Parts]:
        return self._learned.parts, self._measured.parts

    def merge(self, state: tuple[_Parts, _Parts]) -> None:
        for frames, parts in zip((self._learned, self._measured), state, strict=True):
            for part in parts:
                frames.add(*part)

    def compute(self) -> dict[str, float]:
        if not self._learned.count or not self._measured.count:
            return {}
        codes, phones, mel = self._learned.joined()
        measured, truth, measured_mel = self._measured.joined()
        centers = kmeans(_ordered(mel), self.entries)
        learned, shown = (phones, codes, nearest(mel, centers)), (truth, measured, nearest(measured_mel, centers))
        shares = self._shares(learned, shown)
        silent = torch.tensor([is_silence(name) for name in self.names])
        if silent.any():
            kept = [tuple(row[~silent[rows[0]]] for row in rows) for rows in (learned, shown)]
            if all(len(rows[0]) for rows in kept):
                shares |= {f"{name}_without_silence": share for name, share in self._shares(*kept).items()}
        return shares

    def _shares(self, learned: tuple[Tensor, ...], measured: tuple[Tensor, ...]) -> dict[str, float]:
        """How often each guess is right, from phones, codes and k-means centers at positions in time."""
        phones, codes, centers = learned
        truth, shown, nearby = measured
        by_code = most_frequent(codes, phones, self.entries, self.phones)[shown]
        by_mel = most_frequent(centers, phones, self.entries, self.phones)[nearby]
        majority = torch.bincount(phones, minlength=self.phones).argmax()
        return {
            "phone_accuracy": _share(by_code == truth),
            "phone_majority": _share(truth == majority),
            "phone_kmeans": _share(by_mel == truth),
        }

    def plot(self, folder: Path) -> list[Path]:
        """The confusion matrix of phones."""
        if not self._learned.count or not self._measured.count:
            return []
        codes, phones, _ = self._learned.joined()
        measured, truth, _ = self._measured.joined()
        said = self._said(codes, phones, measured)
        counts = torch.bincount(truth * self.phones + said, minlength=self.phones**2).view(self.phones, self.phones)
        path = folder / "phones.png"
        plot_confusion(path, counts, self.names)
        return [path]

    def _said(self, codes: Tensor, phones: Tensor, measured: Tensor) -> Tensor:
        """The phones that codes stand for."""
        return most_frequent(codes, phones, self.entries, self.phones)[measured]

    def _take(self, frames: _Frames, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        codes = output.quantized.codes[:, 0].cpu()
        labels = conditions["phone"].cpu()
        middles = ((torch.arange(codes.shape[1]) + 0.5) * (labels.shape[1] / codes.shape[1])).long()
        phones = labels[:, middles.clamp(max=labels.shape[1] - 1)]
        known = phones < self.phones
        frames.add(codes[known], phones[known], self._mel(x, codes.shape[1]).cpu()[known])

    def _mel(self, x: Tensor, codes: int) -> Tensor:
        """``(batch, codes, 80)``: windows of two codes' length, at least 25 ms, around the middle of each code."""
        waveform = to_waveform(x, self.data)[:, 0].float()
        hop = waveform.shape[1] // codes
        size = 2 * max(hop, round(0.0125 * self.rate))
        shifted = waveform[:, hop // 2 :]
        return log_mel(shifted, self.rate, size, hop)[:, :, :codes].transpose(1, 2)


_Parts = list[tuple[Tensor, Tensor, Tensor]]


class _Frames:
    """Codes, phones and log-mel magnitudes at the positions that have a phone."""

    def __init__(self) -> None:
        self.parts: _Parts = []
        self.count = 0

    def add(self, codes: Tensor, phones: Tensor, mel: Tensor) -> None:
        self.parts.append((codes, phones, mel))
        self.count += len(codes)

    def joined(self) -> tuple[Tensor, Tensor, Tensor]:
        codes, phones, mel = zip(*self.parts, strict=True)
        return torch.cat(codes), torch.cat(phones), torch.cat(mel)


def most_frequent(codes: Tensor, phones: Tensor, entries: int, classes: int) -> Tensor:
    """For each code the phone that it falls on most often, ``(entries,)``; for one that never occurs, the most frequent
    of all."""
    counts = torch.bincount(codes * classes + phones, minlength=entries * classes).view(entries, classes)
    unseen = counts.sum(1) == 0
    return counts.argmax(1).where(~unseen, torch.bincount(phones, minlength=classes).argmax())


def nearest(rows: Tensor, centers: Tensor) -> Tensor:
    """The index of the nearest center of each row."""
    return torch.cat([torch.cdist(part, centers).argmin(1) for part in rows.split(8192)])


def kmeans(rows: Tensor, n: int) -> Tensor:
    """``n`` centers ``(n, dim)`` after Lloyd's iterations over rows, from k-means++ with a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    centers = rows[:1]
    far = (rows - centers).square().sum(1)
    while len(centers) < min(n, len(rows)):
        chosen = torch.multinomial(far.clamp(min=1e-12), 1, generator=generator)
        centers = torch.cat([centers, rows[chosen]])
        far = torch.minimum(far, (rows - rows[chosen]).square().sum(1))
    for _ in range(ITERATIONS):
        owners = nearest(rows, centers)
        counts = torch.bincount(owners, minlength=len(centers)).unsqueeze(1)
        sums = torch.zeros_like(centers).index_add_(0, owners, rows)
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
    return centers


def _ordered(rows: Tensor) -> Tensor:
    """Sorted, so that k-means does not depend on the order of the batches; thinned out if there are many."""
    keys = (rows.double() @ torch.linspace(1, 2, rows.shape[1], dtype=torch.float64)).argsort(stable=True)
    return rows[keys[:: -(-len(keys) // MOST)]]


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def plot_confusion(path: Path, counts: Tensor, names: Sequence[str]) -> None:
    """Counts ``(phone, predicted)`` as shares of each phone, for phones that occur, the most frequent first."""
    from matplotlib.figure import Figure

    order = counts.sum(1).argsort(descending=True)
    order = order[counts.sum(1)[order] > 0]
    shares = counts[order][:, order].double()
    shares /= counts[order].sum(1, keepdim=True)
    labels = [names[int(i)] for i in order]
    size = 1.8 + 0.19 * len(order)
    figure = Figure(figsize=(size + 0.6, size), dpi=120, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares.numpy(), cmap="magma", vmin=0, vmax=1)
    for ticks, write in ((axes.set_xticks, axes.set_xticklabels), (axes.set_yticks, axes.set_yticklabels)):
        ticks(range(len(order)))
        write(labels, fontsize=7)
    axes.set_ylabel("phone", fontsize=8)
    axes.set_xlabel("what its code stands for", fontsize=8)
    right = float(counts.diagonal().sum() / counts.sum())
    axes.set_title(f"{right:.1%} of {int(counts.sum()):,} codes are right", fontsize=9)
    figure.colorbar(shown, ax=axes, shrink=0.6).ax.tick_params(labelsize=7)
    figure.savefig(path)
