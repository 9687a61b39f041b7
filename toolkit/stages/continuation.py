"""What a run goes on from: its own checkpoints, on its own data, or the weights of another run."""

from __future__ import annotations

from pathlib import Path

from toolkit.build import build_prior_stage
from toolkit.config import RunConfig
from toolkit.dataset import Dataset
from toolkit.errors import ToolkitError
from toolkit.runs import spec_file
from toolkit.runs.checkpoint import Checkpoint, newest
from toolkit.runs.chosen import choose
from toolkit.runs.data import DataRecord, compare, read_record, record
from toolkit.runs.folder import Run
from toolkit.spec import Condition, DataSpec
from toolkit.stages.refusals import check_second_stage, codes_of_prior
from toolkit.training import Stage

ALLOW = (
    "trainer.allow_changed_data=true goes on with it, and encodes its codes again; dataset.root=FOLDER says where the"
    " data is as it was"
)


def check_continuation(
    run: Run, config: RunConfig, dataset: Dataset, read: Dataset | None, stage: Stage, files: DataRecord | None
) -> list[str]:
    """Returns what to know; ToolkitError where the folder's checkpoints do not fit the configuration's model or data.

    A prior that cannot be trained is refused here, in a new run, too: whether it goes on is known by the folder.

    ``read``: ``data_of_prior``; ``files``: what is known of the data's files; None: they are not compared.
    """
    notices: list[str] = []
    checkpoint = newest(run.autoencoder, [])
    if checkpoint is None and config.stage == "prior":
        raise ToolkitError(
            f"stage=prior needs a trained autoencoder, and {run.path} has no checkpoint of one yet: stage=all trains"
            " both"
        )
    if checkpoint is not None:
        damage, relabeled = spec_file.damage(run.path / "spec.json"), ""
        if damage:
            notices.append(f"{run.path / 'spec.json'} cannot be read ({damage}): it is written again")
        else:
            relabeled = _check_spec(run, config, dataset.spec)
        notices += check_data(run.path, files, config.trainer.allow_changed_data)
        if relabeled and not (config.trainer.allow_changed_data or run.untouched):
            raise ToolkitError(f"{run.path} was trained with other labels: {relabeled}\n{ALLOW}")
        checkpoint.check_weights(stage)
    if read is None:
        return notices
    trained = newest(run.prior(config.chosen_prior().name), [])
    chosen = checkpoint if checkpoint is None else choose(run.autoencoder, None, [])
    continues = chosen is not None and trained is not None and is_current(trained, chosen)
    code_spec = codes_of_prior(stage.model, read.spec)
    prior = build_prior_stage(config, code_spec, read.spec, trained if continues else None).model
    check_second_stage(config, read, stage.model, prior)
    return notices


def _check_spec(run: Run, config: RunConfig, data: DataSpec) -> str:
    """ToolkitError for data of another form, or with other labels that a part sees; returns what others changed."""
    saved = run.spec()[0]
    if (saved.shape, saved.levels) != (data.shape, data.levels):
        raise ToolkitError(
            f"{run.path} was trained on data {saved.shape} with {saved.levels} levels, this is {data.shape} with"
            f" {data.levels}: start a new run for other data"
        )
    before, after = ({condition.name: condition for condition in spec.conditions} for spec in (saved, data))
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    what = "; ".join(_relabeled(name, before.get(name), after.get(name)) for name in changed)
    if not run.untouched and {*changed} & {*config.decoder_conditions, *config.prior_conditions}:
        raise ToolkitError(
            f"{run.path} was trained with other labels, which its parts see: {what}\n"
            "call them as before, or start a new run for other data"
        )
    return what


def _relabeled(name: str, before: Condition | None, after: Condition | None) -> str:
    """How a condition changed, in words."""
    if before is None or after is None:
        return f"{name} is {'new' if before is None else 'gone'}"
    gone, came = (
        [label for label in one.labels if label not in other.labels]
        for one, other in ((before, after), (after, before))
    )
    if gone or came:
        return f"{name}: " + ", ".join(
            [*(f"{label} is gone" for label in gone), *(f"{label} is new" for label in came)]
        )
    return f"{name} has {after.size} values, not {before.size}, or others per step"


def check_data(folder: Path, now: DataRecord | None, allowed: bool) -> list[str]:
    """Compares data with the record in a run's or prior's folder.

    Returns what to know of it. ToolkitError where the data has changed, unless that is ``allowed``; runs without a
    record, such as older ones, are not compared.
    """
    notices, changes = compare_data(folder, now)
    if changes and not allowed:
        raise ToolkitError(f"{folder}: the data has changed since it was trained on: {changes}\n{ALLOW}")
    return [f"goes on with changed data: {changes}", *notices] if changes else notices


def compare_data(folder: Path, now: DataRecord | None) -> tuple[list[str], str]:
    """What to know of the comparison, and what has changed, in words; empty: nothing, or it is not known."""
    try:
        before = read_record(folder)
    except ToolkitError as e:
        return [str(e)], ""
    if before is None or now is None:
        return [], ""
    changes = compare(before, now)
    copied = ["the data's files have other times and the same sizes: taken for a copy"] if changes.times else []
    return ([], "; ".join(changes.data)) if changes.data else (copied, "")


def changed_data(run: Run, dataset: Dataset) -> list[str]:
    """What to know where a run is used with other data than it was trained on, or its record of it is damaged."""
    notices, changes = compare_data(run.path, record(dataset.source_files()))
    return [f"this is not the data that the run was trained on: {changes}"] if changes else notices


def is_current(prior: Checkpoint, autoencoder: Checkpoint) -> bool:
    """Whether a prior was trained on the codes of these weights."""
    return prior.facts.get("autoencoder") == autoencoder.weights_hash
