"""Conditions embedded as features that a network can add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.conditioner import Conditioner, Tokens
from toolkit.errors import ToolkitError
from toolkit.nn.texts import texts_of
from toolkit.spec import Condition, PositionCondition


class ConditionEmbedding(nn.Module):
    """The sum of one embedding per condition.

    A label selects one of ``size + 1`` rows, the last of which is for "none" and starts at zero; real values go through
    a linear map, and "none" adds nothing. Where a position covers ``steps_per_code`` steps of a condition, each of
    these has its own rows or map, so that their order matters. Values at every position go through a linear map, too.

    Texts are no part of the sum: ``tokens`` gives what their conditioners make of them, for a network to attend to.
    """

    start: Tensor
    """Start of the sum: zeros, on the module's device."""

    def __init__(
        self,
        conditions: tuple[Condition, ...],
        channels: int,
        conditioner: Callable[[Condition], Conditioner] | None = None,
    ) -> None:
        """``conditioner`` makes what reads a text; ValueError where there is a text and it is None."""
        super().__init__()
        self.conditions = conditions
        self.summed = tuple(condition for condition in conditions if not condition.text)
        self.maps = nn.ModuleList(
            nn.Linear(condition.size * condition.steps_per_code, channels)
            if condition.real
            else nn.Embedding((condition.size + 1) * condition.steps_per_code, channels)
            for condition in self.summed
        )
        self.texts = texts_of(conditions, channels, conditioner)
        for condition, embed in zip(self.summed, self.maps, strict=True):
            if isinstance(embed, nn.Embedding):
                weight = embed.weight.detach().mul_(condition.steps_per_code**-0.5)
                nn.init.zeros_(weight[condition.size :: condition.size + 1])
        self.register_buffer("start", torch.zeros(channels, 1), persistent=False)

    def forward(self, conditions: Mapping[str, Tensor], batch: int, keep: Tensor | None = None) -> Tensor:
        """Features ``(batch, channels)``, or ``(batch, channels, steps / steps_per_code)`` where one has steps, or
        ``(batch, channels, *grid)`` where one is known at every position.

        A missing condition is "none"; unknown keys are ignored. ``keep`` ``(batch,)`` bool: where False, every
        condition but those at every position is "none". ToolkitError where a value has the wrong shape.
        """
        features = self.start.expand(batch, -1, -1)
        at_positions: list[Tensor] = []  # as list[Tensor]() it would break a compiled graph
        for condition, embed in zip(self.summed, self.maps, strict=True):
            value = conditions.get(condition.name)
            if value is not None:
                _check(condition, value, batch)
            if isinstance(condition, PositionCondition):
                assert isinstance(embed, nn.Linear)
                at_positions += [] if value is None else [embed(value.to(embed.weight.dtype)).movedim(-1, 1)]
                continue
            embed_value = _real if condition.real else _label
            part = embed_value(condition, embed, value, keep, batch)
            features = features + part
        features = features.squeeze(2) if features.shape[2] == 1 else features
        for part in at_positions:
            features = over_grid(features, part.shape[2:]) + part
        return features

    if TYPE_CHECKING:
        __call__ = forward

    def tokens(self, conditions: Mapping[str, Tensor], batch: int, keep: Tensor | None = None) -> Tokens | None:
        """What there is to attend to of all texts, ``(batch, tokens, channels)``; None where there are no texts.

        As in ``forward``, a missing text is empty, and so are those of examples that are not kept.
        """
        return None if self.texts is None else self.texts(conditions, batch, self.start.device, keep)

    def keep(self, batch: int, dropout: float) -> Tensor | None:
        """Which examples keep their conditions in training, ``(batch,)`` bool: all but about a share ``dropout``, since
        guidance needs a network that has seen both. None, for all of them, in eval mode."""
        return torch.rand(batch, device=self.start.device) >= dropout if self.training else None

    def always(self, conditions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those that are known without conditions, too: what guidance leads away from still has them."""
        names = [condition.name for condition in self.conditions if isinstance(condition, PositionCondition)]
        return {name: conditions[name] for name in names if name in conditions}


def _check(condition: Condition, value: Tensor, batch: int) -> None:
    """A value may always be for the whole example; per step only where its condition allows it."""
    size = (condition.size,) if condition.real else ()
    shape, steps_per_code = tuple(value.shape), condition.steps_per_code
    if isinstance(condition, PositionCondition):
        if len(shape) < 3 or (shape[0], shape[-1]) != (batch, condition.size):
            wanted = f"({batch}, *grid, {condition.size})"
            raise ToolkitError(f"condition.{condition.name} has shape {shape}: expected {wanted}")
        return
    if shape == (batch, *size):
        return
    steps = condition.per_step
    if (
        steps
        and len(shape) == 2 + len(size)
        and (shape[0], *shape[2:]) == (batch, *size)
        and not shape[1] % steps_per_code
    ):
        return
    counted = "steps" if steps_per_code == 1 else f"a multiple of {steps_per_code} steps"
    expected = ", ".join(map(str, (batch, counted, *size) if steps else (batch, *size)))
    raise ToolkitError(f"condition.{condition.name} has shape {shape}: expected ({expected})")


def _label(condition: Condition, embed: nn.Module, value: Tensor | None, keep: Tensor | None, batch: int) -> Tensor:
    """``(batch, channels, steps / steps_per_code)`` of labels ``(batch,)`` or ``(batch, steps)``."""
    assert isinstance(embed, nn.Embedding)
    none, device = condition.size, embed.weight.device
    if value is None:
        value = torch.full((batch,), none, device=device)
    value = _per_code(value.to(device).unsqueeze(-1), condition, 1).squeeze(-1)
    if keep is not None:
        value = value.where(keep[:, None, None], none)
    rows: Tensor = embed(value + (none + 1) * torch.arange(condition.steps_per_code, device=device))
    return rows.sum(2).transpose(1, 2)


def _real(condition: Condition, embed: nn.Module, value: Tensor | None, keep: Tensor | None, batch: int) -> Tensor:
    """``(batch, channels, steps / steps_per_code)`` of values ``(batch, size)`` or ``(batch, steps, size)``; else 0."""
    assert isinstance(embed, nn.Linear)
    if value is None:
        return embed.weight.new_zeros(())
    rows: Tensor = embed(_per_code(value.to(embed.weight), condition, condition.size).flatten(2))
    features = rows.transpose(1, 2)
    return features if keep is None else features * keep[:, None, None]


def _per_code(value: Tensor, condition: Condition, size: int) -> Tensor:
    """Values ``(batch, size)`` or ``(batch, steps, size)`` as ``(batch, steps / per_code, per_code, size)``."""
    if value.ndim == 2:
        return value[:, None, None].expand(-1, 1, condition.steps_per_code, size)
    grouped: Tensor = value.unflatten(1, (-1, condition.steps_per_code))
    return grouped


def add_conditions(h: Tensor, embedding: ConditionEmbedding | None, conditions: Mapping[str, Tensor]) -> Tensor:
    """Features ``(batch, channels, *grid)`` plus the embedded conditions, if there are any."""
    return h if embedding is None else h + over_grid(embedding(conditions, h.shape[0]), h.shape[2:]).to(h)


def over_grid(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Features of a ConditionEmbedding, shaped to be added to ``(batch, channels, *grid)``.

    Steps are along the grid's first axis; where the grid is coarser or finer, the steps that a position
    covers are averaged. Features at every position of the grid are as they are.
    """
    if features.ndim == 2 + len(grid) > 3:
        return features
    features = features[:, :, None] if features.ndim == 2 else _along(features, grid[0])
    return features.reshape(*features.shape, *[1] * (len(grid) - 1))


def _along(features: Tensor, positions: int) -> Tensor:
    """Features ``(batch, channels, steps)`` along an axis of ``positions``."""
    steps = features.shape[2]
    along: Tensor
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool1d(features, positions)
    if steps % positions == 0:  # pooling would fix the number of positions in a graph
        along = features.unflatten(2, (positions, steps // positions)).mean(3)
    elif positions % steps == 0:
        along = features.repeat_interleave(positions // steps, 2)
    else:
        along = F.adaptive_avg_pool1d(features, positions)
    return along
