from __future__ import annotations

from dataclasses import replace
from math import cos, pi
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toolkit.optimization import Optimization, rate
from toolkit.options import TrainerOptions
from toolkit.runs.checkpoint import newest
from toolkit.runs.saving import save

PLAIN = TrainerOptions(steps=10, learning_rate=0.1, optimizer="adam")


class Noisy(nn.Module):
    """A module with randomness, a buffer and a parameter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(4, 8), nn.Linear(8, 1)
        self.out.bias.requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += len(x)
        hidden = nn.functional.dropout(self.layer(x).relu(), 0.5, self.training)
        return (self.out(hidden) - x.sum(1, keepdim=True)).square().mean()


def train(optimization: Optimization, steps: int) -> None:
    """Batch k is a function of k, as in training."""
    accumulate = optimization.options.accumulate
    for _ in range(steps):
        for part in range(accumulate):
            place = optimization.step * accumulate + part
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(place))
            (optimization.module(x) / accumulate).backward()
        optimization.update()


def everything(optimization: Optimization) -> dict[str, Tensor]:
    return {**optimization.module.state_dict(), **optimization.state(), "random": torch.get_rng_state()}


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9},
        {"clip": 0.1, "schedule": "cosine", "warmup": 2},
        {"ema": 0.9, "clip": 0.1, "schedule": "cosine", "warmup": 2, "accumulate": 3, "weight_decay": 0.1},
    ],
    ids=["plain", "ema", "schedule", "all"],
)
def test_stopping_and_going_on_changes_no_bit(tmp_path: Path, optimizer: str, changes: dict) -> None:
    options = replace(PLAIN, optimizer=optimizer, **changes)
    torch.manual_seed(1)
    whole = Optimization(Noisy(), options)
    torch.manual_seed(1)
    first = Optimization(Noisy(), options)

    torch.manual_seed(2)
    train(whole, 10)
    expected = everything(whole)

    torch.manual_seed(2)
    train(first, 5)
    save(tmp_path, first, {}, keep=2)
    torch.manual_seed(3)
    second = Optimization(Noisy(), options)
    checkpoint = newest(tmp_path, [])
    assert checkpoint is not None
    checkpoint.load_state(second)
    assert second.step == 5
    train(second, 5)
    assert second.done
    found = everything(second)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_a_step_is_the_optimizers() -> None:
    torch.manual_seed(1)
    module = Noisy().eval()
    torch.manual_seed(1)
    other = Noisy().eval()
    optimization = Optimization(module, replace(PLAIN, optimizer="adamw", weight_decay=0.1, betas=(0.8, 0.9)))
    by_hand = torch.optim.AdamW(other.parameters(), 0.1, (0.8, 0.9), weight_decay=0.1)
    for _ in range(3):
        x = torch.randn(8, 4)
        module(x).backward()
        optimization.update()
        other(x).backward()
        by_hand.step()
        by_hand.zero_grad()
    for ours, theirs in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert all(p.grad is None for p in module.parameters())


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    x = torch.randn(16, 4)
    modules = []
    for parts in (1, 4):
        torch.manual_seed(1)
        module = Noisy().eval()
        optimization = Optimization(module, replace(PLAIN, accumulate=parts))
        for part in x.chunk(parts):
            (module(part) / parts).backward()
        optimization.update()
        modules.append(module)
    for one, other in zip(modules[0].parameters(), modules[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_needs_no_gradient_is_left_alone() -> None:
    optimization = Optimization(Noisy(), replace(PLAIN, weight_decay=0.5, optimizer="adamw", ema=0.5))
    assert set(optimization.parameters) == {"layer.weight", "layer.bias", "out.weight"}
    before = optimization.module.out.bias.clone()  # type: ignore[operator, union-attr]
    train(optimization, 3)
    assert torch.equal(optimization.module.out.bias, before)  # type: ignore[arg-type, union-attr]


def test_clipping_bounds_the_norm_of_all_gradients() -> None:
    module = nn.Linear(4, 3)
    optimization = Optimization(module, replace(PLAIN, clip=0.5))
    grads: list[Tensor] = []
    optimization.optimizers[0].register_step_pre_hook(
        lambda *_: grads.extend(p.grad.clone() for p in module.parameters() if p.grad is not None)
    )
    (100 * module(torch.randn(8, 4)).square().sum()).backward()
    optimization.update()
    torch.testing.assert_close(torch.cat([g.flatten() for g in grads]).norm(), torch.tensor(0.5), rtol=1e-4, atol=0)


# -- the schedule


def test_constant_after_a_linear_warm_up() -> None:
    options = replace(PLAIN, warmup=4)
    assert [rate(step, options) for step in range(7)] == [0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert rate(0, PLAIN) == 1


def test_half_a_cosine_to_zero() -> None:
    options = replace(PLAIN, steps=12, warmup=2, schedule="cosine")
    found = [rate(step, options) for step in range(13)]
    expected = [0.5, 1.0, *(0.5 * (1 + cos(pi * k / 10)) for k in range(11))]
    assert found == pytest.approx(expected)
    assert rate(99, options) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_warm_up_longer_than_the_training(steps: int) -> None:
    options = replace(PLAIN, steps=steps, warmup=2, schedule="cosine")
    assert all(0 <= rate(step, options) <= 1 for step in range(4))


def test_the_learning_rate_follows_the_schedule() -> None:
    options = replace(PLAIN, warmup=2, schedule="cosine")
    optimization, rates = Optimization(Noisy(), options), []
    optimization.optimizers[0].register_step_pre_hook(lambda opt, *_: rates.append(opt.param_groups[0]["lr"]))
    train(optimization, 10)
    assert rates == pytest.approx([0.1 * rate(step, options) for step in range(10)])


# -- averages


def test_averages_follow_the_weights() -> None:
    optimization = Optimization(Noisy(), replace(PLAIN, ema=0.9))
    average = optimization.module.layer.weight.detach().clone()  # type: ignore[operator, union-attr]
    for _ in range(4):
        train(optimization, 1)
        decay = min(0.9, (1 + optimization.step) / (10 + optimization.step))
        average = decay * average + (1 - decay) * optimization.module.layer.weight.detach()  # type: ignore[union-attr]
    torch.testing.assert_close(optimization.averages["layer.weight"], average)
    with optimization.averaged():
        assert torch.equal(optimization.module.layer.weight, optimization.averages["layer.weight"])  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_after_averaged_the_weights_are_back(ema: float) -> None:
    optimization = Optimization(Noisy(), replace(PLAIN, ema=ema))
    train(optimization, 3)
    before = {name: value.clone() for name, value in everything(optimization).items()}
    with pytest.raises(RuntimeError, match="inside"), optimization.averaged():
        raise RuntimeError("inside")
    for name, value in everything(optimization).items():
        assert torch.equal(value, before[name]), name


def test_averages_begin_at_the_weights_of_a_checkpoint_without() -> None:
    plain = Optimization(Noisy(), PLAIN)
    train(plain, 3)
    wrap_ddp = Optimization(Noisy(), replace(PLAIN, ema=0.9))
    wrap_ddp.module.load_state_dict(plain.module.state_dict())
    wrap_ddp.load(plain.state(), 3)
    for name, average in wrap_ddp.averages.items():
        assert torch.equal(average, plain.parameters[name])
