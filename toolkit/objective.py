"""The interface of objectives: what stage one minimizes, and the bound it is judged by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.likelihood import Distribution
from toolkit.quantizer import Quantized


class Loss(NamedTuple):
    """An objective's result for one batch."""

    loss: Tensor
    """0-d, differentiable."""
    terms: dict[str, Tensor]
    """The terms of the loss, 0-d, by name."""
    likelihood: Distribution
    quantized: Quantized


class CriticLoss(NamedTuple):
    """What the critic minimizes for one batch."""

    loss: Tensor
    """0-d, differentiable."""
    metrics: dict[str, Tensor]
    """What is reported of the critic beside it, 0-d, by name."""


class Bound(NamedTuple):
    """What each example of a batch costs, in nats, before any prior is learned."""

    data_nats: Tensor
    """``(batch,)``: -log p(x given z)."""
    code_nats: Tensor
    """``(batch,)``: what the codes cost at a uniform prior."""
    likelihood: Distribution
    quantized: Quantized
    single_sample_nats: Tensor | None = None
    """``(batch,)``: -log p(x given z) for the codes in ``quantized``, where the bound averages over more samples."""


class Objective(nn.Module, ABC):
    """The constructor may ask for ``data: DataSpec``, ``dim: int`` (channels of the quantizer's latents) and
    ``conditions: tuple[Condition, ...]``. Its own parameters are trained along with the autoencoder's.

    An adversary is its ``critic``: a module whose parameters learn from ``critic_loss`` alone, with learning rate and
    first step of their own (``trainer.critic_…``), while ``forward`` uses it as it is.

    Laws, checked by toolkit.testing.ObjectiveSuite:
      the loss is a mean over the batch, and trains every parameter but the critic's
      the critic's loss has a gradient for every parameter of the critic, and for nothing else
    """

    needs_posterior: bool = False
    """Whether the quantizer must have a posterior."""
    beyond: tuple[str, ...] = ()
    """What it trains for beside its bound, as words for messages, such as "an adversary"."""
    takes_padding: bool = False
    """Whether it sees of data and latents only what the autoencoder and its likelihood count, so that examples of
    unequal lengths may be padded to one batch."""
    start: int | None = None
    """The first step whose loss uses the critic, of an objective that can wait for it; None: it uses it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.critic: nn.Module | None = None

    @abstractmethod
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        """x ``(batch, channels, *axes)``."""

    @abstractmethod
    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        """The bound on -log p(x) that evaluation reports."""

    def critic_loss(
        self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor], output: Loss
    ) -> CriticLoss:
        """What the critic minimizes; ``output`` is what ``forward`` has just given, to be detached here."""
        raise NotImplementedError(f"{type(self).__name__} has a critic but no critic_loss")

    if TYPE_CHECKING:
        __call__ = forward
