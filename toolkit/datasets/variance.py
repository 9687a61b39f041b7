"""An estimate of the variance for a dataset's spec."""

from __future__ import annotations

from math import ceil

import torch

from toolkit.dataset import Dataset


def estimate_variance(dataset: Dataset, most: int) -> float:
    """Variance of the scaled data, from at most this many evenly spaced training examples."""
    size = dataset.size("train")
    x = [dataset.example("train", index, None)["x"] for index in range(0, size, ceil(size / most))]
    joined = torch.cat(x, 1) if len({part.shape for part in x}) > 1 else torch.stack(x)
    return float(dataset.spec.scale(joined).double().var(correction=0))
