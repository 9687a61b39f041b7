"""What the loop that samples asks of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from toolkit.causal.context import Context

if TYPE_CHECKING:
    from toolkit.causal.network import Trunk


class CodeNetwork(nn.Module, ABC):
    """A network that is sampled from step by step: it gives a feature of a step, and logits of each depth there."""

    codebook_sizes: tuple[int, ...]
    trunk: Trunk
    proj: nn.Linear

    @abstractmethod
    def init(self, batch: int, grid: Sequence[int], context: Context | None = None) -> Any:
        """The state before the first step, which has the embeddings as ``tables`` and ``inner``."""

    @abstractmethod
    def prefill(self, state: Any, grid: Sequence[int], codes: Tensor) -> None:
        """Appends the codes ``(batch, depth, steps)`` of the first steps to a new state."""

    @abstractmethod
    def step(self, state: Any, graph_id: int, position: Tensor) -> Tensor:
        """The feature ``(batch, head)`` of a step ``(1,)``, after all codes of those before it are appended."""

    @abstractmethod
    def step_part(self, state: Any, graph_id: int, positions: Tensor) -> Tensor:
        """``step`` at steps that are together: ``(batch, steps, head)``."""

    @abstractmethod
    def logits(self, state: Any, feature: Tensor, depth: int) -> Tensor:
        """``(batch, codebook_sizes[depth])``, after the step's codes of all earlier depths are appended."""

    @abstractmethod
    def append(self, state: Any, feature: Tensor, position: Tensor, depth: int, codes: Tensor) -> Tensor:
        """Appends the codes ``(batch,)`` of a step and depth; returns the feature for the next depth."""
