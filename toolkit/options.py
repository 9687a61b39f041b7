"""The options of training, besides the parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from toolkit.errors import ToolkitError

Part = Literal["encoder", "quantizer", "decoder", "objective"]
"""What stage one trains."""
PARTS: tuple[str, ...] = get_args(Part)


@dataclass(frozen=True)
class TrainerOptions:
    """How either stage is trained."""

    steps: int = 10000
    """Optimizer steps in all; 0 trains nothing, for parts that are trained already."""
    batch_size: int = 64
    """Examples of one forward pass, on each rank."""
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    """Which optimizer; muon is for the weights of linear maps, and takes adamw for all others."""
    learning_rate: float = 3e-4
    """Its learning rate at the peak of the schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of its averages of the gradient and of its square; the first is the momentum of sgd and muon."""
    weight_decay: float = 0.0
    """Its weight decay."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """What the learning rate does after the warm-up; cosine and linear fall to the floor at the last step."""
    floor: float = 0.0
    """What cosine and linear fall to, as a share of the peak."""
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
        if not 0 <= self.floor <= 1:
            raise ToolkitError(f"floor={self.floor}: must be between 0 and 1")
        for name, value in (("ema", self.ema), *(("betas", beta) for beta in self.betas)):
            if not 0 <= value < 1:
                raise ToolkitError(f"{name}={value}: must be at least 0 and below 1")


@dataclass(frozen=True)
class AutoencoderTrainerOptions(TrainerOptions):
    """How stage one is trained, under ``trainer``."""

    ranks: int = 1
    """Processes that train together, in both stages, each with batches of its own; on GPUs, one each. Under torchrun
    the number is torchrun's."""
    freeze: tuple[Part, ...] = ()
    """Parts that stay as they are: their parameters, and what they update themselves."""
    learning_rate_factors: dict[str, float] = field(default_factory=dict)
    """By part, what its learning rate is multiplied by."""
    critic_learning_rate: float | None = None
    """The objective's critic's; null: learning_rate."""
    critic_betas: tuple[float, float] | None = None
    """The same of its averages; null: betas."""
    critic_clip: float = 0.0
    """Largest norm of the critic's gradient; 0: no clipping."""
    critic_start: int = 0
    """Step at which the critic begins to learn."""
    timeout: float = 10.0
    """Minutes after which a rank that the others wait for is lost, and the run ends."""
    allow_changed_data: bool = False
    """Whether this command goes on though the data's files are not those that the run was trained on; not saved."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, factor in self.learning_rate_factors.items():
            if name not in PARTS:
                raise ToolkitError(f"learning_rate_factors.{name}: not a part that is trained ({', '.join(PARTS)})")
            if not factor > 0:
                raise ToolkitError(
                    f"learning_rate_factors.{name}={factor}: must be above 0; freeze=[{name}] trains none"
                )
        if self.critic_learning_rate is not None and not self.critic_learning_rate > 0:
            raise ToolkitError(f"critic_learning_rate={self.critic_learning_rate}: must be above 0")
        if self.critic_betas and not all(0 <= beta < 1 for beta in self.critic_betas):
            raise ToolkitError(f"critic_betas={list(self.critic_betas)}: each at least 0 and below 1")


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
_NON_NEGATIVE = ("steps", "warmup", "clip", "weight_decay", "workers", "critic_clip", "critic_start")


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
