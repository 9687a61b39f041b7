"""A causal transformer as prior."""

from __future__ import annotations

from typing import final

from toolkit.causal.transformer import Transformer
from toolkit.priors.autoregressive import AutoregressivePrior
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
    """

    def __init__(
        self,
        code_spec: CodeSpec,
        conditions: tuple[Condition, ...],
        *,
        hidden: int = 256,
        layers: int = 8,
        heads: int = 8,
        head: int = 256,
        dropout: float = 0.0,
        condition_dropout: float = 0.1,
    ) -> None:
        trunk = Transformer(
            code_spec.grid,
            context=hidden if conditions else 0,
            hidden=hidden,
            layers=layers,
            heads=heads,
            dropout=dropout,
        )
        super().__init__(code_spec, conditions, trunk, head, condition_dropout)
