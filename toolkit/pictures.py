"""Pictures of a run in training: reconstructions, and samples of the prior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from toolkit.batches import split_batches
from toolkit.dataset import Dataset, Examples
from toolkit.model import Model
from toolkit.prior import Prior, SamplingOptions
from toolkit.runs.codes import CachedCodes
from toolkit.sample import sample
from toolkit.training import Stage
from toolkit.writing import replacing

SHOWN = 8
"""Examples in a row."""


@torch.no_grad()
def plot_reconstructions(
    path: Path, stage: Stage, examples: Examples, dataset: Dataset, device: torch.device, n: int
) -> None:
    """A row of validation examples above their reconstructions."""
    stage.eval()
    batch = next(split_batches(examples, "val", device, batch_size=n, limit=n, workers=0))
    likelihood = stage.objective.bound(stage.model, batch.x, batch.conditions).likelihood
    mean = likelihood.mean
    x = likelihood.sample() if mean is None else dataset.spec.unscale(mean)
    _plot(dataset, [batch.x.cpu(), x.cpu()], path)


def plot_samples(path: Path, model: Model, prior: Prior, codes: CachedCodes, dataset: Dataset, seed: int) -> None:
    """Two rows of samples, under the conditions of the first validation examples."""
    batch = next(split_batches(codes, "val", model.device, batch_size=2 * SHOWN, limit=2 * SHOWN, workers=0))
    generator = torch.Generator().manual_seed(seed)
    x, _ = sample(model.autoencoder, prior, len(batch.x), batch.conditions, SamplingOptions(), generator=generator)
    _plot(dataset, x.cpu().split(SHOWN), path)


def _plot(dataset: Dataset, rows: Sequence[Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        dataset.plot(rows, dataset.spec, partial)
