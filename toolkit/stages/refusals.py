"""What is refused before a run trains: ``toolkit check`` and ``toolkit train`` both ask here, and so say the same.

Of a configuration, that is: its options, its data's specs, sizes and lengths, and its parts. ``toolkit train`` alone
asks the rest: ``check_machine`` what this machine lacks, ``toolkit.dataset.check_first`` what an example holds,
``toolkit.stages.continuation`` what a run's folder holds, ``toolkit.stages.initialization`` whether the weights of
``init`` fit, a logger's constructor whether it can log, and ``toolkit.on_device``, for ``data_on_device=true``, whether
the data is a table.
"""

from __future__ import annotations

from pathlib import Path

from toolkit.autoencoder import Autoencoder, code_spec_on, encoded_grid
from toolkit.build import build_metrics
from toolkit.config import RunConfig
from toolkit.dataset import Dataset
from toolkit.device import choose_device
from toolkit.distributed import check_device, ranks
from toolkit.errors import ToolkitError
from toolkit.lengths.checks import check_codes, check_prior, check_stage, check_trainer, check_trainers
from toolkit.model import open_dataset
from toolkit.optimization import check_precision, trainable
from toolkit.options import TrainerOptions
from toolkit.prior import Prior
from toolkit.sharding import check_divisible, check_sharding
from toolkit.spec import CodeSpec, DataSpec
from toolkit.stages.choice import rule_of_autoencoder, rule_of_prior
from toolkit.step import check_capture, check_graph
from toolkit.stream_dataset import StreamDataset
from toolkit.training import Stage


def check_run(config: RunConfig, dataset: Dataset, stage: Stage) -> None:
    """ToolkitError where options, data and the parts of stage one do not go together."""
    _check_best(config, dataset, stage)
    _check_trainable(config, stage)
    check_stage(dataset, stage.objective, stage.model)
    check_trainers(dataset, config)
    check_sharding(config.trainer, config.prior_trainer, config.stage)
    for name, trainer in (("trainer", config.trainer), ("prior_trainer", config.prior_trainer)):
        check_capture(trainer, max(ranks(), config.trainer.ranks), f"{name}.")
        check_precision(trainer, f"{name}.")


def check_second_stage(config: RunConfig, dataset: Dataset, autoencoder: Autoencoder, prior: Prior) -> None:
    """ToolkitError where the prior cannot be trained as the options say; ``dataset``: ``data_of_prior``."""
    _check_encoded(dataset, config, prior)
    _check_validated(dataset, config.prior_trainer, "prior_trainer")
    check_divisible(prior, config.trainer)
    check_codes(dataset, autoencoder)
    check_prior(dataset, prior)
    check_trainer(dataset, config.prior_trainer, "prior_trainer")


def check_machine(config: RunConfig) -> None:
    """ToolkitError where this machine cannot train as the options say."""
    for name, trainer in (("trainer", config.trainer), ("prior_trainer", config.prior_trainer)):
        check_device(choose_device(trainer.device))
        check_graph(trainer, choose_device(trainer.device), f"{name}.")


def data_of_prior(config: RunConfig, dataset: Dataset, code_spec: CodeSpec, base: Path | None = None) -> Dataset | None:
    """What stage two reads: the data of stage one, or as ``prior_dataset`` says; ``base`` as in ``open_dataset``.

    None where there is no second stage: a continuous bottleneck has none, unless it is asked for, which is refused.
    """
    if config.stage == "autoencoder" or (config.stage == "all" and not code_spec.depth):
        return None
    return open_dataset(config, config.prior_dataset, base) if config.prior_dataset else dataset


def codes_of_prior(autoencoder: Autoencoder, data: DataSpec) -> CodeSpec:
    """The codes of a prior's examples, which may be longer than the autoencoder's. ToolkitError where they may not."""
    code_spec = code_spec_on(autoencoder.quantizer, encoded_grid(autoencoder.encoder, data, autoencoder.quantizer))
    if data.axes != autoencoder.data.axes:
        code_spec.refuse_parts("prior_dataset", f"give it examples of {autoencoder.data.axes}, as the autoencoder has")
    return code_spec


def _check_best(config: RunConfig, dataset: Dataset, stage: Stage) -> None:
    """ToolkitError where a figure that chooses the best checkpoint is unknown, or stage one's is never measured."""
    rule_of_autoencoder(config.trainer, build_metrics(config, stage.model))
    rule_of_prior(config.prior_trainer)
    _check_validated(dataset, config.trainer, "trainer")


def _check_validated(dataset: Dataset, options: TrainerOptions, trainer: str) -> None:
    """ToolkitError where the best checkpoint is chosen by a figure that is never measured."""
    if options.best is not None and not dataset.size("val"):
        raise ToolkitError(f"{trainer}.best={options.best}: this data has no val split, so nothing is validated")


def _check_encoded(dataset: Dataset, config: RunConfig, prior: Prior) -> None:
    """ToolkitError where every training example is to be encoded once, and nobody has counted them; for a
    prior that has nothing to train none is encoded."""
    learns = any(True for _ in prior.parameters())
    if learns and isinstance(dataset, StreamDataset) and config.prior_trainer.encode == "once":
        raise ToolkitError(
            f"prior_trainer.encode=once: {type(dataset).__name__} is a stream, and its training examples are not"
            " counted: encode=always encodes them as they come; toolkit pack writes a dataset that is counted;"
            " stage=autoencoder trains no prior"
        )


def _check_trainable(config: RunConfig, stage: Stage) -> None:
    """ToolkitError where steps are asked for and every part is frozen."""
    if config.stage != "prior" and config.trainer.steps and not trainable(stage):
        frozen = f" with trainer.freeze=[{','.join(config.trainer.freeze)}]" if config.trainer.freeze else ""
        raise ToolkitError(
            f"trainer.steps={config.trainer.steps}: there is nothing to train{frozen}; take trainer.steps=0"
        )
