"""What float16 needs: a loss so large that small gradients do not vanish, and no step with infinite ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

FIRST, LEAST, PATIENCE = 2.0**16, 1.0, 2000
"""The scale at the start, the least at which a step is skipped, and the steps in a row after which it is doubled."""


class LossScale:
    """A factor of the loss, by which its gradients are divided again before anything sees them.

    Where one of them is not finite, the step is skipped: neither weights nor moments change, and the factor is halved.
    After ``PATIENCE`` steps without it is doubled. All of it is computed on the device, which is asked nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), FIRST, device=device)
        self.passed = torch.zeros((), device=device)
        """Steps since the last change."""

    def __call__(self, loss: Tensor) -> Tensor:
        return loss * self.scale

    @torch.no_grad()
    def unscale(self, gradients: list[Tensor]) -> None:
        """In place."""
        if gradients:
            torch._foreach_mul_(gradients, self.scale.reciprocal())

    @torch.no_grad()
    def judge(self, norms: dict[str, Tensor], optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, Tensor]:
        """Has the optimizers' next step skipped where a norm is not finite, and goes on to the next scale.

        Returns the norms, 0 of a skipped step, with ``loss_scale`` and ``skipped``, 0 or 1. At a scale below ``LEAST``
        they stay as they are: it is not the scale that makes them infinite, and training has to stop.
        """
        whole = torch.stack(list(norms.values())).isfinite().all()
        for optimizer in optimizers:
            optimizer.found_inf = (~whole).float()  # type: ignore[attr-defined]  # as torch.amp.GradScaler does
        scale = self.scale.clone()
        excused = ~whole & (scale >= LEAST)
        self.passed.copy_(torch.where(whole, self.passed + 1, 0))
        grown = self.passed == PATIENCE
        self.passed.masked_fill_(grown, 0)
        self.scale.mul_(torch.where(whole, torch.where(grown, 2.0, 1.0), 0.5))
        norms = {name: norm.masked_fill(excused, 0) for name, norm in norms.items()}
        return {**norms, "loss_scale": scale, "skipped": (~whole).float()}

    def state(self) -> dict[str, Tensor]:
        return {"scale": self.scale, "passed": self.passed}
