"""When a critic is of no use, and which option may help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from toolkit.options import AutoencoderTrainerOptions, TrainerOptions

PATIENCE = 500
"""Steps after which something that has been so for all of them is said."""
WON, LOST = 0.98, 0.55
"""Mean shares of the logits on the right side from which a critic wins, and up to which it loses: half is chance."""


@final
class CriticWatch:
    """Follows what is logged of a critic, and says once where it stands still, wins or loses for long.

    It goes by ``critic_real_accuracy``, ``critic_fake_accuracy`` and ``critic_grad_norm``: without, it says nothing.
    """

    def __init__(self, options: TrainerOptions) -> None:
        self.options = options
        self._state, self._steps, self._said = "", 0, False

    def __call__(self, steps: int, metrics: Mapping[str, float]) -> str | None:
        """A sentence where one is due; ``metrics`` are the means over the last ``steps``."""
        state = _state(metrics)
        self._steps = steps + (self._steps if state == self._state else 0)
        self._state = state
        if self._said or not state or self._steps < PATIENCE:
            return None
        self._said = True
        return f"the critic {state} for {self._steps} steps, and teaches nothing: {self._advice()}"

    def _advice(self) -> str:
        options = self.options
        own = options.critic_learning_rate if isinstance(options, AutoencoderTrainerOptions) else None
        rate = own or options.learning_rate
        if self._state.startswith("wins"):
            return f"try trainer.critic_learning_rate={rate / 4:.3g}, objective.r1=1 or objective.lecam=0.001"
        if self._state.startswith("loses"):
            return (
                f"try trainer.critic_learning_rate={rate * 4:.3g}, a smaller objective.share, or a later"
                " objective.start, so that it learns first"
            )
        return "its gradient is 0; try another objective.loss, such as non_saturating, or objective.discriminator"


def _state(metrics: Mapping[str, float]) -> str:
    """What it does; empty where nothing is to be said."""
    real, fake = metrics.get("critic_real_accuracy"), metrics.get("critic_fake_accuracy")
    if real is None or fake is None:
        return ""
    right = (real + fake) / 2
    if right >= WON:
        return f"wins (over {WON:.0%} of its logits are right)"
    if metrics.get("critic_grad_norm") == 0:
        return "does not move"
    if right <= LOST:
        return f"loses (at most {LOST:.0%} of its logits are right, and chance is half)"
    return ""
