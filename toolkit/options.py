"""The options of training, besides the parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from toolkit.errors import ToolkitError


@dataclass(frozen=True)
class TrainerOptions:
    """How either stage is trained."""

    steps: int = 10000
    """Optimizer steps in all."""
    batch_size: int = 64
    """Examples of one forward pass, on each rank."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Which optimizer."""
    learning_rate: float = 3e-4
    """Its learning rate at the peak of the schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of its averages of the gradient and of its square."""
    weight_decay: float = 0.0
    """Its weight decay."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after the warm-up; cosine falls to zero at the last step."""
    warmup: int = 0
    """Steps over which the learning rate rises from zero."""
    clip: float = 0.0
    """Largest norm of the gradient; 0: no clipping."""
    accumulate: int = 1
    """Forward passes per optimizer step."""
    ema: float = 0.0
    """Decay of the weights' moving average, which evaluation and sampling then use; 0: none."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep: int = 2
    """How many of the newest checkpoints are kept."""
    validate_every: int = 1000
    """Steps between validations."""
    validate_examples: int = 1024
    """Examples per validation, at most."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    pictures_every: int = 1000
    """Steps between pictures."""
    workers: int | None = None
    """Processes that load data; 0: the training process itself; null: 4 on a GPU, 0 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs; auto: on a GPU if there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the networks' arithmetic; weights and codebooks stay fp32."""
    compile: bool = False
    """Whether torch.compile compiles the step."""

    def __post_init__(self) -> None:
        at_least = dict.fromkeys(_POSITIVE, 1) | dict.fromkeys(_NON_NEGATIVE, 0)
        for name, least in at_least.items():
            value = getattr(self, name, None)
            if value is not None and value < least:
                raise ToolkitError(f"{name}={value}: must be at least {least}")
        for name, most in _AT_MOST.items():
            value = getattr(self, name, None)
            if value is not None and value > most:
                raise ToolkitError(f"{name}={value}: must be at most {most}")
        for name in ("learning_rate", "timeout"):
            if not getattr(self, name, 1) > 0:
                raise ToolkitError(f"{name}={getattr(self, name)}: must be above 0")
        for name, value in (("ema", self.ema), *(("betas", beta) for beta in self.betas)):
            if not 0 <= value < 1:
                raise ToolkitError(f"{name}={value}: must be at least 0 and below 1")


@dataclass(frozen=True)
class AutoencoderTrainerOptions(TrainerOptions):
    """How stage one is trained, under ``trainer``."""

    ranks: int = 1
    """Processes that train together, in both stages, each with batches of its own; on GPUs, one each. Under torchrun
    the number is torchrun's."""
    timeout: float = 10.0
    """Minutes after which a rank that the others wait for is lost, and the run ends."""


@dataclass(frozen=True)
class PriorTrainerOptions(TrainerOptions):
    """How stage two is trained, under ``prior_trainer``."""

    allow_collapsed: bool = False
    """Whether a prior may be trained on collapsed codes, of which almost none are in use."""


TRAINERS: dict[str, type[TrainerOptions]] = {
    "trainer": AutoencoderTrainerOptions,
    "prior_trainer": PriorTrainerOptions,
}
"""By the group of the configuration that holds them."""


_POSITIVE = (
    "ranks",
    "steps",
    "batch_size",
    "accumulate",
    "checkpoint_every",
    "keep",
    "validate_every",
    "validate_examples",
    "log_every",
    "pictures_every",
)
_AT_MOST = {"ranks": 1024, "workers": 256, "batch_size": 1 << 20}
_NON_NEGATIVE = ("warmup", "clip", "weight_decay", "workers")


@dataclass(frozen=True)
class RunOptions:
    """Options of a run as a whole, at the top of its configuration."""

    stage: Literal["all", "autoencoder", "prior"] = "all"
    """What is trained."""
    seed: int = 0
    """Seed of everything random."""
    dim: int = 64
    """Channels of the latents, offered to the quantizer."""
    init: str | None = None
    """A run whose weights this one starts from."""

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("dim", 1)):
            if getattr(self, name) < least:
                raise ToolkitError(f"{name}={getattr(self, name)}: must be at least {least}")
