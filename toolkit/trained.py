"""A run's trained priors: opened at their best or last checkpoints, where these belong to the run's autoencoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from shlex import quote

import torch

from toolkit.build import build_prior_stage
from toolkit.errors import ToolkitError
from toolkit.prior import Prior
from toolkit.runs.checkpoint import Checkpoint, damaged_with, read_newest
from toolkit.runs.chosen import choose, chosen_step, step_with, which_it_is
from toolkit.runs.folder import Run
from toolkit.runs.spec_file import LARGEST_EXAMPLE
from toolkit.spec import CodeSpec, DataSpec
from toolkit.training import PriorStage


@dataclass(frozen=True)
class TrainedPriors:
    """The priors of an opened run.

    ``autoencoder`` is the checkpoint whose codes they must have been trained on; ``notices`` gets what the user should
    know of damaged ones.
    """

    run: Run
    data: DataSpec
    code_spec: CodeSpec
    autoencoder: Checkpoint
    device: torch.device
    notices: list[str]
    which: str | int | None = None
    """Which of their checkpoints; see ``toolkit.runs.chosen``."""

    def open(self, name: str) -> Prior:
        """A prior at its checkpoint; ToolkitError where it models codes of other weights."""
        stage = read_newest(partial(self._newest, name), partial(self._read, name))
        stage.to(self.device).eval()
        return stage.model

    def weights_hash(self, name: str) -> str:
        """Of the checkpoint that ``open`` gives."""
        return self._newest(name).weights_hash

    def axes(self, name: str) -> tuple[int, ...]:
        """The axes of the data that a prior was trained on."""
        return self._shape(self._newest(name), "axes")

    def steps(self) -> dict[str, int]:
        """Of the checkpoints that ``open`` takes, as the folders' names say."""
        steps = {name: chosen_step(self.run.prior(name), self.which) for name in self.run.priors()}
        return {name: step for name, step in steps.items() if step is not None}

    def _newest(self, name: str) -> Checkpoint:
        return checkpoint_of(self.run, self.run.prior(name), self.which, self.notices, "prior_checkpoint")

    def _read(self, name: str, checkpoint: Checkpoint) -> PriorStage:
        self._check_current(name, checkpoint)
        told = which_it_is(checkpoint, "prior_checkpoint")
        self.notices.extend(text for text in told if text not in self.notices)
        code_spec = replace(self.code_spec, grid=self._shape(checkpoint, "grid"))
        config = self.run.prior_config(name)
        data = replace(self.data, axes=self._shape(checkpoint, "axes"))
        with self.run.blaming():
            stage = build_prior_stage(config, code_spec, data, checkpoint)
            checkpoint.load_weights(stage, averaged=True)
        return stage

    def _shape(self, checkpoint: Checkpoint, key: str) -> tuple[int, ...]:
        """The grid or the axes that a prior was trained on; ToolkitError where its checkpoint has no valid ones.

        They are the run's own where the codes' grid has parts.
        """
        shape = checkpoint.facts.get(key)
        own = self.code_spec.grid if key == "grid" else self.data.axes
        if (
            not isinstance(shape, list)
            or len(shape) != len(own)
            or not all(type(n) is int and n > 0 for n in shape)
            or prod(shape) > LARGEST_EXAMPLE
            or (self.code_spec.parts and tuple(shape) != own)
        ):
            raise ToolkitError(
                f"{checkpoint.path}: {key}={shape} is not valid for a prior over codes on {self.code_spec.grid} of data"
                f" {self.data.axes}"
            )
        return tuple(shape)

    def _check_current(self, name: str, checkpoint: Checkpoint) -> None:
        """ToolkitError where a prior models codes of older weights; a notice where those of its own are damaged."""
        weights_hash, run = str(checkpoint.facts.get("autoencoder")), quote(str(self.run.path))
        if weights_hash == self.autoencoder.weights_hash:
            return
        damaged = damaged_with(self.run.autoencoder, weights_hash)
        if damaged is None:
            step = step_with(self.run.autoencoder, weights_hash)
            other = "an older autoencoder" if step is None else f"autoencoder/step-{step:08d}"
            cure = "" if step is None else f" (opened is step {self.autoencoder.step}): add checkpoint={step}, or"
            raise ToolkitError(
                f"prior={name} was trained on codes of {other}{cure or ':'} "
                f"toolkit train run={run} stage=prior prior={name} trains it again"
            )
        notice = f"prior={name} was trained on codes of {damaged}, which is damaged: toolkit train run={run} mends it"
        if notice not in self.notices:
            self.notices.append(notice)


def checkpoint_of(
    run: Run, folder: Path, which: str | int | None, notices: list[str], key: str = "checkpoint"
) -> Checkpoint:
    """A whole checkpoint of one of a run's stages; ToolkitError where it has none yet, or not the one asked for."""
    checkpoint = choose(folder, which, notices, key)
    if checkpoint is None:
        raise ToolkitError(
            f"{folder} has no checkpoint yet: toolkit train run={quote(str(run.path))} continues this run"
        )
    return checkpoint
