"""The interface of loggers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.spec import DataSpec

Status = Literal["done", "failed", "stopped"]
"""How a training ended; stopped: by the user."""


class Logger(ABC):
    """Where the progress of a run goes besides its own log: a file format, a service.

    The constructor may ask for ``run: Path``, the run's folder, and ``config: Mapping[str, Any]``, the run's whole
    configuration as plain values. It raises where the logger cannot work, such as without its package, and writes
    nothing: the folder may not exist yet. What the calls write is in the folder, or elsewhere, and is no link.

    A failure costs no training: where a call raises, the user is told, and only ``close`` is still called. Of several
    ranks, rank 0 alone has loggers. A run that is continued has new ones, over the same folder, and the steps since
    its last checkpoint are logged again.

    Laws, checked by toolkit.testing.LoggerSuite:
      the constructor writes nothing
      calls come in any order, with metrics of any name; a second ``close`` does nothing
      what it is given is not changed, and no random numbers are drawn
    """

    @abstractmethod
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        """Called for each line of the run's ``metrics.jsonl``: a stage such as ``autoencoder`` or ``prior-NAME``, a
        split, and its metrics by name, at an optimizer step of the stage."""

    def picture(self, stage: str, step: int, path: Path) -> None:
        """Called for each picture that training has plotted, such as reconstructions, with the file that it is in."""
        return

    def examples(self, stage: str, step: int, examples: Mapping[str, Tensor], data: DataSpec) -> None:
        """Called with what each picture shows, ``(n, channels, *axes)`` on the CPU in the data's own form: ``original``
        and ``reconstruction``, or ``sample``. For sound and film, which no picture holds; ``data.rates`` has their
        positions per second, and ``data.scale`` brings them to [-1, 1]."""
        return

    def histograms(self, stage: str, step: int, counts: Mapping[str, Tensor]) -> None:
        """Called after each validation with what its metrics have counted, ``(bins,)`` by name: ``codes_1`` is how
        often each entry of the first depth was taken."""
        return

    def checkpoint(self, stage: str, step: int, folder: Path) -> None:
        """Called for each checkpoint that a stage has saved, with its folder, which training deletes in its time: who
        wants to keep it copies it."""
        return

    def close(self, status: Status) -> None:
        """Called once, when training has ended, however it ended."""
        return
