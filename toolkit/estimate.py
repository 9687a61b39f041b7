"""How much memory a step of training takes, known before there is any: the step itself, on tensors without memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar, cast
from weakref import finalize

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from toolkit.autoencoder import Autoencoder, code_spec_on, encoded_grid
from toolkit.batches import Batch, TrainBatches
from toolkit.build import build_autoencoder, build_prior, build_stage
from toolkit.coded_batches import CodedBatches
from toolkit.config import RunConfig
from toolkit.device import choose_device, random_kept, resolve_precision
from toolkit.errors import ToolkitError
from toolkit.optimization import Optimization
from toolkit.options import AutoencoderTrainerOptions, TrainerOptions
from toolkit.sharding import checkpoint_activations
from toolkit.spec import Condition, DataSpec
from toolkit.step import step_of
from toolkit.training import PriorStage, Stage

Trainer = TypeVar("Trainer", bound=TrainerOptions)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one rank."""

    weights: int
    """Parameters and buffers."""
    gradients: int
    """With the buckets in which ranks average them."""
    moments: int
    """What the optimizer keeps."""
    averages: int
    """Of the weights, where there are any."""
    activations: int
    """What is there when the backward pass begins, besides the above."""
    peak: int
    """The most that is there at once: less than the sum where activations are gone before all gradients are there, and
    more where an operation needs room of its own."""


def step_memory(
    stage: Stage | PriorStage,
    batch: Mapping[str, Tensor],
    options: TrainerOptions,
    ranks: int = 1,
    blocks: Sequence[nn.Module] | None = None,
    encoder: Autoencoder | None = None,
) -> StepMemory:
    """What a step takes on each of ``ranks``; the stage itself is of no use afterwards.

    ``blocks``: of a stage that is sharded over the ranks, its model's; None: every rank has the whole. ``encoder``:
    what encodes each batch as it comes; None: ``batch`` is what the stage learns from. Nothing is computed: two steps
    run on fake tensors, the second of which is measured. ``batch`` says the shapes of x and of the conditions. Frozen
    networks that a stage uses without having them as parts are found by their use, and are whole on every rank. A
    compiled step takes less, and libraries may take more for themselves. Raises whatever a part raises that cannot do
    without values.
    """
    shards = 1 if blocks is None else ranks
    with random_kept(), _silence(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        _without_memory(stage, mode)
        inputs: dict[str, Tensor] = {name: mode.from_tensor(value) for name, value in batch.items()}
        live = _Live(shards)
        for tensor in chain(stage.parameters(), stage.buffers(), inputs.values()):
            live.count(tensor)
        for tensor in () if encoder is None else chain(encoder.parameters(), encoder.buffers()):
            live.found(tensor)
        batches = _batches(inputs, encoder)
        with live:
            optimization = Optimization(stage, _as_written(options), _groups(stage, options))
            for parameter in optimization.parameters.values():
                parameter.register_post_accumulate_grad_hook(live.accumulated)
            step = step_of(stage, stage.metrics, optimization, CPU)
            stage.train()
            step(batches)
            live.begin()
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t, live.unpacked):
                step(batches)
        moments = [moment for o in optimization.optimizers for kept in o.state.values() for moment in kept.values()]
        whole = {
            "weights": _bytes(chain(stage.parameters(), stage.buffers())),
            "gradients": _bytes(optimization.parameters.values()),
            "moments": _bytes(moment for moment in moments if isinstance(moment, Tensor)),
            "averages": _bytes(optimization.averages.values()),
        }
        kept = {name: -(-size // shards) for name, size in whole.items()}
        kept["weights"] += live.frozen
        besides = live.moving + _bytes(inputs.values())
        if blocks is not None:
            besides += _gathered(stage, blocks)
        elif ranks > 1:  # the buckets in which gradients are averaged
            kept["gradients"] *= 2
            besides += whole["gradients"]
        peak = kept["weights"] + kept["moments"] + kept["averages"] + besides
        return StepMemory(**kept, activations=live.activations, peak=peak)


class _Same(Iterator[Batch]):
    """One batch again and again."""

    device = CPU

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        self.inputs = inputs

    def __next__(self) -> Batch:
        return Batch(dict(self.inputs), CPU)


def _batches(inputs: Mapping[str, Tensor], encoder: Autoencoder | None) -> Iterator[Batch]:
    return _Same(inputs) if encoder is None else CodedBatches(cast(TrainBatches, _Same(inputs)), encoder)


def _gathered(stage: nn.Module, blocks: Sequence[nn.Module]) -> int:
    """What a sharded stage has whole for a time: all that is outside of its blocks, with gradients, and the weights of
    two blocks, of which the next one is fetched beside the one at hand, with one's gradients."""
    inside = sorted((_bytes(block.parameters()) for block in blocks), reverse=True)
    outside = _bytes(stage.parameters()) - sum(inside)
    return 2 * outside + sum(inside[:2]) + sum(inside[:1])


def memory_by_stage(
    config: RunConfig, data: DataSpec, prior_data: DataSpec | None = None
) -> dict[str, StepMemory | Exception]:
    """Of the stages that a configuration trains, on each of its ranks; in place of one that is not known, why.

    ``prior_data``: of ``prior_dataset``, where the prior has one. The parts are built anew.
    """
    memory: dict[str, StepMemory | Exception | None] = {}
    if config.stage != "prior" and config.trainer.steps:
        memory["autoencoder"] = _known(lambda: _of_autoencoder(config, data))
    if config.stage != "autoencoder" and config.prior is not None and config.prior_trainer.steps:
        memory[f"prior={config.prior.name}"] = _known(lambda: _of_prior(config, data, prior_data or data))
    return {stage: known for stage, known in memory.items() if known is not None}


def _known(estimate: Callable[[], StepMemory | None]) -> StepMemory | Exception | None:
    try:
        return estimate()
    except Exception as e:  # training will tell what is wrong, if anything
        return e


def _of_autoencoder(config: RunConfig, data: DataSpec) -> StepMemory:
    stage, options = build_stage(config, data, None), _on_its_device(config.trainer)
    return step_memory(stage, _batch(data.shape, data.levels is None, options, data), options, config.trainer.ranks)


def _of_prior(config: RunConfig, stage_one: DataSpec, data: DataSpec) -> StepMemory | None:
    autoencoder, options = build_autoencoder(config, stage_one), _on_its_device(config.prior_trainer)
    code_spec = code_spec_on(autoencoder.quantizer, encoded_grid(autoencoder.encoder, data, autoencoder.quantizer))
    if not code_spec.depth:
        return None
    prior, ranks = build_prior(config, code_spec, data), config.trainer.ranks
    if not any(True for _ in prior.parameters()):
        return None
    if config.trainer.checkpoint_activations:
        checkpoint_activations(prior)
    blocks = prior.blocks_in_order() if config.trainer.shard and ranks > 1 else None
    if config.prior_trainer.encode == "always":
        batch, encoder = _batch(data.shape, data.levels is None, options, data), autoencoder
    else:
        batch, encoder = _batch(code_spec.shape, False, options, data), None
    return step_memory(PriorStage(prior), batch, options, ranks, blocks, encoder)


def _on_its_device(options: Trainer) -> Trainer:
    """With the precision of the device, where this machine has it."""
    try:
        changed: dict[str, Any] = {"precision": resolve_precision(options.precision, choose_device(options.device))}
    except ToolkitError:
        return options
    return replace(options, **changed)


def _batch(shape: tuple[int, ...], real: bool, options: TrainerOptions, data: DataSpec) -> dict[str, Tensor]:
    x = torch.zeros(options.batch_size, *shape, dtype=torch.get_default_dtype() if real else torch.int64)
    return batch_of(x, data.conditions, data.axes[0])


def batch_of(x: Tensor, conditions: Sequence[Condition], length: int) -> dict[str, Tensor]:
    """x ``(batch, …)`` with conditions of their shapes, along a first axis of ``length``."""
    return {"x": x, **{condition.name: _values(condition, len(x), length) for condition in conditions}}


def _values(condition: Condition, n: int, length: int) -> Tensor:
    if condition.text:
        return torch.zeros(n, condition.size, dtype=torch.uint8)
    steps = [condition.steps(length)] if condition.per_step else []
    if condition.real:
        return torch.zeros(n, *steps, condition.size)
    return torch.zeros(n, *steps, dtype=torch.int64)


def _as_written(options: TrainerOptions) -> TrainerOptions:
    """The step operation by operation, of few passes, with a critic that learns from the first one on."""
    changed: dict[str, Any] = {"compile": False, "graph": False, "steps": 2, "accumulate": min(2, options.accumulate)}
    if isinstance(options, AutoencoderTrainerOptions):
        changed["critic_start"] = 0
    return replace(options, **changed)


def _groups(stage: Stage | PriorStage, options: TrainerOptions) -> Any:
    return stage.groups(options) if isinstance(stage, Stage) and isinstance(options, AutoencoderTrainerOptions) else ()


def _without_memory(stage: nn.Module, mode: FakeTensorMode) -> None:
    """Puts fakes in the place of the stage's parameters and buffers; one that has two places stays one."""
    fakes: dict[Tensor, Tensor] = {}
    for module in stage.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = nn.Parameter(mode.from_tensor(parameter.detach()), parameter.requires_grad)
                module._parameters[name] = fakes.setdefault(parameter, fake)  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fakes.setdefault(buffer, mode.from_tensor(buffer))


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Live(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, until they are dropped.

    Of a parameter's gradient that is done one of ``shards`` stays.
    """

    def __init__(self, shards: int) -> None:
        super().__init__()
        self.shards, self.now, self.start, self.done = shards, 0, 0, 0
        self.moving = 0
        """The most beyond what was there at the beginning."""
        self.frozen = 0
        """Bytes of tensors that the operations took and that were there before: nobody trains them."""
        self._activations: int | None = None
        self._known: set[int] = set()
        self._frozen: set[int] = set()
        self._finished: set[Tensor] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and not isinstance(tensor, FakeTensor):
                self.found(tensor)
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return made

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled, and to be kept out of that takes time at every operation."""
        return False

    def found(self, tensor: Tensor) -> None:
        """One that is no fake, and stays."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._frozen:
            self._frozen.add(storage._cdata)
            self.frozen += storage.nbytes()

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place not in self._known:
            self._known.add(place)
            self.now += size
            self.moving = max(self.moving, self.now - self.start - self.done + self.done // self.shards)
            finalize(storage, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size

    def begin(self) -> None:
        """From here on it is counted, with no gradient there."""
        self.start, self.moving, self.done = self.now, 0, 0
        self._finished.clear()

    def accumulated(self, parameter: Tensor) -> None:
        """Called for each parameter whose gradient is done."""
        if parameter not in self._finished:  # a later pass adds to it
            self._finished.add(parameter)
            self.done += _bytes([parameter])

    def unpacked(self, tensor: Tensor) -> Tensor:
        """Called for each tensor that a forward pass has saved, once the backward pass asks for it."""
        if self._activations is None:
            self._activations = self.now - self.start
        return tensor

    @property
    def activations(self) -> int:
        return self._activations or 0


@contextmanager
def _silence() -> Iterator[None]:
    """No log lines of torch's own when a part fails."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    silent, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = silent
