"""Pictures of a run in training: reconstructions, and samples of the prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.batches import Batch
from toolkit.dataset import Dataset, Examples, collate
from toolkit.lengths.mask import shortest
from toolkit.model import Model
from toolkit.plots.captions import Captions, plot_captioned
from toolkit.prior import Prior, SamplingOptions
from toolkit.runs.codes import CachedCodes
from toolkit.sample import sample
from toolkit.spec import Condition, DataSpec
from toolkit.training import Stage
from toolkit.writing import replacing

SHOWN = 8
"""Examples in a row."""


class Shown(NamedTuple):
    """What a picture shows."""

    examples: dict[str, Tensor]
    """``(n, channels, *axes)`` in the data's own form, by what it is."""
    data: DataSpec


@torch.no_grad()
def plot_reconstructions(
    path: Path, stage: Stage, examples: Examples, dataset: Dataset, device: torch.device, n: int, title: str
) -> Shown:
    """A row of validation examples above their reconstructions; returns both."""
    stage.eval()
    batch = _shown(examples, n, device)
    likelihood = stage.objective.bound(stage.model, batch.x, batch.conditions).likelihood
    mean = likelihood.mean
    x = likelihood.sample() if mean is None else dataset.spec.unscale(mean)
    texts = labels_of(dataset.spec.conditions, batch.conditions, n)
    shown = {"original": batch.x.cpu(), "reconstruction": x.cpu()}
    _plot(dataset, list(shown.values()), path, Captions(title, tuple(shown), (texts, [])))
    return Shown(shown, dataset.spec)


def plot_samples(
    path: Path, model: Model, prior: Prior, codes: CachedCodes, dataset: Dataset, seed: int, title: str
) -> Shown:
    """Two rows of samples, under the conditions of validation examples; returns them."""
    batch = _shown(codes, 2 * SHOWN, model.device)
    generator = torch.Generator().manual_seed(seed)
    length = None if codes.lengths("val") is None else model.autoencoder.positions(batch.x.shape[2])
    options = SamplingOptions()
    x, _ = sample(model.autoencoder, prior, len(batch.x), batch.conditions, options, generator=generator, length=length)
    texts = labels_of(dataset.spec.conditions, batch.conditions, len(x))
    captions = Captions(title, (), [texts[i : i + SHOWN] for i in range(0, len(texts), SHOWN)])
    _plot(dataset, x.cpu().split(SHOWN), path, captions)
    return Shown({"sample": x.cpu()}, dataset.spec)


def _plot(dataset: Dataset, rows: Sequence[Tensor], path: Path, captions: Captions) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        plot_captioned(dataset.plot, rows, dataset.spec, partial, captions)


def spread(size: int, n: int) -> list[int]:
    """``n`` of the numbers below ``size`` (or all), in order: one at random, by a fixed seed, from each of n stretches.

    So the examples of a split in the order of its folders are of all of them.
    """
    n = min(n, size)
    edges = [size * i // max(1, n) for i in range(n + 1)]
    generator = torch.Generator().manual_seed(0)
    return [int(torch.randint(a, b, (), generator=generator)) for a, b in pairwise(edges)]


def labels_of(conditions: Sequence[Condition], values: Mapping[str, Tensor], n: int) -> list[str]:
    """What each of n examples is labeled, such as ``star, red``; real-valued conditions are left out."""
    shown = [(known, values[known.name].cpu()) for known in conditions if known.name in values and not known.real]
    return [", ".join(_text(known, labels[i]) for known, labels in shown) for i in range(n)]


def _text(condition: Condition, value: Tensor) -> str:
    """A text, or a label; of one per step the first ones, without repetitions."""
    if condition.text:
        return condition.decoded(value)
    names = [_name(condition, index) for index, _ in groupby(value.flatten().tolist())]
    return " ".join(names[:2]) + ("…" if len(names) > 2 else "")


def _name(condition: Condition, index: int) -> str:
    if index >= condition.size:
        return "none"
    return condition.labels[index] if condition.labels else f"{condition.name} {index}"


def _shown(examples: Examples, n: int, device: torch.device) -> Batch:
    """Validation examples to look at, the same each time; those of unequal lengths are cut to the shortest."""
    batch = collate(examples, "val", spread(examples.size("val"), n), None)
    return Batch(shortest(batch), device)
