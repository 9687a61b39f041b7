"""Muon (Jordan et al. 2024) as PyTorch has it, in float32 where the weights are on a CPU."""

from __future__ import annotations

from math import sqrt
from typing import Any, final

import torch
from torch import Tensor

FASTEST = 3.4445, -4.7750, 2.0315
"""Coefficients of the fifth-degree polynomial whose slope at 0 is the steepest, as published."""
ITERATIONS = 5
SMALLEST = 1e-7
"""A matrix is divided by no smaller norm."""


@final
class Muon(torch.optim.Muon):
    """Steps by the nearest orthogonal matrix to each weight's momentum, of the size that AdamW's steps have.

    PyTorch finds that matrix in bfloat16, which on CPUs without such units takes eight to twenty times as long as in
    float32; there it is found in the weights' own precision. Elsewhere the step is PyTorch's.
    """

    def __init__(self, rows: Any) -> None:
        super().__init__(rows, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if closure is not None or any(p.device.type != "cpu" for rows in self.param_groups for p in rows["params"]):
            return super().step(closure)
        for rows in self.param_groups:
            for parameter in rows["params"]:
                if parameter.grad is not None:
                    self._step_of(parameter, parameter.grad, rows)
        return None

    def _step_of(self, weight: Tensor, gradient: Tensor, rows: dict[str, Any]) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - rows["momentum"])
        direction = orthogonal(gradient.lerp(momentum, rows["momentum"]))
        rate = float(rows["lr"])
        weight.mul_(1 - rate * rows["weight_decay"])
        weight.add_(direction, alpha=-0.2 * rate * sqrt(max(weight.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest orthogonal matrix ``(rows, columns)``: its singular values are 0.7 to 1.1 or so, by Newton and
    Schulz's iteration."""
    a, b, c = FASTEST
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=SMALLEST)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
