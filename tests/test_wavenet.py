"""WaveNet: its reach, its rings, and a context at a rate of its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.causal.network import CausalNetwork
from toolkit.causal.wavenet import WaveNet
from toolkit.errors import ToolkitError
from toolkit.testing.causal import reach


def test_its_reach_is_the_sum_of_its_dilations() -> None:
    trunk = WaveNet(hidden=4, blocks=2, layers=4, skip=5).double()
    assert trunk.receptive_field == 2 * (1 + 2 + 4 + 8) + 1
    seen = reach(trunk, (64,), 50)
    expected = torch.zeros(64, dtype=torch.bool)
    expected[50 - trunk.receptive_field : 50] = True
    assert torch.equal(seen, expected)


def by_queues(trunk: WaveNet, embedded: Tensor) -> Tensor:
    """The features as Fast WaveNet says them: a queue of past inputs for each layer (Le Paine et al. 2016)."""
    queues = [[embedded.new_zeros(trunk.channels)] * dilation for dilation in trunk.dilations]
    before, made = embedded.new_zeros(trunk.channels), []
    for value in embedded.unbind(1):
        x, features = before, torch.zeros((), dtype=embedded.dtype)
        for layer, queue in enumerate(queues):
            past, current = trunk.weight[layer].unbind(2)
            a, b = (past @ queue.pop(0) + current @ x + trunk.bias[layer]).chunk(2)
            queue.append(x)
            z = torch.tanh(a) * torch.sigmoid(b)
            features = features + trunk.skip[layer] @ z
            x = x + trunk.out[layer] @ z
        made.append(features)
        before = value
    return torch.stack(made)


@torch.no_grad()
def test_it_is_a_list_of_queues() -> None:
    trunk = WaveNet(hidden=4, blocks=2, layers=3, skip=5).double()
    trunk.bias.normal_()
    embedded = torch.randn(4, 30, dtype=torch.float64)
    expected = by_queues(trunk, embedded)
    torch.testing.assert_close(trunk(embedded[None])[0], expected)
    state = trunk.init(1, (30,))
    for position, value in enumerate(embedded.unbind(1)):
        at = torch.tensor([position])
        torch.testing.assert_close(trunk.step(state, 0, at)[0], expected[position])
        trunk.append(state, at, value[None])


@torch.no_grad()
def test_a_coarse_context_is_repeated() -> None:
    torch.manual_seed(0)
    trunk = WaveNet(context=3, hidden=4, blocks=1, layers=3, skip=5).double()
    embedded, context = torch.randn(2, 4, 24, dtype=torch.float64), torch.randn(2, 3, 6, dtype=torch.float64)
    fine = F.interpolate(context, 24)
    torch.testing.assert_close(trunk(embedded, context), trunk(embedded, fine))
    states = [trunk.init(2, (24,), each) for each in (context, fine)]
    assert states[0].given.numel() * 4 == states[1].given.numel()
    for position in range(24):
        at = torch.tensor([position])
        torch.testing.assert_close(*(trunk.step(state, 0, at) for state in states))
        for state in states:
            trunk.append(state, at, embedded[:, :, position])


def test_what_it_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="layers=0"):
        WaveNet(layers=0)
    net = CausalNetwork(WaveNet(context=3, hidden=4, layers=2), (5,))
    with pytest.raises(ToolkitError, match="10 positions are not a multiple of 4 steps"):
        net(torch.zeros(1, 1, 10, dtype=torch.int64), torch.zeros(1, 3, 4))
