"""The options of training, besides the parts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

from toolkit.errors import ToolkitError
from toolkit.ranges import Decay, Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, Range, range_of, refusal

Part = Literal["encoder", "quantizer", "decoder", "objective"]
"""What stage one trains."""
PARTS: tuple[str, ...] = get_args(Part)

DEVICE = "auto: a CUDA GPU if there is one; or cpu, cuda, mps, xpu, or by number, as cuda:1"
"""What a command says of where it runs."""
OnDevice = Literal["auto", True, False]
"""Whether a split is kept on the device."""

VALIDATED = "val"
"""The split whose figures choose a checkpoint."""
CHECKPOINT = "the autoencoder's: best, last, or a step that is kept; null: its best if one is kept, else the last"
"""What a command says of the checkpoint that it opens."""
PRIOR_CHECKPOINT = "the prior's: the same; its best is kept where prior_trainer.best is set"
"""The same of a prior."""

LONGEST_NAME = 100
"""Characters of a run's name and of a tag."""
OPTIONAL = ("name", "tags")

LARGEST_SEED = 9223372036854775806
"""A run uses the seed and its successor, which are numbers of 63 bits."""


@dataclass(frozen=True)
class TrainerOptions:
    """How either stage is trained."""

    steps: NonNegativeInt = 10000
    """Optimizer steps in all; 0 trains nothing, for parts that are trained already."""
    batch_size: Annotated[int, Range(least=1, most=1048576)] = 64
    """Examples of one forward pass, on each rank."""
    optimizer: Literal["adam", "adamw", "sgd", "muon"] = "adam"
    """Which optimizer; muon is for the weights of linear maps, and takes adamw for all others."""
    learning_rate: Positive = 3e-4
    """Its learning rate at the peak of the schedule."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of its averages of the gradient and of its square; the first is the momentum of sgd and muon."""
    weight_decay: NonNegative = 0.0
    """Its weight decay."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """What the learning rate does after the warm-up; cosine and linear fall to the floor at the last step."""
    floor: Fraction = 0.0
    """What cosine and linear fall to, as a share of the peak."""
    warmup: NonNegativeInt = 0
    """Steps over which the learning rate rises from zero."""
    clip: NonNegative = 0.0
    """Largest norm of the gradient; 0: no clipping."""
    accumulate: PositiveInt = 1
    """Forward passes per optimizer step."""
    ema: Decay = 0.0
    """Decay of the weights' moving average, which evaluation and sampling then use; 0: none."""
    checkpoint_every: PositiveInt = 1000
    """Steps between checkpoints."""
    keep: PositiveInt = 2
    """How many of the newest checkpoints are kept."""
    validate_every: PositiveInt = 1000
    """Steps between validations."""
    validate_examples: PositiveInt = 1024
    """Examples per validation, at most."""
    log_every: PositiveInt = 100
    """Steps between lines of metrics.jsonl."""
    pictures_every: PositiveInt = 1000
    """Steps between pictures."""
    best: str | None = None
    """A figure of the validation, such as val/nmse: the checkpoint at which it was best is kept beside the newest, and
    is the one that commands open and stage two builds on. Each validation then has a checkpoint. null: the last is."""
    best_mode: Literal["auto", "min", "max"] = "auto"
    """Whether less or more of that figure is better; auto: as is known of it."""
    patience: PositiveInt | None = None
    """Validations after the best one without a better, at which training ends; null: it goes on to the last step."""
    workers: Annotated[int, Range(least=0, most=256)] | None = None
    """Processes that load data; 0: the training process itself; null: on a GPU up to 4, as there are cores; on a CPU
    0."""
    data_on_device: OnDevice = "auto"
    """Whether the training split is kept on the device, where its batches are the same; auto: on a GPU, if the dataset
    can hand it out as a whole and it takes at most an eighth of the free memory."""
    device: str = "auto"
    """Where it runs: auto (on a CUDA GPU if there is one), cpu, cuda, mps, xpu, or by number, as cuda:1."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the networks' arithmetic; weights and codebooks stay fp32. auto: bf16 on a GPU that is built for
    it, else fp32."""
    deterministic: bool = False
    """Whether only operations are taken that give the same bits each time; on a CPU they do so anyway."""
    compile: Literal[False, True, "max"] = False
    """Whether torch.compile compiles forward and backward passes; max: it also tries which kernels are fastest, which
    takes minutes more."""
    graph: bool = False
    """Whether a whole step is captured as a CUDA graph and replayed, a single launch: where many small operations keep
    a GPU waiting for Python."""

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_best(self)


@dataclass(frozen=True)
class AutoencoderTrainerOptions(TrainerOptions):
    """How stage one is trained, under ``trainer``."""

    ranks: Annotated[int, Range(least=1, most=1024)] = 1
    """Processes that train together, in both stages, each with batches of its own; on GPUs, one each. Under torchrun
    the number is torchrun's."""
    freeze: tuple[Part, ...] = ()
    """Parts that stay as they are: their parameters, and what they update themselves."""
    learning_rate_factors: dict[str, float] = field(default_factory=dict)
    """By part, what its learning rate is multiplied by."""
    critic_learning_rate: Positive | None = None
    """The objective's critic's; null: learning_rate."""
    critic_betas: tuple[Decay, Decay] | None = None
    """The same of its averages; null: betas."""
    critic_clip: NonNegative = 0.0
    """Largest norm of the critic's gradient; 0: no clipping."""
    critic_start: NonNegativeInt = 0
    """Step at which the critic begins to learn."""
    shard: bool = False
    """Whether the prior of stage two is divided over the ranks (FSDP2): every rank keeps a shard of its weights,
    gradients, moments and averages, so that it may be larger than a GPU. Stage one's model stays whole on each."""
    checkpoint_activations: bool = False
    """Whether the blocks of stage two's prior keep their inputs alone, and compute the rest again in the backward pass:
    less memory, a third more time."""
    timeout: Annotated[float, Range(above=0, most=1000000)] = 10.0
    """Minutes after which a rank that the others wait for is lost, and the run ends."""
    allow_changed_data: bool = False
    """Whether this command goes on though the data's files are not those that the run was trained on; not saved."""

    def __post_init__(self) -> None:
        for name, factor in self.learning_rate_factors.items():
            if name not in PARTS:
                raise ToolkitError(f"learning_rate_factors.{name}: not a part that is trained ({', '.join(PARTS)})")
            if not factor > 0:
                raise ToolkitError(
                    f"learning_rate_factors.{name}={factor}: must be above 0; freeze=[{name}] trains none"
                )
        super().__post_init__()


@dataclass(frozen=True)
class PriorTrainerOptions(TrainerOptions):
    """How stage two is trained, under ``prior_trainer``."""

    allow_collapsed: bool = False
    """Whether a prior may be trained on collapsed codes, of which almost none are in use."""
    checkpoints: Literal["whole", "sharded"] = "whole"
    """How a prior that trainer.shard divides is saved: gathered to one file, or sharded, each rank's part in a file of
    its own, which all write at once. Any number of ranks, and every command, opens either."""
    encode: Literal["once", "always"] = "once"
    """When the training examples are encoded: once, as they are without what is random in them, or always, each batch
    as it comes, with its random crops and the like. always takes an encoder's pass in each step, and streams, too;
    whether codes have collapsed it asks of the validation examples."""


TRAINERS: dict[str, type[TrainerOptions]] = {
    "trainer": AutoencoderTrainerOptions,
    "prior_trainer": PriorTrainerOptions,
}
"""By the group of the configuration that holds them."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run as a whole, at the top of its configuration.

    Its file has those of ``OPTIONAL`` where they have a value.
    """

    stage: Literal["all", "autoencoder", "prior"] = "all"
    """What is trained."""
    seed: Annotated[int, Range(least=0, most=LARGEST_SEED)] = 0
    """Seed of everything random."""
    dim: PositiveInt = 64
    """Channels of the latents, offered to the quantizer."""
    init: str | None = None
    """A run whose weights this one starts from."""
    name: str | None = None
    """What the run is called in comparisons, pictures and loggers; null: as its folder is."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""

    def __post_init__(self) -> None:
        _check_ranges(self)
        for text in (*([] if self.name is None else [self.name]), *self.tags):
            if len(text) > LONGEST_NAME or not text.isprintable() or not text.strip():
                raise ToolkitError(f"name, tags: {text!r}: give one line of at most {LONGEST_NAME} characters")


def _check_best(options: TrainerOptions) -> None:
    """ToolkitError for a figure that is not of the validation, and for what means nothing without one."""
    if options.best is None:
        for name, usual in (("patience", None), ("best_mode", "auto")):
            if (value := getattr(options, name)) != usual:
                raise ToolkitError(f"{name}={value}: it is about a figure, which best={VALIDATED}/NAME names")
        return
    split, _, figure = options.best.partition("/")
    if split != VALIDATED or not figure:
        near = options.best.rpartition("/")[2] or "nmse"
        raise ToolkitError(f"best={options.best}: give a figure of the validation, such as best={VALIDATED}/{near}")


def _check_ranges(options: TrainerOptions | RunOptions) -> None:
    """ToolkitError for a number that is not in its field's range, or not finite."""
    for name, allowed in _ranges(cast(Hashable, type(options))).items():
        value = getattr(options, name)
        reason = refusal(value, allowed)
        if reason:
            raise ToolkitError(f"{name}={list(value) if isinstance(value, tuple) else value}: {reason}")


@cache
def _ranges(cls: Any) -> dict[str, Range | None]:
    return {name: range_of(wanted) for name, wanted in get_type_hints(cls, include_extras=True).items()}
