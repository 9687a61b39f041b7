"""The gated PixelCNN sees exactly the past, whatever the rank."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import Tensor

from toolkit.causal.network import CausalNetwork, shift
from toolkit.causal.pixelcnn import PixelCNN
from toolkit.testing.accelerator import stand_in
from toolkit.testing.causal import reach


@pytest.mark.parametrize("grid", [(12,), (6, 6), (3, 4, 4)], ids=str)
def test_every_position_sees_all_earlier_ones(grid: tuple[int, ...]) -> None:
    """There is no blind spot, so long as there are layers enough."""
    trunk = PixelCNN(len(grid), layers=max(grid), hidden=4, kernel_size=3).double()
    for position in range(prod(grid)):
        assert torch.equal(reach(trunk, grid, position), torch.arange(prod(grid)) < position)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_a_layer_sees_half_a_kernel_further(kernel_size: int) -> None:
    trunk, length = PixelCNN(1, layers=2, hidden=4, kernel_size=kernel_size).double(), 20
    seen = reach(trunk, (length,), length - 1).nonzero().flatten()
    assert length - 1 - seen.amin() == 1 + 2 * (kernel_size // 2)


def layer_by_layer(trunk: PixelCNN, embedded: Tensor, context: Tensor | None) -> Tensor:
    """The equations as they are written."""
    rank = embedded.ndim - 2
    sources = [context] * len(trunk.stacks[0].weight)
    x = embedded
    for axis, stack in enumerate(trunk.stacks):
        x, ys = shift(embedded, axis), list[Tensor | None]()
        for layer, source in enumerate(sources):
            y = stack.past(layer, x) + stack.given(layer, source, rank)
            x = x + stack.residual(layer, y)
            ys.append(y)
        sources = ys
    return x.movedim(1, -1)


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("grid", [(7,), (5, 6), (3, 4, 5)], ids=str)
def test_all_layers_at_once_are_layer_by_layer(grid: tuple[int, ...], layers: int, context: int) -> None:
    trunk = PixelCNN(len(grid), context=context, hidden=4, layers=layers, kernel_size=5).double()
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    embedded = torch.randn(2, 4, *grid, dtype=torch.float64)
    given = torch.randn(2, 3, *[1] * len(grid), dtype=torch.float64) if context else None
    made, expected = trunk(embedded, given), layer_by_layer(trunk, embedded, given)
    torch.testing.assert_close(made, expected, atol=1e-10, rtol=1e-10)
    weight, parameters = torch.randn_like(made), list(trunk.parameters())
    pairs = (torch.autograd.grad((each * weight).sum(), parameters, allow_unused=True) for each in (made, expected))
    for mine, other in zip(*pairs, strict=True):
        if other is not None:
            torch.testing.assert_close(mine, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("sizes", [(5,), (5, 5, 5), (5, 7, 3)], ids=str)
def test_heads_on_a_device_are_heads_one_by_one(sizes: tuple[int, ...]) -> None:
    network = CausalNetwork(PixelCNN(2, hidden=4, layers=2, kernel_size=3), sizes, head=6).double()
    codes = torch.stack([torch.randint(size, (3, 4, 5)) for size in sizes], 1)
    embedded = sum(table(codes[:, depth]) for depth, table in enumerate(network.tables))
    feature = network.proj(network.trunk(embedded.movedim(-1, 1), None).relu())
    expected, each = torch.zeros(3, dtype=torch.float64), []
    for depth, head in enumerate(network.heads):
        logits = head(feature.relu())
        nats = logits.log_softmax(-1).gather(-1, codes[:, depth].unsqueeze(-1))
        expected += nats.flatten(1).sum(1)
        feature = feature + network.inner[depth](codes[:, depth]) if depth < len(network.inner) else feature
        each.append(logits)
    torch.testing.assert_close(network.log_prob(codes), expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(network(codes), tuple(each), atol=1e-10, rtol=1e-10)
    with stand_in():
        network.to("cuda")
        made = network.log_prob(codes.to("cuda")).cpu()
        together = tuple(logits.cpu() for logits in network(codes.to("cuda")))
    torch.testing.assert_close(made, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(together, tuple(each), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ("rank", "options", "message"),
    [
        (4, {}, "1 to 3 axes"),
        (0, {}, "1 to 3 axes"),
        (2, {"kernel_size": 4}, "kernel_size=4"),
        (2, {"layers": 0}, "layers=0"),
    ],
)
def test_what_it_cannot_be_is_refused(rank: int, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelCNN(rank, **options)
