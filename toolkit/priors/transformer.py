"""A causal transformer as prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from toolkit.causal.depths import DepthLayers
from toolkit.causal.transformer import Transformer
from toolkit.conditioner import Conditioner
from toolkit.conditioners.bytes import BytesConditioner
from toolkit.nn.rotary import Positions
from toolkit.priors.autoregressive import AutoregressivePrior
from toolkit.ranges import Fraction, PositiveInt
from toolkit.spec import CodeSpec, Condition


@final
class TransformerPrior(AutoregressivePrior):
    """A causal transformer over codes ``(batch, depth, *grid)`` of any rank (as in VideoGPT, Yan et al. 2021).

    It attends to all earlier positions, at a cost that grows with their number; depth affects only its head.

    Args:
        hidden: channels.
        layers: number of blocks.
        heads: attention heads per block.
        head: channels before the output layer.
        dropout: share of the channels of a block's residual updates that training drops.
        condition_dropout: share of the training examples that have no conditions.
        conditioner: what reads the texts among the conditions, which every block then attends to; there is none
            without texts.
    """

    takes_padding = True

    def __init__(
        self,
        code_spec: CodeSpec,
        conditions: tuple[Condition, ...],
        *,
        hidden: PositiveInt = 256,
        layers: PositiveInt = 8,
        heads: PositiveInt = 8,
        head: PositiveInt = 256,
        depth_layers: DepthLayers = 0,
        positions: Positions = "learned",
        dropout: Fraction = 0.0,
        condition_dropout: Fraction = 0.1,
        conditioner: Callable[[Condition], Conditioner] = BytesConditioner,
    ) -> None:
        trunk = Transformer(
            code_spec.grid,
            context=hidden if conditions else 0,
            hidden=hidden,
            layers=layers,
            heads=heads,
            dropout=dropout,
            positions=positions,
            texts=any(condition.text for condition in conditions),
        )
        super().__init__(code_spec, conditions, trunk, head, condition_dropout, depth_layers, conditioner)
