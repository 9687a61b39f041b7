"""A WaveNet over the data as the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from toolkit.causal.distribution import AutoregressiveDistribution
from toolkit.causal.network import CausalNetwork
from toolkit.causal.wavenet import WaveNet
from toolkit.causal.wavenet_stream import WaveNetStream
from toolkit.decoder import Decoder
from toolkit.likelihoods.categorical import require_levels
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.context import decoder_context
from toolkit.nn.conv import conv
from toolkit.nn.residual import residual_stack
from toolkit.ranges import Fraction, NonNegative, NonNegativeInt, PositiveInt
from toolkit.spec import Condition, DataSpec


@final
class WaveNetDecoder(Decoder):
    """A WaveNet over x, conditioned on the latents at their own rate (van den Oord et al. 2017, section 4.3).

    Works on one axis of data with levels, and needs no likelihood. Each latent conditions all positions that it covers,
    after residual layers over the latents; conditions are added to the latents. Any length that is a whole number of
    latents can be decoded. Sampling is position by position, and a stream keeps the network's state.

    Args:
        hidden: channels of the layers.
        blocks: number of blocks; dilations restart at 1 in each.
        layers: layers per block, each with twice the dilation of the one before.
        skip: channels of the sum of skip connections.
        head: channels before the output layer.
        context: channels of the latents that condition the layers.
        context_blocks: residual blocks over the latents.
        dropout: share of the layers' channels that training drops.
        condition_dropout: share of the training examples that have no conditions.
        history_dropout: share of the latents over which training replaces the network's input x by the middle level, so
            that samples depend less on earlier samples and more on the latents (Bowman et al. 2016, arXiv:1511.06349,
            for words).
        history_noise: standard deviation, in levels, of noise that training adds to the network's input x, so that it
            takes faint detail from the latents and tolerates its own errors (the injected noise of Jin et al. 2018,
            FFTNet).
    """

    rank = 1
    takes_padding = True

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        *,
        hidden: PositiveInt = 64,
        blocks: PositiveInt = 2,
        layers: PositiveInt = 10,
        skip: PositiveInt = 256,
        head: PositiveInt = 256,
        context: PositiveInt = 128,
        context_blocks: NonNegativeInt = 2,
        dropout: Fraction = 0.0,
        condition_dropout: Fraction = 0.1,
        history_dropout: Fraction = 0.0,
        history_noise: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        sizes = (require_levels(data, "choose another decoder, and likelihood=normal"),) * data.channels
        if data.axes[0] % grid[0]:
            raise ValueError(
                f"{data.axes[0]} positions are not a multiple of {grid[0]} latents;"
                " change the data's length or the encoder's strides"
            )
        if (history_dropout or history_noise) and not data.ordered:
            raise ValueError(
                f"history_dropout={history_dropout} history_noise={history_noise}: 0 where the levels have no order,"
                " and so no middle and no neighbors"
            )
        self.data, self.stride, self.condition_dropout = data, data.axes[0] // grid[0], condition_dropout
        self.history_dropout, self.history_noise = history_dropout, history_noise
        self.proj_in = conv(1, dim, context, 3)
        self.embedding = ConditionEmbedding(conditions, context) if conditions else None
        self.residual = residual_stack(1, context, context, context_blocks)
        self.stream_context = decoder_context(1, [self.proj_in, self.residual])
        trunk = WaveNet(context=context, hidden=hidden, blocks=blocks, layers=layers, skip=skip, dropout=dropout)
        self.network = CausalNetwork(trunk, sizes, head=head, ordered=data.ordered)

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> AutoregressiveDistribution:
        """z ``(batch, dim, steps)``."""
        cond = self.proj_in(z)
        keep = None if self.embedding is None else self.embedding.keep(len(z), self.condition_dropout)
        context, shape = self._context(cond, conditions, keep), (self.data.channels, z.shape[2] * self.stride)
        return AutoregressiveDistribution(
            self.network, shape, context, lambda: self._context(cond, {}, None), self._seen if self.training else None
        )

    def stream(self, generators: Sequence[torch.Generator]) -> WaveNetStream:
        """As ``Decoder.stream``; the i-th example is what ``sample`` draws of it alone, with its generator."""
        return WaveNetStream(self.network, self.stride, self._of_chunk, generators)

    def _of_chunk(self, z: Tensor, own: slice, conditions: Mapping[str, Tensor]) -> Tensor:
        return self._context(self.proj_in(z), conditions, None)[:, :, own]

    def _seen(self, x: Tensor) -> Tensor:
        """x ``(batch, channels, positions)`` with dropout and noise, as the network sees it in training."""
        (levels, *_) = self.network.codebook_sizes
        if self.history_noise:
            noise = self.history_noise * torch.randn(x.shape, device=x.device)
            x = (x + noise.round().long()).clamp(0, levels - 1)
        if self.history_dropout:
            hidden = torch.rand(len(x), 1, x.shape[2] // self.stride, device=x.device) < self.history_dropout
            x = x.masked_fill(hidden.repeat_interleave(self.stride, 2), levels // 2)
        return x

    def _context(self, cond: Tensor, conditions: Mapping[str, Tensor], keep: Tensor | None) -> Tensor:
        """``(batch, context, steps)``."""
        if self.embedding is not None:
            cond = cond + over_grid(self.embedding(conditions, len(cond), keep), cond.shape[2:])
        context: Tensor = self.residual(cond)
        return context
