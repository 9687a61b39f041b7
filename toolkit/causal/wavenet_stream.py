"""A WaveNet that goes on where it was: samples of the next positions as soon as their context is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from toolkit.causal.network import CausalNetwork, NetworkState
from toolkit.causal.sampling import on_device, sample_from
from toolkit.causal.wavenet import WaveNet
from toolkit.device import in_float32


@final
class WaveNetStream:
    """``toolkit.decoder.DecoderStream`` of a network whose trunk is a WaveNet.

    The rings of the layers are kept from chunk to chunk, and the random numbers follow each other position by position,
    of each example from its own generator. So neither the chunks nor the other examples decide a sample.
    """

    def __init__(
        self,
        network: CausalNetwork,
        stride: int,
        context_of: Callable[[Tensor, slice, Mapping[str, Tensor]], Tensor],
        generators: Sequence[torch.Generator],
    ) -> None:
        """``context_of`` latents, the chunk in them and the conditions is that of the chunk, ``(batch, context,
        steps)``, each step for ``stride`` positions."""
        self.network, self.stride, self.context_of, self.generators = network, stride, context_of, generators
        self.state: NetworkState | None = None
        self.positions = 0
        """Of the last chunk."""

    @torch.no_grad()
    def __call__(self, z: Tensor, own: slice, conditions: Mapping[str, Tensor]) -> Tensor:
        """Samples ``(batch, channels, positions)``."""
        context = self.context_of(z, own, conditions)
        grid = (context.shape[2] * self.stride,)
        with in_float32(context.device):
            state = self._next_state(grid, context)
            noise = torch.cat([self._uniforms(generator, *grid) for generator in self.generators])
            x = sample_from(self.network, state, grid, on_device(noise, context.device))
        self.state, (self.positions,) = state, grid
        return x

    def _next_state(self, grid: tuple[int], context: Tensor) -> NetworkState:
        if self.state is None:
            return self.network.init(len(context), grid, context)
        trunk = self.network.trunk
        assert isinstance(trunk, WaveNet)
        return self.state._replace(trunk=trunk.continued(self.state.trunk, self.positions, grid, context))

    def _uniforms(self, generator: torch.Generator, positions: int) -> Tensor:
        """``(1, depth, positions)``, drawn position by position."""
        depth = len(self.network.codebook_sizes)
        return torch.rand(positions, depth, generator=generator, dtype=torch.float64).T.unsqueeze(0)
