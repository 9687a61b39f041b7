"""An estimate of the variance for a dataset's spec."""

from __future__ import annotations

from math import ceil

import torch

from toolkit.dataset import Dataset


def estimate_variance(dataset: Dataset, most: int) -> float:
    """Variance of the scaled data, from at most this many evenly spaced training examples."""
    size = dataset.size("train")
    x = [dataset.example("train", index, None)["x"] for index in range(0, size, ceil(size / most))]
    return float(dataset.spec.scale(torch.stack(x)).double().var(correction=0))
