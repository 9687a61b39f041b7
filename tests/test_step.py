"""A step of training as one graph: the same bits as operation by operation, and what it cannot be made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from messages import assert_names
from safetensors.torch import load_file
from torch import Tensor, nn

from toolkit import ToolkitError
from toolkit.batches import Batch, TrainBatches
from toolkit.build import build_stage
from toolkit.cli.config.compose import compose
from toolkit.config import RunConfig
from toolkit.model import open_dataset
from toolkit.optimization import Optimization
from toolkit.options import AutoencoderTrainerOptions, TrainerOptions
from toolkit.runs.checkpoint import newest
from toolkit.runs.folder import Run
from toolkit.runs.saving import save
from toolkit.stages.recorder import CLOCKED
from toolkit.stages.run import train
from toolkit.step import WARM_UP, Step, check_graph, step_of
from toolkit.testing.accelerator import StandIn, stand_in
from toolkit.training import StepLoss, train_steps

GPU, STEPS = torch.device("cuda", 0), 7
SMALL = [
    *("dataset=waves", "dataset.train_size=32", "dataset.val_size=4", "dataset.axes=[8,8]", "likelihood=categorical"),
    *("encoder=patch", "encoder.hidden=8", "decoder=patch", "decoder.hidden=8", "dim=4"),
    *("trainer.batch_size=4", "prior_trainer.batch_size=4"),
]
STAGES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "vq, all options": (
        ["quantizer=vq", "quantizer.init=kmeans", "quantizer.dead_code_threshold=0.5"],
        {"clip": 0.5, "schedule": "cosine", "warmup": 3, "ema": 0.9, "accumulate": 2, "optimizer": "adamw"},
    ),
    "ema, bf16": (["quantizer=ema"], {"precision": "bf16"}),
    "categorical, sgd": (["quantizer=categorical", "quantizer.anneal_steps=5"], {"optimizer": "sgd"}),
}


@pytest.fixture
def gpu() -> Iterator[StandIn]:
    with stand_in() as device:
        yield device


def trained(config: RunConfig, device: StandIn, **options: Any) -> tuple[Optimization, list[dict[str, Tensor]]]:
    """Stage one after its steps, with the metrics of each."""
    dataset = open_dataset(config)
    torch.manual_seed(0)
    stage = build_stage(config, dataset.spec, None).to(GPU)
    settings = replace(config.trainer, steps=STEPS, **options)
    optimization = Optimization(stage, settings, stage.groups(settings))
    batches = TrainBatches(dataset, GPU, batch_size=4, seed=0)
    torch.manual_seed(1)
    device.seed_all(1)
    return optimization, list(train_steps(stage, batches, optimization))


def everything(optimization: Optimization) -> dict[str, Tensor]:
    tensors = {**optimization.module.state_dict(), **optimization.state(), "random": torch.cuda.get_rng_state()}
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.few(1)
def test_a_captured_step_has_the_bits_of_a_plain_one(name: str, gpu: StandIn) -> None:
    words, options = STAGES[name]
    config = compose([*SMALL, *words]).config
    plain, expected = trained(config, gpu, **options)
    bits = everything(plain)
    gpu.graphs.clear()
    captured, metrics = trained(config, gpu, graph=True, **options)
    assert_same(everything(captured), bits)
    for own, wanted in zip(metrics, expected, strict=True):  # all of them: those of a step are not written over
        assert {name: float(value) for name, value in own.items()} == {n: float(v) for n, v in wanted.items()}
    (graph,) = gpu.graphs
    assert (graph.replays, graph.error_mode) == (STEPS - WARM_UP, "thread_local")


def test_a_captured_step_asks_the_device_nothing(gpu: StandIn) -> None:
    dataset = open_dataset(config := compose([*SMALL, "quantizer=ema"]).config)
    stage = build_stage(config, dataset.spec, None).to(GPU)
    optimization = Optimization(stage, replace(config.trainer, steps=9, graph=True, clip=1.0))
    waits, operations = list[int](), list[int]()
    for _ in train_steps(stage, TrainBatches(dataset, GPU, batch_size=4, seed=0), optimization):
        waits.append(gpu.waits.total())
        operations.append(gpu.operations.total())
    assert waits[WARM_UP:] == [waits[WARM_UP]] * (9 - WARM_UP), gpu.waits
    # copies of the batch, a learning rate, the replay, a copy of the metrics
    assert operations[-1] - operations[-2] < 8, gpu.operations


@pytest.mark.long
def test_a_captured_run_that_is_stopped_goes_on_to_the_same_bits(gpu: StandIn, tmp_path: Path) -> None:
    """Validations and pictures, which draw and sample on the device, in between."""
    words = [*SMALL, "quantizer=vq", "prior=pixelcnn", "prior.hidden=8", "prior.layers=1", "prior.dropout=0.1"]
    for trainer in ("trainer", "prior_trainer"):
        words += [f"{trainer}.{word}" for word in ("graph=true", "ema=0.9", "log_every=2", "validate_every=4")]
    words += ["prior_trainer.allow_collapsed=true"]
    runs = [Run(tmp_path / "whole"), Run(tmp_path / "parts")]
    for run, first in zip(runs, (8, 5), strict=True):
        for steps in sorted({first, 8}):
            train(compose([*words, f"trainer.steps={steps}", f"prior_trainer.steps={steps}"]).config, run.path)
    for folder in (Path("autoencoder"), Path("priors/pixelcnn")):
        for file in ("model.safetensors", "state.safetensors"):
            one, other = (load_file(run.path / folder / "step-00000008" / file) for run in runs)
            assert_same(one, other)
    whole, parts = ([line for line in figures(run) if line["step"] == 8] for run in runs)
    assert whole == parts
    captured = [graph for graph in gpu.graphs if graph.replays > 2]
    assert len(captured) >= 2, "no step was captured"


def figures(run: Run) -> list[dict[str, object]]:
    return [{k: v for k, v in line.items() if k not in CLOCKED} for line in run.log]


class Toy(nn.Module):
    """A stage of one matrix; ``act`` is called in its forward pass."""

    def __init__(self, act: Callable[[Toy], None] = lambda toy: None) -> None:
        super().__init__()
        self.layer, self.act, self.weight, self.calls = nn.Linear(3, 1), act, 1.0, 0
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> StepLoss:
        self.act(self)
        return StepLoss((self.weight * self.layer(x)).float().square().mean())


class Annealed(Toy):
    """It is told the step, and keeps what depends on it as a number."""

    def at_step(self, step: int) -> None:
        self.weight = 1 / (1 + step)


def toy_step(toy: Toy, **options: Any) -> Step:
    optimization = Optimization(toy.to(GPU), TrainerOptions(steps=99, graph=True, **options))
    return step_of(toy, lambda output, x: {"loss": output.loss.detach()}, optimization, GPU)


def take(step: Step, size: int = 4) -> None:
    step(iter([Batch({"x": torch.ones(size, 3)}, GPU)] * 2))


def test_it_is_captured_anew_where_shapes_change(gpu: StandIn) -> None:
    step = toy_step(Toy())
    for size in [4] * 5 + [2] * 6:
        take(step, size)
    assert [graph.replays for graph in gpu.graphs] == [5 - WARM_UP, 6 - WARM_UP]


def anew(toy: Toy) -> None:
    toy.seen = toy.seen + 1


def count(toy: Toy) -> None:
    toy.calls += 1


@pytest.mark.parametrize(
    ("toy", "facts"),
    [
        (Toy(anew), "graph=true: forward of Toy sets seen anew … graph=false"),
        (Toy(count), "graph=true: forward of Toy sets calls anew … graph=false"),
        (Annealed(), "graph=true: at_step of Annealed sets weight anew … graph=false"),
    ],
    ids=["a buffer", "a number", "an annealed number"],
)
def test_what_a_graph_would_not_follow_is_refused_by_name(toy: Toy, facts: str, gpu: StandIn) -> None:
    step = toy_step(toy)
    for _ in range(WARM_UP):
        take(step)
    with pytest.raises(ToolkitError) as error:
        take(step)
    assert_names(str(error.value), facts)


def test_a_graph_is_refused_where_none_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError) as error:
        train(compose([*SMALL, "prior_trainer.graph=true"]).config, tmp_path)
    assert_names(str(error.value), "prior_trainer.graph=true … device=cuda … cpu")
    with pytest.raises(ToolkitError) as error:
        check_graph(TrainerOptions(graph=True, optimizer="muon"), GPU, "trainer.")
    assert_names(str(error.value), "trainer.graph=true … optimizer=muon … adam")
    monkeypatch.setattr("toolkit.step.ranks", lambda: 2)
    with pytest.raises(ToolkitError) as error:
        check_graph(AutoencoderTrainerOptions(graph=True), GPU, "trainer.")
    assert_names(str(error.value), "trainer.graph=true … trainer.ranks=2 … graph=false")


@pytest.mark.long
def test_one_graph_is_compiled_and_not_of_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step of a vq model, which initializes its entries, would be another graph."""
    compiled, modes, make = list[int](), list[object](), torch.compile

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        compiled.append(optimization.step)  # of the loop below
        return graph.forward

    def compile_by(module: nn.Module, mode: str | None) -> object:
        modes.append(mode)
        return make(module, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_by)
    dataset = open_dataset(config := compose([*SMALL, "quantizer=vq", "trainer.compile=max"]).config)
    state: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for start, steps in ((0, 3), (3, 5)):  # a run that continues is past its first step
        torch._dynamo.reset()
        stage = build_stage(config, dataset.spec, None)
        optimization = Optimization(stage, replace(config.trainer, steps=steps))
        if start:
            stage.load_state_dict(weights)
            optimization.load(state, start)
        for _ in train_steps(stage, TrainBatches(dataset, torch.device("cpu"), batch_size=4, seed=0), optimization):
            pass
        weights, state = stage.state_dict(), optimization.state()
    assert compiled == [1, 3]
    assert modes == ["max-autotune-no-cudagraphs"] * 2


def small_toy() -> Toy:
    """Its gradients, times the first scales, are float16's."""
    toy = Toy()
    nn.init.constant_(toy.layer.weight, 0.1)
    nn.init.zeros_(toy.layer.bias)
    return toy


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_float16_step_with_an_infinite_gradient_is_skipped(optimizer: Literal["adam", "sgd"]) -> None:
    toy, cpu = small_toy(), torch.device("cpu")
    optimization = Optimization(toy, TrainerOptions(steps=9, precision="fp16", optimizer=optimizer, clip=1.0))
    step = step_of(toy, lambda output, x: {"loss": output.loss.detach()}, optimization, cpu)

    def taken(x: float) -> dict[str, float]:
        batch = Batch({"x": torch.full((2, 3), x)}, cpu)
        return {name: float(value) for name, value in step(iter([batch])).items()}

    def state() -> dict[str, Tensor]:
        return {name: t.clone() for name, t in {**toy.state_dict(), **optimization.state()}.items()}

    first = taken(1.0)
    assert (first["skipped"], first["loss_scale"]) == (0, 65536)
    assert 0 < first["grad_norm"] < 2  # of the loss itself
    before = state()
    skipped = taken(60.0)  # its gradient times the scale is more than float16 has
    assert (skipped["skipped"], skipped["grad_norm"], optimization.step) == (1, 0, 2)
    after = state()
    assert {n for n in before if not torch.equal(before[n], after[n])} == {"loss_scale.scale", "loss_scale.passed"}
    assert taken(1.0)["loss_scale"] == 32768
    assert optimization.loss_scale is not None
    optimization.loss_scale.scale.fill_(0.5)
    assert not isfinite(taken(inf)["grad_norm"]), "it is not the scale, and training has to stop"


def test_float16_grows_its_scale_and_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.loss_scale.PATIENCE", 2)
    ends = []
    for stops in ((6,), (3, 6)):
        for steps in stops:
            toy = small_toy()
            optimization = Optimization(toy, TrainerOptions(steps=steps, precision="fp16", learning_rate=1e-3))
            if checkpoint := newest(tmp_path / str(len(stops)), []):
                checkpoint.load_state(optimization)
            step = step_of(toy, lambda output, x: {"loss": output.loss.detach()}, optimization, torch.device("cpu"))
            while not optimization.done:
                x = torch.rand(4, 3, generator=torch.Generator().manual_seed(optimization.step)) / 10
                step(iter([Batch({"x": x}, torch.device("cpu"))]))
            save(tmp_path / str(len(stops)), optimization, {}, keep=1)
        ends.append({**toy.state_dict(), **optimization.state()})
    assert_same(*ends)
    assert float(ends[0]["loss_scale.scale"]) == 8 * 65536


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_float16_may_skip_its_first_step(optimizer: Literal["adam", "sgd"]) -> None:
    """The moments of a step that was skipped are those of none."""
    ends = []
    for sizes in ((60.0, 1.0), (1.0,)):
        optimization = Optimization(toy := small_toy(), TrainerOptions(precision="fp16", optimizer=optimizer))
        step = step_of(toy, lambda output, x: {"loss": output.loss.detach()}, optimization, torch.device("cpu"))
        for size in sizes:
            step(iter([Batch({"x": torch.full((2, 3), size)}, torch.device("cpu"))]))
        ends.append({**toy.state_dict(), **optimization.state()})
    assert float(ends[0].pop("loss_scale.scale")) < float(ends[1].pop("loss_scale.scale"))
    assert_same(*ends)


def test_float16_needs_an_optimizer_that_can_skip() -> None:
    with pytest.raises(ToolkitError) as error:
        Optimization(Toy(), TrainerOptions(precision="fp16", optimizer="muon"))
    assert_names(str(error.value), "precision=fp16 … optimizer=muon … adamw … bf16")
