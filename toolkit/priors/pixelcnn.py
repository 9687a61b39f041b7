"""A gated PixelCNN as prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.pixelcnn import PixelCNN
from toolkit.prior import Prior
from toolkit.priors.sampling import sample
from toolkit.spec import Condition, LatentSpec


@final
class PixelCNNPrior(Prior):
    """A gated PixelCNN over codes ``(batch, depth, *grid)`` of one to three axes.

    The prior of van den Oord et al. 2017 (arXiv:1711.00937, section 4), with a stack per axis; see
    ``toolkit.nn.pixelcnn``. Each layer sees ``kernel_size // 2`` positions further. In training, a share
    ``condition_dropout`` of the examples is seen without conditions, which guidance needs (Ho and Salimans
    2022, arXiv:2207.12598).
    """

    def __init__(
        self,
        latent: LatentSpec,
        conditions: tuple[Condition, ...],
        *,
        hidden: int = 128,
        layers: int = 10,
        kernel_size: int = 5,
        head: int = 256,
        dropout: float = 0.0,
        condition_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.condition_dropout = condition_dropout
        self.embedding = ConditionEmbedding(conditions, hidden) if conditions else None
        self.network = PixelCNN(
            len(latent.grid),
            latent.codebook_sizes,
            context=hidden if conditions else 0,
            hidden=hidden,
            layers=layers,
            kernel_size=kernel_size,
            head=head,
            dropout=dropout,
        )

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return -self._nats(codes, self._context(conditions, len(codes), codes.shape[2:]))

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        keep = None
        if self.training and self.embedding is not None:
            keep = torch.rand(len(codes), device=codes.device) >= self.condition_dropout
        return self._nats(codes, self._context(conditions, len(codes), codes.shape[2:], keep))

    def sample(
        self,
        n: int,
        conditions: Mapping[str, Tensor],
        *,
        prefix: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        if guidance != 1.0 and self.embedding is None:
            raise ToolkitError(f"guidance={guidance}: this prior has no conditions to be guided by; leave it at 1.0")
        with torch.no_grad():
            context = self._context(conditions, n, self.latent.grid)
            unconditional = self._context({}, n, self.latent.grid)
        return sample(
            self.network,
            n,
            self.latent.grid,
            context=context,
            unconditional=unconditional,
            prefix=prefix,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance=guidance,
            generator=generator,
            progress=progress,
            device=self.network.widen.weight.device,
        )

    def _context(
        self, conditions: Mapping[str, Tensor], n: int, grid: Sequence[int], keep: Tensor | None = None
    ) -> Tensor | None:
        if self.embedding is None:
            return None
        return over_grid(self.embedding(conditions, n, keep), grid)

    def _nats(self, codes: Tensor, context: Tensor | None) -> Tensor:
        logits = self.network(codes, context)
        return torch.stack([_nats(part, codes[:, depth]) for depth, part in enumerate(logits)]).sum(0)


def _nats(logits: Tensor, codes: Tensor) -> Tensor:
    """``(batch,)`` from logits ``(batch, *grid, size)``, float32 or wider whatever the logits are."""
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)
    return F.cross_entropy(precise, codes.flatten(), reduction="none").reshape(len(codes), -1).sum(1)
