"""Deep plain stacks that start awake."""

from __future__ import annotations

from math import sqrt

import torch
from torch import nn

GAIN = sqrt(2) / 0.88
"""A ReLU halves the power (He et al. 2015); the core's weights, cut at two deviations, have 0.88 of their deviation."""


@torch.no_grad()
def rectified(layer: nn.Module) -> list[nn.Module]:
    """A layer of the core's, with weights as a ReLU behind it needs them, and the ReLU.

    In a residual network that gain is not missed; through seven strided layers in a row, nine tenths of the signal is.
    """
    layer.get_parameter("weight").mul_(GAIN)
    return [layer, nn.ReLU()]
