"""What a GPU would refuse or wait for, found without one: training, sampling and commands on a stand-in for it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from on_stand_in import act, commands_work, counted_waits, resumed_alike, sampled_alike, train_quietly, used_alike
from torch import Tensor, nn
from toys import trainers

from toolkit.testing.accelerator import CaptureError, PlacementError, StandIn, stand_in

WAVES = ["dataset=waves", "dataset.train_size=32", "dataset.val_size=8", "dataset.test_size=8"]
WAVES += ["encoder=patch", "decoder=patch", "dim=8", "dataset.axes=[16,16]", "likelihood=categorical"]
WAVES += [*trainers("workers=0", "batch_size=8", "validate_examples=8"), "prior_trainer.allow_collapsed=true"]
SMALL = ["prior.hidden=8", "prior.layers=2"]
PRIORS = {
    "pixelcnn": ["quantizer=ema", *SMALL, "prior.dropout=0.1", "conditions.prior=[pace]"],
    "transformer": [
        *("quantizer=residual_ema", "quantizer.depth=2", "dataset.axes=[16,32]"),
        *SMALL,
        *("prior.heads=2", "trainer.precision=bf16"),
    ],
    "maskgit": ["quantizer=vq", "quantizer.dead_code_threshold=0.05", *SMALL, "prior.heads=2", "prior.passes=3"],
    "wavenet": ["quantizer=ema", "quantizer.init=kmeans", "dataset.axes=[64]", "trainer.ema=0.9", *SMALL],
}


def words_of(prior: str, steps: int) -> list[str]:
    return [*WAVES, f"prior={prior}", *PRIORS[prior], *trainers(f"steps={steps}")]


@pytest.mark.long
@pytest.mark.parametrize(
    "prior", [pytest.param(prior, marks=() if prior == "pixelcnn" else pytest.mark.slow) for prior in PRIORS]
)
def test_stages_commands_and_samples_of_each_prior(prior: str, tmp_path: Path) -> None:
    """Steps between logged ones do not wait; what comes after training is the CPU's, bit for bit."""
    with stand_in() as gpu, counted_waits(gpu) as waits:
        act("train", *words_of(prior, 4), f"hydra.run.dir={tmp_path}")
    for first, *quiet in (waits[:4], waits[4:]):
        assert quiet == [first] * 3, f"a step waits for the device: {dict(gpu.waits)}"
    used_alike(tmp_path)
    graphs = sampled_alike(tmp_path, 2).graphs
    assert prior == "maskgit" or (graphs and all(graph.replays > 1 for graph in graphs))
    if prior == "pixelcnn":
        commands_work(tmp_path, tmp_path / "samples")
    else:
        with stand_in():
            act("evaluate", f"run={tmp_path}", "examples=2")


@pytest.mark.long
def test_no_more_waits_in_twice_the_steps(tmp_path: Path) -> None:
    """Of a whole training, however the loop is built: what waits does so at a log line, or once."""
    waits = []
    for steps in (1, 2, 4):  # the first fills caches; the others are of an epoch and more: the split is kept there
        with stand_in() as gpu:
            words = [*words_of("wavenet", steps), "dataset.train_size=16"]
            act("train", *words, f"hydra.run.dir={tmp_path / str(steps)}")
        waits.append(gpu.waits)
    assert waits[1] == waits[2]


@pytest.mark.long
def test_batches_that_are_encoded_as_they_come_are_not_waited_for(tmp_path: Path) -> None:
    train_quietly([*words_of("pixelcnn", 4), "prior_trainer.encode=always"], tmp_path, steps=4)
    used_alike(tmp_path)


@pytest.mark.long
def test_a_resumed_run_draws_on_the_device_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    """A relaxed posterior is sampled there in every step."""
    resumed_alike([*WAVES, "quantizer=categorical", *trainers("steps=4")], tmp_path)


@pytest.fixture
def gpu() -> Any:
    with stand_in(count=2) as device:
        yield device


QUESTIONS: dict[str, Callable[[Tensor], object]] = {
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).all()),
    "list": lambda x: x.tolist(),
    "mask": lambda x: x[x > 0],
    "contains": lambda x: 1.0 in x,
    "equal": lambda x: torch.equal(x, x),
    "copy": lambda x: x.cpu(),
    "numbers": lambda x: torch.tensor([1.0], device=x.device),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_counted_once_and_refused_in_a_capture(gpu: StandIn, question: str) -> None:
    x, ask = torch.ones(3, device="cuda"), QUESTIONS[question]
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        before = gpu.waits.total()
        with mode():
            ask(x)
        assert gpu.waits.total() == before + 1, gpu.waits
        with pytest.raises(CaptureError), mode(), torch.cuda.graph(torch.cuda.CUDAGraph()):
            ask(x)


def test_what_asks_nothing_is_not_counted(gpu: StandIn) -> None:
    x, pinned = torch.ones(3, device="cuda"), torch.ones(3).pin_memory()
    x[x > 5] = 0.0
    x.add_(pinned.to("cuda", non_blocking=True)).div_(x.numel())
    assert (x * torch.tensor(2.0)).device == x.to(torch.float16).device == torch.device("cuda", 0)
    assert nn.functional.one_hot(torch.zeros(3, dtype=torch.int64, device="cuda"), 4).is_cuda
    assert not gpu.waits


MISTAKES: dict[str, Callable[[Tensor], object]] = {
    "a tensor of the cpu": lambda x: x + torch.ones(3),
    "of another device": lambda x: x + torch.ones((), device="cuda:1"),
    "among others": lambda x: torch.cat([x, torch.ones(3)]),
    "a host's generator": lambda x: torch.rand(3, device="cuda", generator=torch.Generator()),
    "no such device": lambda x: x.to("cuda:2"),
    "in a backward pass": lambda x: _Careless.apply(x.clone().requires_grad_()).sum().backward(),
}


class _Careless(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * torch.full((3,), 2.0)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_devices_mistakes_are_refused(gpu: StandIn, mistake: str) -> None:
    with pytest.raises(PlacementError):
        MISTAKES[mistake](torch.ones(3, device="cuda"))


def test_the_cpu_beside_it_is_as_ever(gpu: StandIn) -> None:
    layer, random = nn.Embedding(3, 3), torch.get_rng_state()
    layer(torch.tensor([1]))[0, 1:].sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.device.type == "cpu"
    assert layer.weight.grad.numpy().sum() == 2
    torch.rand(3, device="cuda")
    assert torch.equal(torch.get_rng_state(), random)
    assert not gpu.waits


def test_a_copy_of_a_module_lies_where_it_does(gpu: StandIn) -> None:
    module = deepcopy(nn.BatchNorm1d(3).to("cuda:1"))
    assert {tensor.device for tensor in module.state_dict().values()} == {torch.device("cuda", 1)}


def test_float64_is_refused_where_there_is_none() -> None:
    with stand_in("mps"):
        x = torch.ones(3, device="mps")
        assert x.device.type == "mps"
        with pytest.raises(PlacementError, match="float64"):
            x.double()


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, torch.tensor(0.01, device="cuda"), capturable=True, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, torch.tensor(0.01, device="cuda"), capturable=True, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, torch.tensor(0.01, device="cuda"), momentum=0.9, fused=True),
}


@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_captured_step_of_training_is_the_eager_one(gpu: StandIn, name: str) -> None:
    eager, captured = (_losses(OPTIMIZERS[name], graphed) for graphed in (False, True))
    assert eager == captured
    assert gpu.graphs[-1].replays == 4
    assert gpu.graphs[-1].error_mode == "thread_local"


def _losses(make: Callable[[Any], torch.optim.Optimizer], graphed: bool) -> list[float]:
    """Of six steps with dropout, the first two eager, and sums of the weights behind them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 2)).to("cuda")
    optimizer, data, x = make(net.parameters()), torch.randn(6, 5, 3, device="cuda"), torch.zeros(5, 3, device="cuda")

    def step() -> Tensor:
        loss = net(x).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    losses, graph = [], torch.cuda.CUDAGraph()
    for number, batch in enumerate(data):
        x.copy_(batch)
        if graphed and number == 2:
            with torch.cuda.graph(graph, pool=torch.cuda.graph_pool_handle(), capture_error_mode="thread_local"):
                loss = step()
            assert loss.isnan(), "a capture runs nothing"
        if graphed and number >= 2:
            graph.replay()
        else:
            loss = step()
        losses.append(loss.clone())
    return torch.stack([*losses, *(p.detach().sum() for p in net.parameters())]).tolist()


def test_operations_are_counted_without_views(gpu: StandIn) -> None:
    x = torch.ones(3, 4, device="cuda")
    gpu.operations.clear()
    (x.t()[1:].view(3, 3) * 2).add_(1)
    assert dict(gpu.operations) == {"mul": 1, "add_": 1}
