"""Codes at one position: by a transformer over the depths, or all at once, with and without a delay."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from test_causal import MAKERS, assert_steps_equal_forward, some_codes
from torch import Tensor

from toolkit.causal.delayed import DelayedNetwork
from toolkit.causal.network import CausalNetwork
from toolkit.causal.sampling import sample
from toolkit.causal.transformer import Transformer
from toolkit.prior import SamplingOptions
from toolkit.priors.delay import DelayPrior
from toolkit.spec import CodeSpec
from toolkit.testing.reference import sample_slowly

SIZES = (4, 2, 5)


def at_random(network: Any) -> Any:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network.double().eval()


def deep(name: str = "transformer", grid: tuple[int, ...] = (2, 3)) -> CausalNetwork:
    made: CausalNetwork = at_random(CausalNetwork(MAKERS[name](grid, 0), SIZES, head=12, depth_layers=2))
    return made


@pytest.mark.parametrize(("name", "grid"), [("transformer", (2, 3)), ("pixelcnn", (3, 2)), ("wavenet", (5,))])
def test_codes_of_a_position_step_by_step_are_those_of_forward(name: str, grid: tuple[int, ...]) -> None:
    assert_steps_equal_forward(deep(name, grid), some_codes(2, grid, SIZES), None, 1e-10)


def test_a_depth_sees_all_before_it_and_none_after() -> None:
    net, codes = deep(), some_codes(1, (2, 3), SIZES)
    before = net(codes)
    for changed in range(3):
        other = codes.clone()
        other[0, changed, -1, -1] = (other[0, changed, -1, -1] + 1) % SIZES[changed]
        differ = [not torch.equal(a[0, -1, -1], b[0, -1, -1]) for a, b in zip(before, net(other), strict=True)]
        assert differ == [changed < depth for depth in range(3)]


def test_samples_of_a_transformer_over_depths_are_the_slow_ones() -> None:
    net, options = deep(), SamplingOptions(temperature=1.2, top_k=4)
    both = [
        draw(net, 5, (2, 3), options, generator=torch.Generator().manual_seed(2)) for draw in (sample, sample_slowly)
    ]
    assert torch.equal(*both)


def delayed(delay: int, positions: int = 4) -> DelayedNetwork:
    trunk = Transformer((positions + 2 * delay,), hidden=8, layers=2, heads=2)
    made: DelayedNetwork = at_random(DelayedNetwork(trunk, SIZES, delay=delay, head=12))
    return made


@torch.no_grad()
@pytest.mark.parametrize("delay", [0, 1, 2])
def test_steps_of_a_pattern_give_the_logits_of_forward(delay: int) -> None:
    net, codes = delayed(delay), some_codes(2, (4,), SIZES)
    whole, steps, by_step = net(codes), net.steps(4), net.delayed(codes, 0)
    state, seen = net.init(2, (steps,)), 0
    for step in range(steps):
        feature = net.step(state, net.trunk.graph_id((steps,), step), torch.tensor([step]))
        for depth in range(3):
            position = step - depth * delay
            if 0 <= position < 4:
                logits = net.logits(state, feature, depth)
                torch.testing.assert_close(logits, whole[depth][:, position], atol=1e-10, rtol=1e-10)
                seen += 1
            net.append(state, feature, torch.tensor([step]), depth, by_step[:, depth, step])
    assert seen == 12
    assert torch.equal(net.aligned(by_step), codes)


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_a_code_sees_those_of_all_earlier_steps(delay: int) -> None:
    net, codes = delayed(delay), some_codes(1, (4,), SIZES)
    before = net(codes)
    places = list(product(range(3), range(4)))
    for depth, position in places:
        other = codes.clone()
        other[0, depth, position] = (other[0, depth, position] + 1) % SIZES[depth]
        after = net(other)
        for of, at in places:
            earlier = position + depth * delay < at + of * delay
            assert torch.equal(before[of][0, at], after[of][0, at]) != earlier


@pytest.mark.parametrize("delay", [0, 2])
def test_given_codes_stay_and_the_rest_is_sampled(delay: int) -> None:
    prior = at_random(DelayPrior(CodeSpec((2, 3), SIZES), (), delay=delay, hidden=8, layers=1, heads=2, head=8))
    prefix = some_codes(9, (2, 3), SIZES).flatten(2)[:, :, :4]
    codes: Tensor = prior.sample(9, {}, prefix=prefix, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codes.flatten(2)[:, :, :4], prefix)
    assert len(codes.flatten(2)[:, 0, 4:].unique()) > 1
