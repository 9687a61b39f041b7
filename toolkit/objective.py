"""The interface of objectives: what stage one minimises, and the bound it is judged by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.likelihood import Distribution
from toolkit.quantizer import Quantized


class Loss(NamedTuple):
    """One batch through an objective."""

    loss: Tensor
    """0-d, differentiable."""
    terms: dict[str, Tensor]
    """The loss's parts, 0-d, by name."""
    likelihood: Distribution
    quantized: Quantized


class Bound(NamedTuple):
    """Bits that a batch costs, in nats, before any prior is learned."""

    data_nats: Tensor
    """``(batch,)``: -log p(x given z)."""
    code_nats: Tensor
    """``(batch,)``: what the codes cost at a uniform prior."""
    likelihood: Distribution
    quantized: Quantized
    single_sample_nats: Tensor | None = None
    """``(batch,)``: -log p(x given z) of the codes in ``quantized``, where the bound is of more draws than this one."""


class Objective(nn.Module, ABC):
    """May ask for ``data: DataSpec``; may have parameters of its own, which are trained along."""

    needs_posterior: bool = False
    """Whether the quantizer must have a posterior."""

    @abstractmethod
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        """x ``(batch, channels, *axes)``."""

    @abstractmethod
    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        """The bound on -log p(x) that evaluation reports."""

    if TYPE_CHECKING:
        __call__ = forward
