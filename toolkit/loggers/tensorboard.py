"""Metrics, pictures, sound, film and histograms in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from toolkit.logger import Logger, Status

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.spec import DataSpec

MEDIA = 4
"""Sounds and films of each kind."""
BINS = 512
"""Of a histogram that is sent, at most."""
FRAMES_PER_SECOND = 8.0
"""Of films whose data has no rate."""


@final
class TensorBoardLogger(Logger):
    """TensorBoard's files: metrics as ``STAGE/SPLIT/NAME``, pictures as ``STAGE/samples``, sound and film as
    ``STAGE/original``, ``…/reconstruction`` and ``…/sample``, how often each code is taken as ``STAGE/codes_1`` and so
    on, and, when training ends, the run's options as hyperparameters with the last figures of each validation.

    They are in the run's folder ``tensorboard``. Needs the extra of that name.
    """

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self._folder, self._config = run / "tensorboard", config
        self._open = _summary_writer()
        self._writer: Any = None
        self._figures: dict[str, float] = {}
        """Of the last validation of each stage."""

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
            if split == "val":
                self._figures[f"{stage}/{split}/{name}"] = value

    def picture(self, stage: str, step: int, path: Path) -> None:
        import numpy as np
        from PIL.Image import open as opened  # comes with matplotlib

        with opened(path) as file:
            rgb = np.array(file.convert("RGB"))
        methodcaller("add_image", f"{stage}/samples", rgb, step, dataformats="HWC")(self._opened())

    def examples(self, stage: str, step: int, examples: Mapping[str, Tensor], data: DataSpec) -> None:
        if not data.ordered or data.rank not in (1, 3):
            return
        rate = data.rates[0] if data.rates else None
        for name, x in examples.items():
            for i, example in enumerate(data.scale(x[:MEDIA])):
                tag = f"{stage}/{name}/{i}"
                if data.rank == 3:
                    self._add_film(tag, example, rate or FRAMES_PER_SECOND, step)
                elif rate:
                    sound = example.float().mean(0).clamp(-1, 1)
                    methodcaller("add_audio", tag, sound, step, sample_rate=round(rate))(self._opened())

    def histograms(self, stage: str, step: int, counts: Mapping[str, Tensor]) -> None:
        for name, bins in counts.items():
            methodcaller("add_histogram_raw", f"{stage}/{name}", **_histogram(bins), global_step=step)(self._opened())

    def close(self, status: Status) -> None:
        if self._writer is None:
            return
        from torch.utils.tensorboard.summary import hparams

        options = {
            key: value if isinstance(value, bool | int | float) else str(value) for key, value in _flat(self._config)
        }
        for summary in hparams(options, self._figures) if self._figures else ():
            self._writer.file_writer.add_summary(summary)
        self._writer.close()
        self._writer = None

    def _add_film(self, tag: str, example: Tensor, rate: float, step: int) -> None:
        """As a GIF, which TensorBoard shows among the pictures."""
        summaries = import_module("tensorboard.compat.proto.summary_pb2")
        height, width = example.shape[-2:]
        entry = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": _gif(example, rate)}
        summary = summaries.Summary(value=[{"tag": tag, "image": entry}])
        self._opened().file_writer.add_summary(summary, step)

    def _opened(self) -> Any:
        if self._writer is None:
            self._writer = self._open(str(self._folder))
        return self._writer


def _gif(example: Tensor, rate: float) -> bytes:
    """A film ``(channels, frames, height, width)`` in [-1, 1]."""
    from io import BytesIO

    from PIL.Image import fromarray

    levels = ((example.float() + 1) * 127.5).round().clamp(0, 255).byte()
    rgb = levels[:3] if len(levels) >= 3 else levels[:1].expand(3, -1, -1, -1)
    frames = [fromarray(frame) for frame in rgb.permute(1, 2, 3, 0).numpy()]
    file = BytesIO()
    others = {"append_images": frames[1:]}
    frames[0].save(file, "GIF", save_all=True, duration=max(20, round(1000 / rate)), loop=0, **others)
    return file.getvalue()


def _histogram(counts: Tensor) -> dict[str, Any]:
    """What TensorBoard asks of a histogram over the numbers of the bins."""
    import torch

    numbers = torch.arange(len(counts), dtype=torch.double)
    merged = torch.stack([part.sum() for part in counts.double().tensor_split(min(BINS, len(counts)))])
    ends = torch.stack([part[-1] for part in numbers.tensor_split(len(merged))])
    taken = numbers[counts > 0]
    return {
        "min": float(taken.min()) if len(taken) else 0.0,
        "max": float(taken.max()) if len(taken) else 0.0,
        "num": float(counts.sum()),
        "sum": float((numbers * counts).sum()),
        "sum_squares": float((numbers.square() * counts).sum()),
        "bucket_limits": ends.tolist(),
        "bucket_counts": merged.tolist(),
    }


def _flat(values: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and their values."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        if f"{path}{key}" == "experiment.instead_of":  # the run has other values than these
            continue
        pairs += _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else [(f"{path}{key}", value)]
    return pairs


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise ValueError("needs the extra: pip install 'discrete-toolkit[tensorboard]'") from e
    return SummaryWriter
