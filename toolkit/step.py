"""One step of training: its forward and backward passes and its update, as they are written or as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, cast, final

import torch
from torch import Tensor, nn

from toolkit.batches import Batch
from toolkit.critic import Critic, frozen, share
from toolkit.device import autocast, keep_memory
from toolkit.distributed import no_sync, ranks, wrap_ddp
from toolkit.errors import ToolkitError
from toolkit.objectives.shares import trace_gradients
from toolkit.optimization import Optimization
from toolkit.options import TrainerOptions
from toolkit.running_metrics import mean_metrics
from toolkit.sharding import is_sharded

Metrics = dict[str, Tensor]

WARM_UP = 2
"""Steps that are taken as they are written before one is captured: the first initializes codebooks and the optimizer's
moments, the next is compiled, if that is asked for, and both fill the caches of the libraries that a GPU computes with.
"""


class Step(Protocol):
    """Takes the batches that it needs from an endless supply, and returns the metrics of the update, 0-d."""

    def __call__(self, batches: Iterator[Batch]) -> Metrics: ...


def step_of(
    stage: nn.Module, metrics: Callable[..., Metrics], optimization: Optimization, device: torch.device
) -> Step:
    """The step of a stage; ``metrics`` says what of a pass's output and its x is reported, and
    gets its mask, too, where examples are padded.

    ToolkitError where the options ask for a graph and it cannot be captured.
    """
    options = optimization.options
    check_graph(options, device)
    keep_memory(device)
    critic = Critic.of(stage, optimization)
    with frozen(critic.module if critic else None):
        forward = _wrapped(stage, options)
    plain = PlainStep(forward, metrics, optimization, critic)
    return CapturedStep(plain, stage) if options.graph else plain


def check_graph(options: TrainerOptions, device: torch.device, trainer: str = "") -> None:
    """ToolkitError where a step is to be captured, and cannot be; ``trainer`` is where the options stand."""
    if not options.graph:
        return
    if device.type != "cuda":
        raise ToolkitError(f"{trainer}graph=true needs device=cuda, and this runs on {device}: leave it out")
    check_capture(options, ranks(), trainer)


def check_capture(options: TrainerOptions, count: int, trainer: str = "") -> None:
    """The same of so many ranks, on whatever device."""
    if not options.graph:
        return
    if count > 1:
        raise ToolkitError(
            f"{trainer}graph=true with trainer.ranks={count}: the gradients' averaging over ranks is not captured;"
            " choose graph=false, compile=true makes fewer launches, too"
        )
    if options.optimizer == "muon":
        raise ToolkitError(
            f"{trainer}graph=true with optimizer=muon: a graph would keep the learning rate of one step; choose adam,"
            " adamw or sgd, or graph=false"
        )


@final
@dataclass(frozen=True)
class PlainStep:
    """A step, operation by operation."""

    forward: nn.Module
    """The stage, as the loop calls it."""
    metrics: Callable[..., Metrics]
    optimization: Optimization
    critic: Critic | None = None

    def __call__(self, batches: Iterator[Batch]) -> Metrics:
        with self._uncompiled():
            metrics = self.passes(batches)
        return {**metrics, **self.optimization.update()}

    def passes(self, batches: Iterator[Batch]) -> Metrics:
        """All gradients of a step, added up in the parameters; returns the passes' mean metrics."""
        options, critic, parts = self.optimization.options, self.critic, []
        for number in range(options.accumulate):
            batch = next(batches)
            self.optimization.intact = False
            with no_sync(self.forward, number + 1 < options.accumulate), frozen(critic.module if critic else None):
                with autocast(batch.x.device, options.precision):
                    output = self.forward(batch.x, batch.conditions, *_mask(batch))
                self.optimization.scaled(share(output.loss, options.accumulate)).backward()
            parts.append(self.metrics(output, batch.x, *_mask(batch)))
            if critic:
                parts[-1].update(critic.learn(output, batch))
            del output, batch  # frees their memory for the next pass
        if critic:
            critic.average()
        return mean_metrics(parts)

    def _uncompiled(self) -> AbstractContextManager[Any]:
        """The step that initializes codebooks would be a graph of its own, compiled to be used once.

        A run that continues is past it, and compiles at once, so that its numbers are those of an uninterrupted run.
        """
        if self.optimization.options.compile and not self.optimization.step:
            stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
            return stance
        return nullcontext()


@final
class CapturedStep:
    """A step as one CUDA graph: forward and backward passes, clipping and the optimizer's update are a single launch.

    The first ``WARM_UP`` steps are taken as they are written; the next is captured, which runs nothing, and replayed,
    as are all later ones. Where the shapes of the batches change, or the critic begins to learn, it starts anew. What a
    graph cannot know is done outside it: the batches are copied to where it reads them, and the learning rate is
    written to its tensor, before it; the parts are told the step, and the weights' averages move on, after it.
    """

    def __init__(self, plain: PlainStep, stage: nn.Module) -> None:
        self.plain, self.stage = plain, stage
        # what autograd keeps of a stream is then that of the graph, too
        self.stream = torch.cuda.Stream()
        self._key: object = None
        self._warm = 0
        self._graph: _Graph | None = None

    def __call__(self, batches: Iterator[Batch]) -> Metrics:
        optimization, critic = self.plain.optimization, self.plain.critic
        passes = list(islice(batches, optimization.options.accumulate))
        key = (tuple(map(_shapes, passes)), critic is not None and critic.learns)
        if key != self._key:
            self._key, self._warm, self._graph = key, 0, None
        if self._warm < WARM_UP:
            self._warm += 1
            return self._aside(passes)
        optimization.schedule()
        if self._graph is None:
            self._graph = _Graph(self.plain, self.stage, passes, self.stream)
        optimization.intact = False
        metrics = self._graph(passes)
        before = _fixed(*optimization.informed)
        optimization.conclude()
        _refuse_changes("at_step", before, _fixed(*optimization.informed))
        return metrics

    def _aside(self, passes: list[Batch]) -> Metrics:
        """A step as it is written, on the stream of the graph to come."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            metrics = self.plain(iter(passes))
        torch.cuda.current_stream().wait_stream(self.stream)
        return metrics


@final
class _Graph:
    """The passes and the update of a step, captured."""

    def __init__(self, plain: PlainStep, stage: nn.Module, passes: list[Batch], stream: torch.cuda.Stream) -> None:
        self.inputs = [
            Batch({name: t.clone() for name, t in _tensors(batch).items()}, batch.x.device) for batch in passes
        ]
        self.graph, before = torch.cuda.CUDAGraph(), _fixed(stage)
        # Only this thread is forbidden what a capture does not allow: the loader's pins memory meanwhile.
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            metrics = {**plain.passes(iter(self.inputs)), **plain.optimization.apply()}
            self.values = torch.stack([value.detach().float() for value in metrics.values()])
        self.names = tuple(metrics)
        _refuse_changes("forward", before, _fixed(stage))

    def __call__(self, passes: list[Batch]) -> Metrics:
        """The metrics are copies: the next replay writes over what the graph computes."""
        for own, batch in zip(self.inputs, passes, strict=True):
            for name, tensor in _tensors(batch).items():
                _tensors(own)[name].copy_(tensor, non_blocking=True)
        self.graph.replay()
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))


def _mask(batch: Batch) -> tuple[Tensor, ...]:
    """What a pass is told besides, where examples of unequal lengths are padded."""
    return () if batch.mask is None else (batch.mask,)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {"x": batch.x, **batch.conditions}


def _copy(batch: Batch) -> Batch:
    return Batch({name: tensor.clone() for name, tensor in _tensors(batch).items()}, batch.x.device)


def _shapes(batch: Batch) -> tuple[Any, ...]:
    return tuple((name, t.shape, t.dtype) for name, t in _tensors(batch).items())


Facts = dict[tuple[nn.Module, str], tuple[Any]]
"""By module and attribute; a number is in a tuple, which equals itself though the number is NaN."""


def _fixed(*modules: nn.Module) -> Facts:
    """What a graph takes for constant: where a module's tensors lie, and its plain numbers, switches and texts."""
    facts: Facts = {}
    for module in {part for root in modules for part in root.modules()}:
        own = {**vars(module), **module._parameters, **module._buffers}
        for name, value in own.items():
            if isinstance(value, Tensor):
                facts[module, name] = (value.data_ptr(),)
            elif isinstance(value, int | float | str | None):
                facts[module, name] = (value,)
    return facts


def _refuse_changes(act: str, before: Facts, after: Facts) -> None:
    """ToolkitError, naming module and attribute, where what a graph takes for constant has changed."""
    for module, name in {**after, **before}:
        if before.get((module, name)) != after.get((module, name)):
            raise ToolkitError(
                f"graph=true: {act} of {type(module).__name__} sets {name} anew, and a graph keeps what it was when the"
                " step was captured; write it into a buffer in place (copy_, fill_), or choose graph=false"
            )


def _wrapped(stage: nn.Module, options: TrainerOptions) -> nn.Module:
    """The stage as the loop calls it: compiled where asked for, gradients averaged over the ranks.

    A sharded one averages its own.
    """
    if is_sharded(stage):
        return stage
    if not options.compile:
        return wrap_ddp(stage)
    quantizer = getattr(getattr(stage, "model", None), "quantizer", None)
    trace_gradients(stage)
    if ranks() > 1 and quantizer is not None:
        # Each rank compiles by itself: the collectives could end up in another order on each, and deadlock.
        quantizer.forward = torch.compiler.disable(quantizer.forward)
    # not with graphs of its own, which would write over what a step still reads: graph=true captures all of a step
    mode = "max-autotune-no-cudagraphs" if options.compile == "max" else None
    return wrap_ddp(cast(nn.Module, torch.compile(stage, mode=mode)))
