"""What the priors' suite asks about: code specs and conditions so small that all code maps can be enumerated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.prior import Prior
from toolkit.spec import CodeSpec, Condition
from toolkit.testing.parts import random_texts

CODES = CodeSpec((2, 2), (3, 2))
PARTS = CodeSpec((5,), (2,), ((1, 1), (2, 2)))
CODE_SPECS = (
    CodeSpec((4,), (3,)),
    CodeSpec((3,), (2, 4)),
    CodeSpec((2, 3), (3,)),
    CODES,
    CodeSpec((2, 2, 2), (2,)),
    CodeSpec((2, 1, 2), (3, 2)),
    PARTS,
)
KIND = Condition("kind", 3)
CONDITIONS = (KIND, Condition("move", 2, per_step=True), Condition("force", 2, per_step=True, real=True))

LABELS = (KIND,)
TEXTS = (KIND, Condition("caption", 6, text=True))
TOLD = (
    "the prior was given a label for each example (n,), one for each step (n, steps) and a real vector for each step"
    " (n, steps, size), where a step is a position of the grid's first axis: toolkit.nn.conditioning embeds all three."
    " A prior that takes labels alone says so in its test: conditions = LABELS, of toolkit.testing.prior"
)
"""Where a prior fails with conditions."""

each_code_spec = pytest.mark.parametrize(
    "code_spec", CODE_SPECS, ids=lambda code_spec: f"{code_spec.grid}x{code_spec.depth}"
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_codes(code_spec: CodeSpec, n: int) -> Tensor:
    parts = [
        torch.randint(size, (n, *code_spec.grid), generator=seeded(d))
        for d, size in enumerate(code_spec.codebook_sizes)
    ]
    return torch.stack(parts, 1)


def some_values(n: int, kind: int | None = None) -> dict[str, Tensor]:
    """Conditions of n examples, on the grid of CODES; the same for all where the kind is given."""
    generator, steps = seeded(), CODES.grid[0]
    if kind is not None:
        one = some_values(1)
        return {name: value.expand(n, *value.shape[1:]) for name, value in one.items()} | {
            KIND.name: torch.full((n,), kind)
        }
    return {
        KIND.name: torch.arange(n) % KIND.size,
        "move": torch.randint(2, (n, steps), generator=generator),
        "force": torch.randn(n, steps, 2, generator=generator, dtype=torch.float64),
        "caption": random_texts(TEXTS[1], n, generator),
    }


def log_prob(prior: Prior, codes: Tensor, conditions: dict[str, Tensor] | None = None) -> Tensor:
    try:
        with torch.no_grad():
            return prior.log_prob(codes, conditions or {})
    except NotImplementedError:
        pytest.skip("log_prob is not tractable")
    except Exception as error:
        if conditions and len(conditions) == len(CONDITIONS):
            raise AssertionError(f"{type(prior).__name__}: {type(error).__name__}: {error}\n{TOLD}") from error
        raise
