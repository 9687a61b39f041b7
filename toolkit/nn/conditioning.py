"""What is known beside the data, as features that a network can add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.errors import ToolkitError
from toolkit.spec import Condition


class ConditionEmbedding(nn.Module):
    """The sum of one embedding per condition.

    A label picks one of ``size + 1`` rows, the last of which stands for "none" and starts at zero; real values go
    through a linear map, and "none" adds nothing.
    """

    start: Tensor
    """What the sum starts from: zeros, on the module's device."""

    def __init__(self, conditions: tuple[Condition, ...], channels: int) -> None:
        super().__init__()
        self.conditions = conditions
        self.maps = nn.ModuleList(
            nn.Linear(condition.size, channels) if condition.real else nn.Embedding(condition.size + 1, channels)
            for condition in conditions
        )
        for embed in self.maps:
            if isinstance(embed, nn.Embedding):
                nn.init.zeros_(embed.weight[-1].detach())
        self.register_buffer("start", torch.zeros(channels, 1), persistent=False)

    def forward(self, conditions: Mapping[str, Tensor], batch: int, keep: Tensor | None = None) -> Tensor:
        """Features ``(batch, channels)``, or ``(batch, channels, steps)`` where they may change by the step.

        A condition without a key is "none"; keys of no condition are passed over. ``keep`` ``(batch,)`` bool:
        where False, every condition is "none". ToolkitError where a value has not its condition's shape.
        """
        features = self.start.expand(batch, -1, -1)
        for condition, embed in zip(self.conditions, self.maps, strict=True):
            value = conditions.get(condition.name)
            if value is not None:
                _check(condition, value, batch)
            part = _real(embed, value, keep) if condition.real else _label(embed, value, keep, batch)
            features = features + part
        return features.squeeze(2) if features.shape[2] == 1 else features

    if TYPE_CHECKING:
        __call__ = forward

    def keep(self, batch: int, dropout: float) -> Tensor | None:
        """Which examples training shows with their conditions: all but a share of about ``dropout``, since guidance
        needs a network that has seen both. None, for all of them, in eval mode."""
        return torch.rand(batch, device=self.start.device) >= dropout if self.training else None


def _check(condition: Condition, value: Tensor, batch: int) -> None:
    """A value may always hold for the whole example; for each step, where its condition says so."""
    size = (condition.size,) if condition.real else ()
    shape = tuple(value.shape)
    if shape == (batch, *size):
        return
    steps = condition.per_step or condition.real
    if steps and len(shape) == 2 + len(size) and (shape[0], *shape[2:]) == (batch, *size):
        return
    expected = ", ".join(map(str, (batch, "steps", *size) if steps else (batch,)))
    raise ToolkitError(f"condition.{condition.name} has shape {shape}: it must be ({expected})")


def _label(embed: nn.Module, value: Tensor | None, keep: Tensor | None, batch: int) -> Tensor:
    """``(batch, channels, steps)`` of labels ``(batch,)`` or ``(batch, steps)``."""
    assert isinstance(embed, nn.Embedding)
    none = embed.num_embeddings - 1
    if value is None:
        value = torch.full((batch,), none, device=embed.weight.device)
    value = value.to(embed.weight.device).reshape(batch, -1)
    if keep is not None:
        value = value.where(keep[:, None], none)
    rows: Tensor = embed(value)
    return rows.transpose(1, 2)


def _real(embed: nn.Module, value: Tensor | None, keep: Tensor | None) -> Tensor:
    """``(batch, channels, steps)`` of values ``(batch, size)`` or ``(batch, steps, size)``; 0 for none."""
    assert isinstance(embed, nn.Linear)
    if value is None:
        return embed.weight.new_zeros(())
    rows: Tensor = embed(value.to(embed.weight).reshape(len(value), -1, embed.in_features))
    features = rows.transpose(1, 2)
    return features if keep is None else features * keep[:, None, None]


def over_grid(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Features of a ConditionEmbedding, shaped so that they can be added to ``(batch, channels, *grid)``.

    Steps run along the grid's first axis; where the grid is coarser or finer, the steps that a position
    covers are averaged.
    """
    features = features[:, :, None] if features.ndim == 2 else F.adaptive_avg_pool1d(features, grid[0])
    return features.reshape(*features.shape, *[1] * (len(grid) - 1))
