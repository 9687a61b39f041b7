"""The training loop, and what it records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Self, final

from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.batches import TrainBatches
from toolkit.coded_batches import CodedBatches
from toolkit.lengths.mask import without_padding
from toolkit.objective import Loss, Objective
from toolkit.optimization import Group, Optimization, trainable
from toolkit.options import AutoencoderTrainerOptions
from toolkit.prior import Prior
from toolkit.running_metrics import autoencoder_metrics
from toolkit.step import Metrics, step_of
from toolkit.stream_batches import StreamBatches


class StepLoss(NamedTuple):
    """The loss of a batch, for a stage that reports nothing else."""

    loss: Tensor


PREFIXES = {
    "encoder": "model.encoder.",
    "quantizer": "model.quantizer.",
    "decoder": "model.decoder.",
    "objective": "objective.",
}
"""Of the parameters of each part of stage one."""
CRITIC = "objective.critic."


@final
class Stage(nn.Module):
    """Stage one: objective and autoencoder. The parts named in ``freeze`` stay as they are."""

    def __init__(self, objective: Objective, model: Autoencoder, freeze: Collection[str] = ()) -> None:
        super().__init__()
        self.objective, self.model, self._frozen = objective, model, tuple(freeze)
        for part in self._frozen:
            self._part(part).requires_grad_(False)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor], mask: Tensor | None = None) -> Loss:
        return self.objective(self.model.masked(mask), x, conditions)

    def metrics(self, output: Loss, x: Tensor, mask: Tensor | None = None) -> Metrics:
        return autoencoder_metrics(output, x, self.model.data, self.model.code_spec, mask)

    def train(self, mode: bool = True) -> Self:
        """Frozen parts stay in eval mode: no codebook of theirs moves."""
        super().train(mode)
        for part in self._frozen:
            self._part(part).eval()
        return self

    def groups(self, options: AutoencoderTrainerOptions) -> list[Group]:
        """What is trained with which learning rate: all but the critic, and the critic."""
        parameters = trainable(self)
        critic = {name: p for name, p in parameters.items() if name.startswith(CRITIC)}
        rest = {name: p for name, p in parameters.items() if name not in critic}
        factors = {PREFIXES[part]: factor for part, factor in options.learning_rate_factors.items()}
        groups = [Group(rest, options.learning_rate, options.betas, options.clip, factors)]
        if critic:
            learning_rate, betas = options.critic_learning_rate, options.critic_betas
            groups.append(
                Group(
                    critic,
                    learning_rate or options.learning_rate,
                    betas or options.betas,
                    options.critic_clip,
                    prefix="critic_",
                    averaged=False,
                )
            )
        return [group for group in groups if group.parameters]

    def _part(self, name: str) -> nn.Module:
        return self.get_submodule(PREFIXES[name].removesuffix("."))


@final
class PriorStage(nn.Module):
    """Stage two: a prior, and codes in place of data."""

    def __init__(self, model: Prior) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor], mask: Tensor | None = None) -> StepLoss:
        return StepLoss(self.losses(x, conditions, mask).mean())

    def losses(self, x: Tensor, conditions: Mapping[str, Tensor], mask: Tensor | None = None) -> Tensor:
        """Of each example ``(batch,)``, of its own positions alone."""
        if mask is None:
            return self.model.loss(x, conditions)
        return without_padding(self.model.loss_by_position(x, conditions), mask).flatten(1).sum(1)

    def metrics(self, output: StepLoss, x: Tensor, mask: Tensor | None = None) -> Metrics:
        return {"loss": output.loss.detach()}


def train_steps(
    stage: Stage | PriorStage, batches: TrainBatches | StreamBatches | CodedBatches, optimization: Optimization
) -> Iterator[Metrics]:
    """Updates until all steps are done; yields the metrics of each."""
    step = step_of(stage, stage.metrics, optimization, batches.device)
    stage.train()
    while not optimization.done:
        yield step(batches)
