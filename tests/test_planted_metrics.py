"""The suite of metrics catches what goes wrong in parts of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import assert_catches
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.metric import Metric
from toolkit.objective import Bound
from toolkit.testing.metric import MetricSuite


class MeanNats(Metric):
    """Mean nats of the data, to be broken."""

    def __init__(self, model: Autoencoder) -> None:
        self.total, self.examples = 0.0, 0

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total += float(output.data_nats.double().sum())
        self.examples += len(x)

    def compute(self) -> dict[str, float]:
        return {"nats": self.total / self.examples} if self.examples else {}


class MetricCase(MetricSuite):
    def __init__(self, part: type[MeanNats] = MeanNats) -> None:
        self.of = part

    def make(self, model: Autoencoder) -> Metric:
        return self.of(model)


class MeanOfBatches(MeanNats):
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total += float(output.data_nats.mean())
        self.examples += 1


class LastBatch(MeanNats):
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total, self.examples = float(output.data_nats.double().sum()), len(x)


class LosingTheLastExample(MeanNats):
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total += float(output.data_nats[:-1].double().sum())
        self.examples += len(x)


class Resetting(MeanNats):
    def compute(self) -> dict[str, float]:
        made = super().compute()
        self.total = 0.0
        return made


class TensorFigures(MeanNats):
    def compute(self) -> dict[str, float]:
        return {name: torch.tensor(value) for name, value in super().compute().items()}  # type: ignore[misc]


class NotANumber(MeanNats):
    def compute(self) -> dict[str, float]:
        return {**super().compute(), "ratio": nan}


class DividingByZero(MeanNats):
    def compute(self) -> dict[str, float]:
        return {"nats": self.total / self.examples}


class SilentPictures(MeanNats):
    def plot(self, folder: Path) -> list[Path]:
        (folder / "nats.png").write_bytes(b"")
        return []


class BareWarning(MeanNats):
    def warnings(self) -> list[str]:
        return [""] if self.examples else []


class JudgingSamples(MeanNats):
    """And the mean of samples."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__(model)
        self.sum, self.samples = 0.0, 0

    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        self.sum += float(x.double().sum())
        self.samples += len(x)

    def compute(self) -> dict[str, float]:
        return {**super().compute(), **({"sample_mean": self.sum / self.samples} if self.samples else {})}


class LastSamples(JudgingSamples):
    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        self.sum, self.samples = float(x.double().sum()), len(x)


class TakingSamplesForData(JudgingSamples):
    def update_samples(self, x: Tensor, conditions: Mapping[str, Tensor]) -> None:
        super().update_samples(x, conditions)
        self.examples += len(x)


class UnheardSamples(JudgingSamples):
    def compute(self) -> dict[str, float]:
        return MeanNats.compute(self)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (MeanOfBatches, "order and batching do not matter"),
        (LastBatch, "order and batching do not matter"),
        (LosingTheLastExample, "order and batching do not matter"),
        (Resetting, "computing twice changes nothing"),
        (TensorFigures, "metrics are finite numbers"),
        (NotANumber, "metrics are finite numbers"),
        (DividingByZero, "it works without an update"),
        (SilentPictures, "plots are written to the folder"),
        (BareWarning, "warnings are sentences"),
        (LastSamples, "order and batching do not matter"),
        (TakingSamplesForData, "samples are figures of their own"),
        (UnheardSamples, "samples are figures of their own"),
    ],
)
def test_a_broken_metric_is_caught(broken: type[MeanNats], law: str, tmp_path: Path) -> None:
    words: dict[str, Any] = {"groups": [[11, 3, 0, 7, 5], [1], [2, 4, 6, 8, 9, 10]]} if "order" in law else {}
    if law in ("it works without an update", "plots are written to the folder"):
        words = {"tmp_path": tmp_path}
    whole = JudgingSamples if issubclass(broken, JudgingSamples) else MeanNats
    assert_catches(MetricCase(whole), MetricCase(broken), law, **words)
