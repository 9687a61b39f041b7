"""The weights that the networks of codecs start from.

PyTorch's defaults shrink a signal by half or more in every convolution and add biases to it that are as large as what
they have shrunk. Of the quiet waveforms of speech nothing is left after twenty of them: latents and sound are then
functions of the biases, the same for all data, and codes collapse before the first of them means anything. Here weights
have the variance 1 / fan-in and biases are 0; what residual units add is small where there are several; and the first
and the last layer pass from the loudness of speech to one and back.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import nn

from toolkit.nn.conv import started as truncated

SPEECH = 0.1
"""About the root mean square of speech, in waveforms from -1 to 1."""
DEVIATION = 0.88
"""Of the core's weights, truncated at two deviations, in deviations."""


@torch.no_grad()
def started(layer: nn.Module, gain: float = 1.0, share: int = 1) -> nn.Module:
    """Initializes a convolution: weights of deviation ``gain / sqrt(fan-in)``, and no bias.

    ``share``: an output of a transposed convolution sees only one ``share``-th of the kernel.
    """
    truncated(layer, share).get_parameter("weight").mul_(gain / DEVIATION)
    return layer


def of_units(units: int) -> float:
    """The gain of what each of so many residual units, one after the other, adds."""
    return 1 / sqrt(units)
