"""What a GPU would refuse, wait for or forget is noticed on the stand-in: by the tests of a run, and by suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from on_stand_in import act, resumed_alike, sampled_alike, train_quietly
from planted import assert_catches
from test_planted_engine import Fault, instead_of, method
from torch import Tensor
from toys import trainers

from toolkit.autoencoder import Autoencoder
from toolkit.causal import sampling
from toolkit.causal.batch import Batch, Examples
from toolkit.causal.network import CausalNetwork
from toolkit.encoder import Encoder
from toolkit.metric import Metric
from toolkit.objective import Bound
from toolkit.running_metrics import RunningMetrics
from toolkit.runs.random_state import set_random_state
from toolkit.spec import DataSpec
from toolkit.testing.accelerator import CaptureError, PlacementError
from toolkit.testing.encoder import EncoderSuite
from toolkit.testing.metric import MetricSuite
from toolkit.testing.parts import PointEncoder

LAW = "it computes on a gpu"
WORDS = ["dataset=waves", "dataset.axes=[32]", "dataset.train_size=16", "dataset.val_size=4", "dim=4"]
WORDS += ["encoder=patch", "decoder=patch", "likelihood=categorical", "quantizer=categorical", "prior=wavenet"]
WORDS += ["prior.hidden=4", "prior.layers=2", "prior_trainer.allow_collapsed=true", "quantizer.codebook_size=8"]
WORDS += trainers("workers=0", "batch_size=4", "validate_examples=4", "steps=2")


def on_the_cpu(reset: Callable[..., None]) -> Callable[..., None]:
    return lambda self, names, device: reset(self, names, torch.device("cpu"))


def asking(add: Callable[..., None]) -> Callable[..., None]:
    def other(self: RunningMetrics, step: int, metrics: dict[str, Tensor]) -> None:
        assert bool(metrics["loss"].isfinite())
        add(self, step, metrics)

    return other


def doubting(inverse: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def other(probs: Tensor, uniform: Tensor) -> Tensor:
        assert bool((probs >= 0).all())
        return inverse(probs, uniform)

    return other


def the_hosts_alone(state: dict[str, Tensor]) -> None:
    set_random_state({name: value for name, value in state.items() if "cuda" not in name})


def reading_the_callers() -> Callable[..., None]:
    restart = Batch.restart

    def other(self: Batch, network: CausalNetwork, examples: Examples) -> None:
        before, noise = self.noise.clone(), self.noise
        restart(self, network, examples)
        self.noise = self.noise.clone()
        noise.copy_(before)

    return other


TRAINING: dict[str, tuple[Fault, type[Exception], str]] = {
    "a statistic on the cpu": (
        method(RunningMetrics, "_reset", on_the_cpu(RunningMetrics._reset)),
        PlacementError,
        "expected all tensors to be on the same device, but they are on cpu and cuda:0",
    ),
    "a question in every step": (
        method(RunningMetrics, "add", asking(RunningMetrics.add)),
        AssertionError,
        "a step waits for the device: .*__bool__",
    ),
}


@pytest.mark.parametrize("fault", TRAINING)
def test_a_step_that_a_gpu_refuses_or_waits_for(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, error, says = TRAINING[fault]
    plant(monkeypatch)
    with pytest.raises(error, match=says):
        train_quietly([*WORDS, "stage=autoencoder"], tmp_path, stages=1)


def test_random_numbers_of_the_device_that_a_resumed_run_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead_of(set_random_state, the_hosts_alone)(monkeypatch)
    with pytest.raises(AssertionError, match="differs after a continuation"):
        resumed_alike(WORDS, tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    act("train", *WORDS, f"hydra.run.dir={folder}")
    sampled_alike(folder)
    return folder


SAMPLING: dict[str, tuple[Fault, type[Exception], str]] = {
    "a question in a captured step": (
        instead_of(sampling.inverse_cdf, doubting(sampling.inverse_cdf)),
        CaptureError,
        "__bool__: not permitted while a graph is captured",
    ),
    "a graph's input that moves": (
        method(Batch, "restart", reading_the_callers()),
        AssertionError,
        "samples through captured graphs are not those of the CPU",
    ),
}


@pytest.mark.parametrize("fault", SAMPLING)
def test_a_graph_that_asks_or_reads_what_moves(trained: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, error, says = SAMPLING[fault]
    plant(monkeypatch)
    with pytest.raises(error, match=says):
        sampled_alike(trained)


# -- a plugin's part


class EncoderCase(EncoderSuite):
    data: ClassVar[DataSpec] = DataSpec(2, (3, 4), levels=5)

    def __init__(self, part: type[PointEncoder] = PointEncoder) -> None:
        self.of = part

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return self.of(data, dim)


class OnTheCPU(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.linspace(0, 1, x.shape[-1])


class NoBuffer(PointEncoder):
    """A tensor that a module does not know of stays where it was."""

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__(data, dim)
        self.scale = torch.ones(dim, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class Asking(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z / max(1.0, z.detach().abs().max().item()) if self.training else z


class LeftBehind(PointEncoder):
    """Keeps a figure of the last batch where no batch is."""

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__(data, dim)
        self.largest: Tensor
        self.register_buffer("largest", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.largest = torch.ones(1)
        return super().forward(x)


class Uncounted(PointEncoder):
    """Gives its output back to the host."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).cpu()


@pytest.mark.parametrize("part", [OnTheCPU, NoBuffer, Asking, LeftBehind, Uncounted])
def test_encoders(part: type[PointEncoder]) -> None:
    assert_catches(EncoderCase(), EncoderCase(part), LAW)


class MeanNats(Metric):
    """Mean nats of the data, to be broken."""

    def __init__(self, model: Autoencoder) -> None:
        self.total, self.examples = torch.zeros((), dtype=torch.float64), 0

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total += output.data_nats.cpu().double().sum()
        self.examples += len(x)

    def compute(self) -> dict[str, float]:
        return {"nats": float(self.total) / self.examples} if self.examples else {}


class Stacking(MeanNats):
    """Joins what lies on the device with what does not."""

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total = torch.cat([self.total[None], output.data_nats.double()]).sum()
        self.examples += len(x)


class MetricCase(MetricSuite):
    def __init__(self, part: type[MeanNats] = MeanNats) -> None:
        self.of = part

    def make(self, model: Autoencoder) -> Metric:
        return self.of(model)


def test_metrics() -> None:
    assert_catches(MetricCase(), MetricCase(Stacking), LAW)
