"""A WaveNet as prior."""

from __future__ import annotations

from typing import final

from toolkit.causal.depths import DepthLayers
from toolkit.causal.wavenet import WaveNet
from toolkit.priors.autoregressive import AutoregressivePrior
from toolkit.ranges import Fraction, PositiveInt
from toolkit.spec import CodeSpec, Condition


@final
class WaveNetPrior(AutoregressivePrior):
    """A WaveNet over codes ``(batch, depth, steps)``: the paper's prior for speech (section 4.3).

    Args:
        hidden: channels of the layers.
        blocks: number of blocks; dilations restart at 1 in each.
        layers: layers per block, each with twice the dilation of the one before.
        skip: channels of the sum of skip connections.
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
        blocks: PositiveInt = 2,
        layers: PositiveInt = 6,
        skip: PositiveInt = 256,
        head: PositiveInt = 256,
        depth_layers: DepthLayers = 0,
        dropout: Fraction = 0.0,
        condition_dropout: Fraction = 0.1,
    ) -> None:
        if len(code_spec.grid) != 1:
            raise ValueError(
                f"a grid of 1 axis is needed, this one has {len(code_spec.grid)}: choose pixelcnn or transformer"
            )
        trunk = WaveNet(
            context=hidden if conditions else 0, hidden=hidden, blocks=blocks, layers=layers, skip=skip, dropout=dropout
        )
        super().__init__(code_spec, conditions, trunk, head, condition_dropout, depth_layers)
