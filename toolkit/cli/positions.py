"""Where data is lost and where codes cost most: a plot of a run's evaluation, position by position."""

from __future__ import annotations

from collections import defaultdict
from math import log
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toolkit.batches import split_batches
from toolkit.dataset import Dataset
from toolkit.device import double
from toolkit.lengths.known import lengths_of
from toolkit.model import Model
from toolkit.plots.positions import Panel, plot_positions
from toolkit.priors.autoregressive import AutoregressivePrior

EXAMPLES = 256
"""Examples of the split that are looked at."""
NAME = "positions.png"


@torch.no_grad()
def plot_costs(model: Model, dataset: Dataset, split: str, folder: Path, batch_size: int = 64) -> list[Path]:
    """Squared error of the likelihood's mean, and bits of the codes under each prior that goes code by code.

    Bits are means over depths; where there are several, they are also plotted by depth. Nothing where there is neither
    a mean nor such a prior, codes belong to no position, or examples are of unequal lengths.
    """
    if model.code_spec.parts or lengths_of(dataset, split) is not None:
        return []
    priors = {name: prior for name, prior in model.priors.items() if isinstance(prior, AutoregressivePrior)}
    sums: dict[str, list[Tensor]] = defaultdict(list)
    for batch in split_batches(dataset, split, model.device, batch_size=batch_size, limit=EXAMPLES, workers=0):
        bound = model.objective.bound(model.autoencoder, batch.x, batch.conditions)
        mean = bound.likelihood.mean
        if mean is not None and model.data.ordered:
            error = double((mean - model.data.scale(batch.x)).square())
            sums["squared error of x"].append(error.mean(1))
        for name, prior in priors.items():
            bits = double(prior.nats_by_position(bound.quantized.codes, batch.conditions)) / log(2)
            sums[f"bits of a code, {name}"].append(bits.mean(1))
            if bits.shape[1] > 1:
                sums[f"bits of a code by depth, {name}"].append(bits.flatten(2).mean(2))
    panels = [Panel(title, _mean(parts)) for title, parts in sums.items()]
    if not panels:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    plot_positions(folder / NAME, panels)
    return [folder / NAME]


def _mean(parts: list[Tensor]) -> np.ndarray:
    mean: np.ndarray = torch.cat(parts).mean(0).cpu().numpy()
    return mean
