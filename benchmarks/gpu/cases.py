"""The models that are checked, small, over images and codes that lie in memory; nothing is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

import torch
import yaml
from torch import Tensor

from benchmarks.gpu.rows import NotThereError
from benchmarks.gpu.setting import Setting
from toolkit import DataSpec
from toolkit.batches import TrainBatches
from toolkit.build import build_autoencoder, build_objective, build_prior
from toolkit.cli.config.compose import compose
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.on_device import table_on
from toolkit.optimization import Optimization
from toolkit.options import TRAINERS, TrainerOptions
from toolkit.schema import fields as options_of
from toolkit.spec import CodeSpec
from toolkit.training import Metrics, PriorStage, Stage, train_steps

SPEC = DataSpec(3, (32, 32), levels=256, variance=0.25)
_GROUPED = ["quantizer=product_categorical", "quantizer.groups=4"]
_SMALL = ["prior.hidden=32", "prior.layers=2"]

QUANTIZERS = {
    "ema": ["quantizer=ema"],
    "ema revived": ["quantizer=ema", "quantizer.dead_code_threshold=0.5"],
    "vq kmeans": ["quantizer=vq", "quantizer.init=kmeans", "quantizer.dead_code_threshold=0.5"],
    "vq rotation": ["quantizer=vq", "quantizer.gradient=rotation"],
    "vq entropy": ["quantizer=vq", "quantizer.entropy=0.1"],
    "simvq": ["quantizer=simvq"],
    "fsq": ["quantizer=fsq"],
    "lfq": ["quantizer=lfq"],
    "bsq": ["quantizer=bsq"],
    "categorical": ["quantizer=categorical"],
    "gaussian": ["quantizer=gaussian"],
    "product": ["quantizer=product_ema", "quantizer.groups=4"],
    "residual": ["quantizer=residual_ema", "quantizer.depth=3"],
    "projected": ["quantizer=vq_cosine"],
    "vimco": [*_GROUPED, "objective=vimco", "objective.samples=4"],
    "nvil": [*_GROUPED, "objective=nvil"],
}
"""Words of each quantizer, and of the objectives that have their own."""

PRIORS = {
    "pixelcnn": ["prior=pixelcnn", *_SMALL],
    "pixelcnn of depth 3": ["prior=pixelcnn", *_SMALL, "quantizer=residual_ema", "quantizer.depth=3"],
    "transformer": ["prior=transformer", *_SMALL, "prior.heads=4"],
    "maskgit": ["prior=maskgit", *_SMALL, "prior.heads=4"],
    "categorical": ["prior=categorical"],
}
"""Words of each prior."""


class Images:
    """Images of noise, which cost what others cost. They may be kept on the device."""

    def __init__(self, size: int, spec: DataSpec = SPEC) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randint(spec.levels or 2, (size, *spec.shape), dtype=torch.uint8, generator=generator)

    def size(self, split: str) -> int:
        return len(self.x)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": self.x[index]}

    def batch(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
    ) -> dict[str, Tensor]:
        return {"x": self.x[torch.tensor(indices)]}

    def table(self, split: str) -> dict[str, Tensor]:
        return {"x": self.x}

    def draws(self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return {}

    def from_table(self, rows: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        return rows


class Codes(Images):
    """Codes of noise."""

    def __init__(self, size: int, code_spec: CodeSpec) -> None:
        generator = torch.Generator().manual_seed(1)
        sizes = code_spec.codebook_sizes
        self.x = torch.stack([torch.randint(k, (size, *code_spec.grid), generator=generator) for k in sizes], 1)


def composed(words: Sequence[str]) -> RunConfig:
    """A configuration. NotThereError for a trainer's option, or its value, that this version does not know."""
    for word in words:
        _require(word)
    return compose(list(words)).config


def stage_of(words: Sequence[str], setting: Setting) -> tuple[Stage, TrainerOptions]:
    """Stage one of the notebook's experiment, narrow, on the CPU."""
    config = _narrow(words, setting)
    torch.manual_seed(0)
    model = build_autoencoder(config, SPEC)
    return Stage(build_objective(config, model), model), config.trainer


def prior_of(words: Sequence[str], setting: Setting) -> tuple[PriorStage, TrainerOptions, CodeSpec]:
    """Stage two over that model's codes, on the CPU."""
    config = _narrow(words, setting)
    torch.manual_seed(0)
    code_spec = build_autoencoder(config, SPEC).code_spec
    return PriorStage(build_prior(config, code_spec, SPEC)), config.prior_trainer, code_spec


def updates(
    stage: Stage | PriorStage, options: TrainerOptions, examples: Images, setting: Setting, batch_size: int = 8
) -> Iterator[Metrics]:
    """The training loop over examples, on the device; they are kept there where the options say so."""
    options = replace(options, steps=1 << 30, batch_size=batch_size)
    groups = stage.groups(options) if isinstance(stage, Stage) else ()  # type: ignore[arg-type]
    optimization = Optimization(stage.to(setting.device), options, groups)
    kept = options.data_on_device is True
    table = table_on(setting.device, examples, "train", kept, reads=0, note=lambda _: None)
    batches = TrainBatches(
        examples, setting.device, batch_size=batch_size, seed=0, workers=options.workers, table=table
    )
    torch.manual_seed(1)
    return train_steps(stage, batches, optimization)


def _narrow(words: Sequence[str], setting: Setting) -> RunConfig:
    width = 16 if setting.dry else 64
    experiment = ["experiment=image_cifar10_notebook", f"encoder.hidden={width}", f"decoder.hidden={width}"]
    return composed([*experiment, *words])


def _require(word: str) -> None:
    """NotThereError for ``trainer.OPTION=VALUE`` that this version does not know."""
    key, _, text = word.partition("=")
    trainer, _, name = key.partition(".")
    if trainer not in TRAINERS or not name:
        return
    if name not in {field.name for field in fields(TRAINERS[trainer])}:
        raise NotThereError(word)
    (option,) = (option for option in options_of(TRAINERS[trainer]) if option.name == name)
    try:
        option.convert(yaml.safe_load(text))
    except ToolkitError:
        raise NotThereError(word) from None
