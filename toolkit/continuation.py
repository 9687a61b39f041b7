"""What a run goes on from: its own checkpoints, or the weights of another run."""

from __future__ import annotations

from toolkit.build import build_prior_stage
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.runs.checkpoint import Checkpoint, newest
from toolkit.runs.folder import Run
from toolkit.spec import DataSpec
from toolkit.training import Stage


def check_continuation(run: Run, config: RunConfig, data: DataSpec, stage: Stage) -> None:
    """ToolkitError where the folder's checkpoints do not fit the configuration's model."""
    checkpoint = newest(run.autoencoder, [])
    if checkpoint is None and config.stage == "prior":
        raise ToolkitError(
            f"stage=prior needs a trained autoencoder, and {run.path} has no checkpoint of one yet: stage=all trains"
            " both"
        )
    if checkpoint is not None:
        saved = run.spec()[0]
        if (saved.shape, saved.levels, saved.conditions) != (data.shape, data.levels, data.conditions):
            raise ToolkitError(
                f"{run.path} was trained on data {saved.shape} with {saved.levels} levels, this is {data.shape} with"
                f" {data.levels}: start a new run for other data"
            )
        checkpoint.check_weights(stage)
    if config.stage == "autoencoder" or (config.stage == "all" and not stage.model.code_spec.depth):
        return
    trained = newest(run.prior(config.chosen_prior().name), [])
    continues = checkpoint is not None and trained is not None and is_current(trained, checkpoint)
    build_prior_stage(config, stage.model.code_spec, data, trained if continues else None)


def is_current(prior: Checkpoint, autoencoder: Checkpoint) -> bool:
    """Whether a prior was trained on the codes of these weights."""
    return prior.facts.get("autoencoder") == autoencoder.weights_hash


def initialize(stage: Stage, init: str) -> list[str]:
    """Loads the weights of another run with the same parts; returns what to know of its checkpoints."""
    notices: list[str] = []
    checkpoint = newest(Run.open(init, key="init").autoencoder, notices)
    if checkpoint is None:
        raise ToolkitError(f"init={init}: this run has no checkpoint")
    checkpoint.load_weights(stage, averaged=True)
    return notices
