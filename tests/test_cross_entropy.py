"""What a choice costs, in tiles: torch's own numbers and gradients, whatever the layout in memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.nn.cross_entropy import cross_entropy

BATCH, OPTIONS, REST = 5, 7, (3, 4, 2)


@pytest.fixture(autouse=True)
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two examples; the last has one."""
    monkeypatch.setattr("toolkit.nn.cross_entropy.TILE", 2 * OPTIONS * 24)
    monkeypatch.setattr("toolkit.nn.cross_entropy.LARGE", 0)


def examples(channels_last: bool = False, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, OPTIONS * REST[0], *REST[1:], generator=generator) * scale
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    chosen = torch.randint(OPTIONS, (BATCH, *REST), generator=generator)
    return logits.unflatten(1, (OPTIONS, -1)).requires_grad_(), chosen


def expected(logits: Tensor, chosen: Tensor) -> Tensor:
    return F.cross_entropy(logits.double(), chosen, reduction="none")


def weighted(nats: Tensor) -> Tensor:
    """0-d, with another gradient at each."""
    return (nats * torch.arange(1, nats.numel() + 1).view_as(nats)).sum()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("scale", [3.0, 300.0])
def test_it_is_torchs(channels_last: bool, scale: float) -> None:
    logits, chosen = examples(channels_last, scale)
    nats = cross_entropy(logits, chosen)
    assert nats.grad_fn is not None
    assert [before.name() for before, _ in nats.grad_fn.next_functions] == ["_CrossEntropyBackward"]  # in tiles
    torch.testing.assert_close(nats.double(), expected(logits, chosen), rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(weighted(nats), logits)
    (other,) = torch.autograd.grad(weighted(expected(logits, chosen)), logits)
    torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-5)
    assert gradient.stride() == logits.stride()


def test_its_gradient_can_be_taken_twice_and_has_one() -> None:
    logits, chosen = examples()
    loss = weighted(cross_entropy(logits, chosen))
    once, twice = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, twice)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (other,) = torch.autograd.grad(weighted(expected(logits, chosen)), logits, create_graph=True)
    of_squares = (torch.autograd.grad(g.square().sum(), logits)[0] for g in (gradient, other))
    torch.testing.assert_close(*of_squares, rtol=1e-3, atol=1e-2)


def test_what_cannot_be_chosen_costs_the_others_nothing() -> None:
    logits, chosen = examples()
    impossible = logits.detach().clone()
    impossible[:, 0] = -torch.inf
    impossible.requires_grad_()
    nats = cross_entropy(impossible, chosen.clamp(min=1))
    others = cross_entropy(logits[:, 1:], chosen.clamp(min=1) - 1)
    torch.testing.assert_close(nats, others)
    (gradient,) = torch.autograd.grad(weighted(nats), impossible)
    assert (gradient[:, 0] == 0).all()
    assert gradient.isfinite().all()


def test_numbers_that_are_none_are_told() -> None:
    logits, chosen = examples()
    broken = logits.detach().clone()
    broken[1, 2, 0, 0, 0] = torch.nan
    assert cross_entropy(broken, chosen).isnan().nonzero().tolist() == [[1, 0, 0, 0]]


def test_it_is_at_least_float32() -> None:
    logits, chosen = examples()
    half = logits.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        nats = cross_entropy(half, chosen)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, cross_entropy(half.float(), chosen))
    (gradient,) = torch.autograd.grad(nats.sum(), half)
    assert gradient.dtype == torch.bfloat16
    assert cross_entropy(logits.double(), chosen).dtype == torch.float64
