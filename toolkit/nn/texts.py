"""Texts among the conditions, as vectors that a network can attend to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from toolkit.conditioner import Conditioner, Tokens
from toolkit.errors import ToolkitError
from toolkit.spec import Condition


class Texts(nn.Module):
    """A conditioner for each text among some conditions, and the vectors of all of them as one sequence, brought to the
    network's channels."""

    def __init__(
        self, texts: tuple[Condition, ...], channels: int, conditioner: Callable[[Condition], Conditioner]
    ) -> None:
        super().__init__()
        self.texts = texts
        conditioners = [conditioner(text) for text in texts]
        self.conditioners = nn.ModuleList(conditioners)
        self.proj = nn.ModuleList(nn.Linear(conditioner.dim, channels) for conditioner in conditioners)

    def forward(
        self, conditions: Mapping[str, Tensor], batch: int, device: torch.device, keep: Tensor | None = None
    ) -> Tokens:
        """``(batch, tokens, channels)``.

        ``keep`` ``(batch,)`` bool: where False, all texts are empty, as one is that is missing.
        ToolkitError where a text has the wrong shape or type.
        """
        vectors, masks = [], []
        for text, conditioner, proj in zip(self.texts, self.conditioners, self.proj, strict=True):
            value = conditions.get(text.name)
            if value is None:
                value = torch.zeros(batch, text.size, dtype=torch.uint8, device=device)
            elif tuple(value.shape) != (batch, text.size) or value.dtype != torch.uint8:
                raise ToolkitError(
                    f"condition.{text.name} is {tuple(value.shape)} {value.dtype}: expected the bytes of texts,"
                    f" ({batch}, {text.size}) uint8"
                )
            value = value.to(device)
            tokens = conditioner(value if keep is None else value * keep[:, None])
            vectors.append(proj(tokens.vectors))
            masks.append(tokens.mask)
        return Tokens(torch.cat(vectors, 1), torch.cat(masks, 1))

    if TYPE_CHECKING:
        __call__ = forward


def texts_of(
    conditions: tuple[Condition, ...], channels: int, conditioner: Callable[[Condition], Conditioner] | None
) -> Texts | None:
    """Of those among the conditions that are texts; None where none is. ValueError where nothing can read them."""
    texts = tuple(condition for condition in conditions if condition.text)
    if not texts:
        return None
    if conditioner is None:
        names = ", ".join(text.name for text in texts)
        raise ValueError(
            f"it is given {names}, a text, and reads none: leave it out of its conditions, or choose a part with a"
            " conditioner, such as prior=transformer"
        )
    return Texts(texts, channels, conditioner)
