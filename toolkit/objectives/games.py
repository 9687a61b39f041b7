"""What a critic and the network that it judges minimize."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.discriminator import Judgement
from toolkit.nn.codebook import upcast


class Game(NamedTuple):
    """Losses of a logit."""

    real: Callable[[Tensor], Tensor]
    """The critic's of data."""
    fake: Callable[[Tensor], Tensor]
    """The critic's of reconstructions."""
    generator: Callable[[Tensor], Tensor]
    """The other's of its reconstructions."""


GAMES: Mapping[str, Game] = {
    "hinge": Game(lambda t: (1 - t).relu(), lambda t: (1 + t).relu(), lambda t: -t),
    "least_squares": Game(lambda t: (1 - t).square(), lambda t: (1 + t).square(), lambda t: (1 - t).square()),
    "non_saturating": Game(lambda t: F.softplus(-t), F.softplus, lambda t: F.softplus(-t)),
}
"""Lim & Ye 2017, arXiv:1705.02894; Mao et al. 2017, arXiv:1611.04076, with the logits' targets 1 and -1; Goodfellow et
al. 2014, arXiv:1406.2661."""


def mean(judgements: Sequence[Judgement], of: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over networks of the means of a function of the logits, 0-d and at least float32."""
    means = [of(upcast(judgement.logits)).mean() for judgement in judgements]
    return means[0] if len(means) == 1 else torch.stack(means).mean()


def feature_distance(fake: Sequence[Judgement], real: Sequence[Judgement]) -> Tensor:
    """The mean over networks, layers and examples of the absolute difference of features, in units of the real ones'
    own size, 0-d (Défossez et al. 2022, eq. 5; there the size is a batch's, and each rank would have its own unit)."""
    distances = [
        (_size(upcast(own) - upcast(of_data)) / _size(upcast(of_data)).clamp(min=1e-6)).mean()
        for one, other in zip(fake, real, strict=True)
        for own, of_data in zip(one.features, other.features, strict=True)
    ]
    return torch.stack(distances).mean()


def feature_sum(fake: Sequence[Judgement], real: Sequence[Judgement]) -> Tensor:
    """The sum over networks and layers of the mean absolute difference of features, 0-d (Kong et al. 2020,
    arXiv:2010.05646, eq. 3; DAC's, Kumar et al. 2023)."""
    distances = [
        (upcast(own) - upcast(of_data)).abs().mean()
        for one, other in zip(fake, real, strict=True)
        for own, of_data in zip(one.features, other.features, strict=True)
    ]
    return torch.stack(distances).sum()


def _size(features: Tensor) -> Tensor:
    """The mean absolute value of each example's, ``(batch,)``."""
    return features.abs().flatten(1).mean(1)
