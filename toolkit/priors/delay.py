"""All depths at once, each some steps behind the one before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.causal.coding import entropy_code
from toolkit.causal.context import Context, with_texts
from toolkit.causal.delayed import DelayedNetwork
from toolkit.causal.sampling import check_prefix, sample
from toolkit.causal.transformer import Transformer
from toolkit.conditioner import Conditioner
from toolkit.conditioners.bytes import BytesConditioner
from toolkit.entropy import EntropyCoder
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.rotary import Positions
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.priors.autoregressive import check_guidance
from toolkit.ranges import Fraction, NonNegativeInt, PositiveInt
from toolkit.spec import CodeSpec, Condition


@final
class DelayPrior(Prior):
    """A causal transformer that runs once for all codes of a step, where depth d is ``d * delay`` positions behind
    (MusicGen, Copet et al. 2023, arXiv:2306.05284).

    For codes of many depths, such as residual ones of sound: a sample costs ``positions + (depth - 1) * delay`` passes
    of a trunk, and none of a network over the depths. Codes of one step are independent given the steps before, so that
    probabilities are exact. Positions are in raster order, as one axis.

    A prefix is kept, but with a delay and more than two depths its last codes come after the first sampled ones, which
    do not know them; and its codes are compressed by no entropy coder, whose order is by positions.

    Args:
        delay: positions that a depth is behind the one before it; 0: none (*parallel*: all codes of a position are
            independent given the positions before).
        hidden: channels.
        layers: number of blocks.
        heads: attention heads per block.
        head: channels before the output layer.
        dropout: share of the channels of a block's residual updates that training drops.
        condition_dropout: share of the training examples that have no conditions.
        conditioner: what reads the texts among the conditions, which every block then attends to; there is none
            without texts.
    """

    def __init__(
        self,
        code_spec: CodeSpec,
        conditions: tuple[Condition, ...],
        *,
        delay: NonNegativeInt = 1,
        hidden: PositiveInt = 256,
        layers: PositiveInt = 8,
        heads: PositiveInt = 8,
        head: PositiveInt = 256,
        positions: Positions = "learned",
        dropout: Fraction = 0.0,
        condition_dropout: Fraction = 0.1,
        conditioner: Callable[[Condition], Conditioner] = BytesConditioner,
    ) -> None:
        super().__init__()
        self.code_spec, self.condition_dropout = code_spec, condition_dropout
        trunk = Transformer(
            (prod(code_spec.grid) + delay * (code_spec.depth - 1),),
            context=hidden if conditions else 0,
            hidden=hidden,
            layers=layers,
            heads=heads,
            dropout=dropout,
            positions=positions,
            texts=any(condition.text for condition in conditions),
        )
        self.embedding = ConditionEmbedding(conditions, hidden, conditioner) if conditions else None
        self.network = DelayedNetwork(trunk, code_spec.codebook_sizes, delay=delay, head=head)

    def blocks_in_order(self) -> Sequence[nn.Module]:
        return self.network.trunk.blocks_in_order()

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.network.log_prob(codes, self._context(conditions, len(codes), codes.shape[2:]))

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        keep = None if self.embedding is None else self.embedding.keep(len(codes), self.condition_dropout)
        return -self.network.log_prob(codes, self._context(conditions, len(codes), codes.shape[2:], keep))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        conditions: Mapping[str, Tensor],
        sampling: SamplingOptions = PLAIN,
        *,
        prefix: Tensor | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        check_guidance(sampling, self.embedding)
        grid, sizes = self.code_spec.grid, self.code_spec.codebook_sizes
        positions = prod(grid)
        known = check_prefix(prefix, n, sizes, positions)
        given = self.network.delayed(F.pad(known, (0, positions - known.shape[2]), value=-1), -1)
        always = {} if self.embedding is None else self.embedding.always(conditions)
        codes = sample(
            self.network,
            n,
            (self.network.steps(positions),),
            sampling,
            context=self._context(conditions, n, grid),
            unconditional=self._context(always, n, grid),
            given=given if known.shape[2] else None,
            generator=generator,
            progress=None if progress is None else lambda done: progress(min(done, positions)),
        )
        aligned: Tensor = self.network.aligned(codes).unflatten(2, grid)
        return aligned

    @torch.no_grad()
    def entropy_code(
        self,
        coder: EntropyCoder,
        n: int,
        conditions: Mapping[str, Tensor],
        codes: Tensor | None = None,
        *,
        positions: int | None = None,
        depth: int | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        if depth not in (None, self.code_spec.depth):
            raise NotImplementedError("its network gives a code's probability from all codes of the positions before")
        if self.network.steps(0):
            raise NotImplementedError("with a delay, codes of a position come after those of the next")
        grid = (prod(self.code_spec.grid),)
        context = self._context(conditions, n, self.code_spec.grid)
        return entropy_code(self.network, coder, n, grid, codes, context=context, positions=positions, prefix=prefix)

    def _context(
        self, conditions: Mapping[str, Tensor], n: int, grid: tuple[int, ...], keep: Tensor | None = None
    ) -> Context | None:
        """``(batch, hidden, steps or 1)``: a step has the conditions of the first depth's position; and the texts."""
        if self.embedding is None:
            return None
        everywhere = over_grid(self.embedding(conditions, n, keep), grid)
        if everywhere[0, 0].numel() == 1:
            everywhere = everywhere.flatten(2)
        else:
            whole = everywhere.expand(-1, -1, *grid).flatten(2)
            everywhere = F.pad(whole, (0, self.network.steps(0)), mode="replicate")
        return with_texts(everywhere, self.embedding.tokens(conditions, n, keep))
