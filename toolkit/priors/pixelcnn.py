"""A gated PixelCNN as prior."""

from __future__ import annotations

from typing import final

from toolkit.causal.depths import DepthLayers
from toolkit.causal.pixelcnn import PixelCNN
from toolkit.priors.autoregressive import AutoregressivePrior
from toolkit.ranges import Fraction, PositiveInt
from toolkit.spec import CodeSpec, Condition


@final
class PixelCNNPrior(AutoregressivePrior):
    """A gated PixelCNN over codes ``(batch, depth, *grid)`` of one to three axes.

    The prior of van den Oord et al. 2017 (arXiv:1711.00937, section 4), with a stack per axis; see
    ``toolkit.causal.pixelcnn``.

    Args:
        hidden: channels of the stacks.
        layers: layers per stack.
        kernel_size: each layer sees ``kernel_size // 2`` positions further.
        head: channels before the output layer.
        dropout: share of the layers' channels that training drops.
        condition_dropout: share of the training examples that have no conditions.
    """

    takes_padding = True

    def __init__(
        self,
        code_spec: CodeSpec,
        conditions: tuple[Condition, ...],
        *,
        hidden: PositiveInt = 128,
        layers: PositiveInt = 10,
        kernel_size: PositiveInt = 5,
        head: PositiveInt = 256,
        depth_layers: DepthLayers = 0,
        dropout: Fraction = 0.0,
        condition_dropout: Fraction = 0.1,
    ) -> None:
        trunk = PixelCNN(
            len(code_spec.grid),
            context=hidden if conditions else 0,
            hidden=hidden,
            layers=layers,
            kernel_size=kernel_size,
            dropout=dropout,
        )
        super().__init__(code_spec, conditions, trunk, head, condition_dropout, depth_layers)
