"""A transformer over scales as prior."""

from __future__ import annotations

from typing import final

from toolkit.causal.scales import ScalesTransformer
from toolkit.priors.autoregressive import AutoregressivePrior
from toolkit.ranges import Fraction, PositiveInt
from toolkit.spec import CodeSpec, Condition


@final
class ScalesPrior(AutoregressivePrior):
    """All codes of a part at once, given the parts before it: next-scale prediction (VAR, Tian et al. 2024).

    For codes of several grids, such as those of ``multiscale`` and ``hierarchy``. The positions of a part are
    independent of one another given the parts before it, while the codes at one position depend on each other; on a
    grid without parts all positions are independent. The network runs once for each part. A prior sees codes only:
    where VAR feeds the quantizer's latents of the scales so far, this learns an embedding for each entry, sums them
    over the parts before, and interpolates.

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
        hidden: PositiveInt = 256,
        layers: PositiveInt = 8,
        heads: PositiveInt = 8,
        head: PositiveInt = 256,
        dropout: Fraction = 0.0,
        condition_dropout: Fraction = 0.1,
    ) -> None:
        trunk = ScalesTransformer(
            code_spec.parts or (code_spec.grid,),
            context=hidden if conditions else 0,
            hidden=hidden,
            layers=layers,
            heads=heads,
            dropout=dropout,
        )
        super().__init__(code_spec, conditions, trunk, head, condition_dropout)
