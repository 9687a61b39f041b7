"""Metrics and pictures in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from operator import methodcaller
from pathlib import Path
from typing import Any, final

from toolkit.logger import Logger, Status


@final
class TensorBoardLogger(Logger):
    """TensorBoard's files: metrics as ``STAGE/SPLIT/NAME``, pictures as ``STAGE/samples``.

    They are in the run's folder ``tensorboard``. Needs the extra of that name.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / "tensorboard"
        self._open = _summary_writer()
        self._writer: Any = None

    @classmethod
    def missing_dependencies(cls) -> list[str]:
        try:
            _summary_writer()
        except ValueError as error:
            return [str(error)]
        return []

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._opened().add_scalar(f"{stage}/{split}/{name}", value, step)

    def picture(self, stage: str, step: int, path: Path) -> None:
        import numpy as np
        from PIL.Image import open as opened  # comes with matplotlib

        with opened(path) as file:
            rgb = np.array(file.convert("RGB"))
        methodcaller("add_image", f"{stage}/samples", rgb, step, dataformats="HWC")(self._opened())

    def close(self, status: Status) -> None:
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> Any:
        if self._writer is None:
            self._writer = self._open(str(self._folder))
        return self._writer


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise ValueError("needs the extra: pip install 'discrete-toolkit[tensorboard]'") from e
    return SummaryWriter
