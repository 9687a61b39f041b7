"""A transformer that learns codes in random orders, and then in raster order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import final

import torch
from torch import Tensor

from toolkit.causal.depths import DepthLayers
from toolkit.causal.transformer import Transformer
from toolkit.conditioner import Conditioner
from toolkit.conditioners.bytes import BytesConditioner
from toolkit.priors.autoregressive import AutoregressivePrior
from toolkit.ranges import Fraction, NonNegativeInt, PositiveInt
from toolkit.spec import CodeSpec, Condition


@final
class RandomOrderPrior(AutoregressivePrior):
    """A causal transformer whose training permutes positions (RAR, Yu et al. 2024, arXiv:2411.00776).

    At first all examples of a batch are in random orders, each its own, so that a code is predicted from positions all
    around it; the share of such examples falls linearly from step ``anneal_start`` to 0 at ``anneal_end``, and the rest
    is in raster order. An input says where it comes from, and where the code is that it predicts, by an embedding each.
    In eval mode this is the raster order: probabilities are exact, and samples are drawn with a cache.

    Args:
        hidden: channels.
        layers: number of blocks.
        heads: attention heads per block.
        head: channels before the output layer.
        anneal_start: training step up to which all orders are random.
        anneal_end: training step from which on all orders are raster.
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
        hidden: PositiveInt = 256,
        layers: PositiveInt = 8,
        heads: PositiveInt = 8,
        head: PositiveInt = 256,
        depth_layers: DepthLayers = 0,
        anneal_start: NonNegativeInt = 50_000,
        anneal_end: PositiveInt = 75_000,
        dropout: Fraction = 0.0,
        condition_dropout: Fraction = 0.1,
        conditioner: Callable[[Condition], Conditioner] = BytesConditioner,
    ) -> None:
        if anneal_end <= anneal_start:
            raise ValueError(f"anneal_start={anneal_start} anneal_end={anneal_end}: the end comes after the start")
        trunk = Transformer(
            code_spec.grid,
            context=hidden if conditions else 0,
            hidden=hidden,
            layers=layers,
            heads=heads,
            dropout=dropout,
            any_order=True,
            texts=any(condition.text for condition in conditions),
        )
        super().__init__(code_spec, conditions, trunk, head, condition_dropout, depth_layers, conditioner)
        self.anneal_start, self.anneal_end = anneal_start, anneal_end
        self.share: Tensor
        """Of the examples that training permutes."""
        self.register_buffer("share", torch.tensor(1.0), persistent=False)

    def at_step(self, step: int) -> None:
        """Sets the share of permuted examples to that of an optimizer step."""
        left = (self.anneal_end - step) / (self.anneal_end - self.anneal_start)
        self.share.fill_(min(1.0, max(0.0, left)))

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        if not self.training:
            return super().loss(codes, conditions)
        keep = None if self.embedding is None else self.embedding.keep(len(codes), self.condition_dropout)
        context, order = self.context(conditions, len(codes), codes.shape[2:], keep), self._orders(codes)
        trunk = self.network.trunk
        assert isinstance(trunk, Transformer)
        features = trunk.in_order(self.network.embed(codes), context, order)
        permuted = codes.flatten(2).gather(2, order.unsqueeze(1).expand(-1, codes.shape[1], -1))
        return self.network.cross_entropy_of(features, permuted)

    def _orders(self, codes: Tensor) -> Tensor:
        """``(batch, positions)``: which position comes when."""
        count, device = prod(codes.shape[2:]), codes.device
        ranks = torch.rand(len(codes), count, device=device)
        raster = torch.rand(len(codes), 1, device=device) >= self.share
        return torch.where(raster, torch.arange(count, device=device), ranks.argsort(1))
