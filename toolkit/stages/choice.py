"""Which checkpoint of a stage is the best so far, and whether training ends for want of a better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import final

from toolkit.distributed import broadcast_object, on_rank0
from toolkit.errors import ToolkitError
from toolkit.metric import Direction, Metric, direction_of
from toolkit.options import TrainerOptions
from toolkit.registry import did_you_mean
from toolkit.runs.best import Best, Judged, Rule, after, judged, write_best
from toolkit.runs.log import Log

EVALUATED: Mapping[str, Direction] = {
    "nll": "min",
    "bits_per_dim": "min",
    "data_bits_per_dim": "min",
    "code_bits_per_dim": "min",
}
"""What every validation of an autoencoder has, besides its metrics' figures."""
OF_PRIOR: Mapping[str, Direction] = {"loss": "min"}
"""What every validation of a prior has."""


def rule_of_autoencoder(options: TrainerOptions, metrics: Iterable[Metric]) -> Rule | None:
    """By what the autoencoder's best checkpoint is chosen; as ``rule_of``."""
    known = {name: direction for metric in metrics for name, direction in metric.directions.items()}
    return rule_of(options, {**EVALUATED, **known}, "trainer")


def rule_of_prior(options: TrainerOptions) -> Rule | None:
    """By what a prior's is."""
    return rule_of(options, OF_PRIOR, "prior_trainer")


def rule_of(options: TrainerOptions, directions: Mapping[str, Direction], trainer: str) -> Rule | None:
    """What a trainer's ``best`` asks for; None where it asks for nothing.

    ``trainer``: its group, for errors. ToolkitError for a figure of which nobody says which way it is better.
    """
    if options.best is None:
        return None
    name = options.best.partition("/")[2]
    mode = direction_of(name, directions) if options.best_mode == "auto" else options.best_mode
    if mode is None:
        raise ToolkitError(
            f"{trainer}.best={options.best}: it is not known of {name} whether less or more is better"
            f"{did_you_mean(name, directions)}: add {trainer}.best_mode=min or max"
            f"\nknown of: {', '.join(directions)}"
        )
    return Rule(name, mode)


@final
class Choice:
    """The best validation of a stage, noted beside its checkpoints in ``folder``; all ranks agree on it.

    ``rule`` None: nothing is compared, and nothing ends. What is known follows from the log alone, so that a run that
    is continued ends where one does that was never stopped.
    """

    def __init__(self, stage: str, folder: Path, rule: Rule | None, options: TrainerOptions, trainer: str) -> None:
        self.stage, self.folder, self.rule, self.options, self.trainer = stage, folder, rule, options, trainer
        self._judged = Judged(None, 0)

    @property
    def best(self) -> Best | None:
        return self._judged.best

    @property
    def ended(self) -> bool:
        """Whether as many validations as are waited for were no better than the best."""
        patience = self.options.patience
        return self.rule is not None and patience is not None and self._judged.since >= patience

    def recall(self, log: Log) -> None:
        """What a log says, of a run that is continued."""
        self._agree(on_rank0(partial(self._recall, log)))

    def judge(self, step: int, metrics: Mapping[str, float] | None) -> None:
        """Compares a validation that has just been logged. ToolkitError where it lacks the figure."""
        if self.rule is not None:
            self._agree(on_rank0(partial(self._judge, self.rule, step, metrics or {})))

    def outcome(self) -> str:
        """What to say at the end of the stage; empty where nothing is compared."""
        if self.rule is None:
            return ""
        best, since = self._judged
        said = f"its best is {best}" if best else f"no validation had a number for {self.options.best}"
        if not self.ended:
            return f"{self.stage}: {said}"
        return (
            f"{self.stage}: ended early, {said}, and {since} validations since were no better:"
            f" {self.trainer}.patience={self.options.patience}; a larger one, or null, goes on"
        )

    def _agree(self, found: Judged | None) -> None:
        self._judged = broadcast_object(found)

    def _recall(self, log: Log) -> Judged:
        found = judged(log, self.stage, self.rule) if self.rule else Judged(None, 0)
        write_best(self.folder, found.best)
        return found

    def _judge(self, rule: Rule, step: int, metrics: Mapping[str, float]) -> Judged:
        if rule.figure not in metrics:
            raise ToolkitError(
                f"{self.trainer}.best={self.options.best}: the validation has no {rule.figure}"
                f"{did_you_mean(rule.figure, metrics)}; it has {', '.join(metrics)}"
            )
        found = after(self._judged, rule, step, metrics[rule.figure])
        write_best(self.folder, found.best)
        return found
