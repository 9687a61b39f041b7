"""How training reports its progress: the interface, and plain implementations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, final

from toolkit.errors import ToolkitError

SHOWN = ("loss", "nll", "nmse", "mse", "batch_perplexity", "bits_per_dim", "code_bits_per_dim", "perplexity")
"""Metrics worth a place in a line, in this order."""


class Report(Protocol):
    """Receives the progress of a run while it is trained."""

    def begin(self, stage: str, done: int, steps: int) -> None:
        """A long task begins: ``done`` of its ``steps`` are done already."""

    def step(self, done: int) -> None:
        """``done`` of the task's steps are done."""

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics logged at a step."""

    def note(self, text: str) -> None:
        """Something the user should know."""


@final
class Silence:
    """Reports nothing."""

    def begin(self, stage: str, done: int, steps: int) -> None: ...

    def step(self, done: int) -> None: ...

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...


@final
class Lines:
    """A printed line for everything that is logged."""

    def __init__(self) -> None:
        self._stage = ""

    def begin(self, stage: str, done: int, steps: int) -> None:
        self._stage = stage
        self.note(f"{stage}: from {done} to {steps}")

    def step(self, done: int) -> None: ...

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.note(f"{self._stage} {split} {step}: {brief(metrics)}")

    def note(self, text: str) -> None:
        print(text, flush=True)


def brief(metrics: Mapping[str, float]) -> str:
    """The metrics worth a line."""
    speed = metrics.get("steps_per_second")
    words = [f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics]
    return "  ".join(words + ([f"{speed:.3g} steps/s"] if speed else []))


@final
class TensorBoard:
    """A report that also writes metrics to TensorBoard, as ``STAGE/SPLIT/NAME``."""

    def __init__(self, report: Report, writer: Any) -> None:
        self._report, self._writer, self._stage = report, writer, ""

    def begin(self, stage: str, done: int, steps: int) -> None:
        self._stage = stage
        self._report.begin(stage, done, steps)

    def step(self, done: int) -> None:
        self._report.step(done)

    def metrics(self, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self._report.metrics(split, step, metrics)
        for name, value in metrics.items():
            self._writer.add_scalar(f"{self._stage}/{split}/{name}", value, step)

    def note(self, text: str) -> None:
        self._report.note(text)


def require_tensorboard() -> Any:
    """TensorBoard's writer; ToolkitError where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise ToolkitError("tensorboard=true needs the extra: pip install 'discrete-toolkit[tensorboard]'") from e
    return SummaryWriter


@contextmanager
def with_tensorboard(report: Report, folder: Path) -> Iterator[Report]:
    """A report that also writes TensorBoard's files to a folder, open for the block."""
    writer = require_tensorboard()(str(folder))
    try:
        yield TensorBoard(report, writer)
    finally:
        writer.close()
