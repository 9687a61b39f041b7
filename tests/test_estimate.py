"""What ``toolkit check`` says of memory is what a step takes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, final
from unittest.mock import patch

import pytest
import torch
from test_ranks import config_of
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from toolkit import estimate
from toolkit.autoencoder import Autoencoder
from toolkit.build import build_autoencoder, build_dataset, build_stage
from toolkit.cli.check import check
from toolkit.config import PartConfig
from toolkit.estimate import StepMemory, batch_of, memory_by_stage, step_memory
from toolkit.optimization import Optimization
from toolkit.options import PriorTrainerOptions, TrainerOptions
from toolkit.part import make
from toolkit.prior import Prior
from toolkit.sharding import checkpoint_activations
from toolkit.spec import CodeSpec, Condition
from toolkit.step import step_of
from toolkit.training import PriorStage

CPU = torch.device("cpu")
OPTIONS = PriorTrainerOptions(steps=3, batch_size=8, clip=1.0, ema=0.9)
CODES = CodeSpec((8, 8), (64,))
WITHIN = 0.15
"""Of what is measured."""


def prior_of(again: bool = False, code_spec: CodeSpec = CODES) -> Prior:
    torch.manual_seed(0)
    network = {"hidden": 32, "layers": 2, "heads": 4, "head": 32}
    prior = make("prior", PartConfig("transformer", network), code_spec=code_spec, conditions=())
    assert isinstance(prior, Prior)
    if again:
        checkpoint_activations(prior)
    return prior


def codes(n: int = 8) -> dict[str, Tensor]:
    return {"x": torch.randint(64, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0))}


def of_prior(again: bool = False) -> tuple[Any, dict[str, Tensor], TrainerOptions]:
    return PriorStage(prior_of(again)), codes(), OPTIONS


def of_autoencoder() -> tuple[Any, dict[str, Tensor], TrainerOptions]:
    config = config_of("ema")
    data = build_dataset(config).spec
    x = torch.randint(data.levels or 2, (config.trainer.batch_size, *data.shape))
    return build_stage(config, data, None), batch_of(x, data.conditions, data.axes[0]), config.trainer


def of_coded_batches() -> tuple[Any, dict[str, Tensor], TrainerOptions, int, None, Autoencoder]:
    """A prior over the codes of batches that are encoded as they come."""
    config = config_of("ema")
    data = build_dataset(config).spec
    autoencoder = build_autoencoder(config, data)
    x = torch.randint(data.levels or 2, (8, *data.shape))
    prior = prior_of(code_spec=autoencoder.code_spec)
    return PriorStage(prior), batch_of(x, data.conditions, data.axes[0]), OPTIONS, 1, None, autoencoder


def measured(made: Callable[[], Any]) -> int:
    """The most bytes that torch's allocator had handed out at once, in three steps.

    What it handed out is counted while it is profiled, and so is what it takes back.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        trained(*made())
        gc.collect()
    most, events = 0, list(record.profiler.kineto_results.experimental_event_tree())  # type: ignore[union-attr]
    while events:
        event = events.pop()
        events += event.children
        most = max(most, getattr(event.extra_fields, "total_allocated", 0))
    return most


def trained(
    stage: Any,
    batch: dict[str, Tensor],
    options: TrainerOptions,
    ranks: int = 1,
    blocks: None = None,
    encoder: Autoencoder | None = None,
) -> None:
    groups = () if isinstance(stage, PriorStage) else stage.groups(options)
    optimization = Optimization(stage, options, groups)
    step = step_of(stage, stage.metrics, optimization, CPU)
    stage.train()
    batches = estimate._batches(batch, encoder)
    for _ in range(3):
        step(batches)


@pytest.mark.long
@pytest.mark.parametrize("how", ["prior", "again", "autoencoder", "coded"])
def test_the_peak_is_what_a_step_takes(how: str, toys: None) -> None:
    cases: dict[str, Callable[[], Any]] = {
        "prior": of_prior,
        "again": lambda: of_prior(True),
        "autoencoder": of_autoencoder,
        "coded": of_coded_batches,
    }
    assert step_memory(*cases[how]()).peak == pytest.approx(measured(cases[how]), rel=WITHIN)


@pytest.mark.long
def test_memory_that_is_never_given_back_is_caught() -> None:
    with patch.object(estimate._Live, "_drop", lambda *_: None):
        peak = step_memory(*of_prior()).peak
    with pytest.raises(AssertionError):
        assert peak == pytest.approx(measured(of_prior), rel=WITHIN)


def test_what_is_kept_is_counted() -> None:
    """Weights, gradients, two moments and averages, and the optimizer's option."""
    numbers = sum(p.numel() for p in prior_of().parameters())
    memory = step_memory(*of_prior())
    buffers = memory.weights - 4 * numbers
    assert 0 <= buffers < 100
    assert (memory.gradients, memory.averages) == (4 * numbers, 4 * numbers)
    assert 0 <= memory.moments - 8 * numbers < 1000  # a count of steps for each tensor


def test_what_encodes_batches_is_counted(toys: None) -> None:
    """All of the autoencoder is there in every step; on two ranks that shard the prior, on each of them."""
    stage, batch, options, _, _, autoencoder = of_coded_batches()
    spec = autoencoder.code_spec
    codes = {"x": torch.zeros(8, *spec.shape, dtype=torch.int64)}
    without = [
        step_memory(PriorStage(prior), codes, options, ranks, prior.blocks_in_order() if ranks > 1 else None)
        for prior, ranks in ((prior_of(code_spec=spec), 1), (prior_of(code_spec=spec), 2))
    ]
    prior = prior_of(code_spec=spec)
    with_it = [
        step_memory(stage, batch, options, encoder=autoencoder),
        step_memory(PriorStage(prior), batch, options, 2, prior.blocks_in_order(), autoencoder),
    ]
    own = sum(t.numel() * t.element_size() for t in (*autoencoder.parameters(), *autoencoder.buffers()))
    assert [one.weights - other.weights for one, other in zip(with_it, without, strict=True)] == [own, own]
    assert all(one.peak >= other.peak + own for one, other in zip(with_it, without, strict=True))


@final
class Taught(Prior):
    """Has a frozen network that is no part of it, as ``conditioner=byt5`` has one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1000))
        self.teacher = (torch.nn.Linear(1000, 500).requires_grad_(False),)

    def log_prob(self, codes: Tensor, conditions: Any) -> Tensor:
        seen: Tensor = self.teacher[0](self.weight)
        return seen.sum().expand(len(codes))

    def sample(self, *_: Any, **__: Any) -> Tensor:
        raise NotImplementedError


def test_frozen_networks_are_counted_by_their_use() -> None:
    memory = step_memory(PriorStage(Taught()), codes(), OPTIONS)
    assert memory.weights == 4 * (1000 + 1000 * 500 + 500)
    assert memory.gradients == 4 * 1000
    assert memory.peak >= memory.weights + memory.gradients


@pytest.mark.long
def test_other_optimizers_keep_less() -> None:
    """And several ranks have buckets beside their gradients."""
    numbers = sum(p.numel() for p in prior_of().parameters())
    plain = PriorTrainerOptions(steps=3, optimizer="sgd", betas=(0.0, 0.9))
    other = step_memory(PriorStage(prior_of()), codes(), plain, ranks=2)
    assert (other.gradients, other.moments, other.averages) == (8 * numbers, 0, 0)


@pytest.mark.long
def test_activations_follow_the_batch_and_what_is_computed_again() -> None:
    memory, twice = (step_memory(PriorStage(prior_of()), codes(n), OPTIONS) for n in (8, 16))
    assert twice.activations == pytest.approx(2 * memory.activations, rel=0.01)
    again = step_memory(PriorStage(prior_of(again=True)), codes(), OPTIONS)
    assert again.activations < memory.activations / 2
    assert again.peak < memory.peak


@pytest.mark.long
def test_a_shard_is_a_share() -> None:
    memory, prior = step_memory(*of_prior()), prior_of()
    half = step_memory(PriorStage(prior), codes(), OPTIONS, 2, prior.blocks_in_order())
    assert half.moments * 2 == memory.moments
    assert half.activations == memory.activations
    as_one = step_memory(PriorStage(prior_of()), codes(), OPTIONS, 2, ())
    ddp = step_memory(PriorStage(prior_of()), codes(), OPTIONS, 2)
    assert half.peak < as_one.peak < ddp.peak
    assert memory.peak < ddp.peak


@pytest.mark.long
def test_a_batch_has_texts_as_bytes() -> None:
    caption = Condition("caption", 8, text=True)
    value = batch_of(torch.zeros(2, 1, 4), (caption,), 4)["caption"]
    assert (value.shape, value.dtype) == ((2, 8), torch.uint8)


def test_nothing_random_is_used_up() -> None:
    before = torch.get_rng_state()
    stage, batch, options = of_prior()
    torch.set_rng_state(before)
    step_memory(stage, batch, options)
    assert torch.equal(torch.get_rng_state(), before)


@final
class Peeking(Prior):
    """Branches on what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def log_prob(self, codes: Tensor, conditions: Any) -> Tensor:
        return self.weight.sum().expand(len(codes)) if float(self.weight.sum()) > 0 else codes.sum()

    def sample(self, *_: Any, **__: Any) -> Tensor:
        raise NotImplementedError


@pytest.mark.long
def test_check_shows_it(toys: None, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each stage; why where it is not known."""
    config = config_of("vq")
    assert check(config) == 0
    shown = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(shown) if line.startswith("memory of a training step, MiB"))
    assert [line for line in shown[at:] if "autoencoder" in line]
    assert [line for line in shown[at:] if "prior=pixelcnn" in line]
    with patch.object(estimate, "build_prior", lambda *_: Peeking()):
        known = memory_by_stage(config, build_dataset(config).spec)
    assert isinstance(known["autoencoder"], StepMemory)
    assert isinstance(known["prior=pixelcnn"], Exception)
