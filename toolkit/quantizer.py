"""The interface of quantizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn


class Quantized(NamedTuple):
    """What a quantizer makes of latents."""

    z: Tensor
    """``(batch, dim, *grid)``, with a gradient to the encoder: straight-through, relaxed or reparametrised."""
    codes: Tensor
    """``(batch, depth, *grid)``, int64."""
    loss: Tensor
    """``(batch,)``: what ties latents and codebook together, weighted, differentiable."""
    kl: Tensor
    """``(batch,)`` nats from the code posterior to the uniform prior, summed over positions."""
    metrics: dict[str, Tensor]
    """Figures that only this quantizer knows, 0-d."""


class Quantizer(nn.Module, ABC):
    """Latents to codes and back.

    May ask for ``dim: int``, said once at the top of the configuration.

    Laws, checked by toolkit.testing.QuantizerSuite:
      embed(forward(z).codes) == forward(z).z      in eval mode, as values
      positions do not influence one another
      in eval mode, forward changes no state
      the gradient of the loss reaches every depth
    """

    channels: int
    """What it takes: channels of the encoder's latents."""
    dim: int
    """What it gives: channels of the decoder's latents."""
    depth: int
    """Codes per position; 0 for a continuous bottleneck."""
    codebook_sizes: tuple[int, ...]
    """One size per depth."""

    has_posterior: bool = False

    @abstractmethod
    def forward(self, z: Tensor) -> Quantized:
        """z ``(batch, channels, *grid)``."""

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """codes ``(batch, d, *grid)``, of the first d depths, to latents ``(batch, dim, *grid)``."""

    if TYPE_CHECKING:
        __call__ = forward
