"""Codes in random orders: each is predicted from those before it in its example's order, which becomes raster order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.causal.transformer import Transformer
from toolkit.priors.random_order import RandomOrderPrior
from toolkit.spec import CodeSpec

GRID = (2, 3)
CODES = CodeSpec(GRID, (5, 3))


def trunk() -> Transformer:
    made = Transformer(GRID, context=3, hidden=8, layers=2, heads=2, any_order=True).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def inputs(n: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 8, *GRID, dtype=torch.float64), torch.randn(n, 3, *GRID, dtype=torch.float64)


def test_in_raster_order_it_is_forward() -> None:
    net, (embedded, context) = trunk(), inputs()
    whole = net(embedded, context).flatten(1, 2)
    torch.testing.assert_close(net.in_order(embedded, context, torch.arange(6).expand(2, -1)), whole)


def test_a_position_sees_those_before_it_in_its_order_alone() -> None:
    net, (embedded, context) = trunk(), inputs()
    order = torch.stack([torch.randperm(6) for _ in range(2)])
    embedded.requires_grad_()
    features = net.in_order(embedded, context, order)
    for place in range(6):
        (gradient,) = torch.autograd.grad(
            features[:, place].square().sum(), embedded, retain_graph=True, allow_unused=True
        )
        seen = torch.zeros(2, 6, dtype=torch.bool).scatter_(1, order[:, :place], True)
        reached = seen & False if gradient is None else gradient.abs().sum(1).flatten(1) > 0
        assert torch.equal(reached, seen)


def test_the_target_decides_what_is_predicted() -> None:
    """After the same codes, features differ with the position that comes next."""
    net, (embedded, context) = trunk(), inputs(1)
    orders = torch.tensor([[4, 0, 1, 2, 3, 5], [4, 0, 5, 3, 2, 1]])
    features = net.in_order(embedded.expand(2, -1, -1, -1), context.expand(2, -1, -1, -1), orders)
    torch.testing.assert_close(features[0, :2], features[1, :2])
    assert (features[0, 2] - features[1, 2]).abs().max() > 1e-3


@pytest.mark.parametrize(("step", "share"), [(0, 1.0), (100, 1.0), (150, 0.5), (200, 0.0), (900, 0.0)])
def test_orders_become_raster(step: int, share: float) -> None:
    prior = RandomOrderPrior(CODES, (), hidden=8, layers=1, heads=2, head=8, anneal_start=100, anneal_end=200)
    prior.at_step(step)
    orders = prior._orders(torch.zeros(2000, *CODES.shape).long())
    assert torch.equal(orders.sort(1).values, torch.arange(6).expand(2000, -1))
    assert float((orders != torch.arange(6)).any(1).double().mean()) == pytest.approx(share, abs=0.05)


def test_after_annealing_training_is_the_exact_likelihood() -> None:
    prior = RandomOrderPrior(CODES, (), hidden=8, layers=1, heads=2, head=8)
    codes = torch.randint(3, (4, *CODES.shape))
    prior.at_step(0)
    assert not torch.allclose(prior.train().loss(codes, {}), -prior.log_prob(codes, {}))
    prior.at_step(10**6)
    torch.testing.assert_close(prior.loss(codes, {}), -prior.log_prob(codes, {}))


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match=r"anneal_start=9 anneal_end=9"):
        RandomOrderPrior(CODES, (), anneal_start=9, anneal_end=9)
