"""Causal networks: only the past, the same step by step as all at once, and drawn from as their logits say."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.causal import network as network_module
from toolkit.causal.network import REACH, CausalNetwork, Trunk, smooth, stretches
from toolkit.causal.pixelcnn import PixelCNN
from toolkit.causal.sampling import sample
from toolkit.causal.scales import ScalesTransformer
from toolkit.causal.transformer import Transformer
from toolkit.causal.wavenet import WaveNet
from toolkit.prior import SamplingOptions
from toolkit.testing.causal import check_prefill, reach
from toolkit.testing.reference import sample_slowly

Grid = tuple[int, ...]
MAKERS: dict[str, Callable[..., Trunk]] = {
    "pixelcnn": lambda grid, context: PixelCNN(len(grid), context=context, hidden=8, layers=3, kernel_size=3),
    "pixelcnn-wide": lambda grid, context: PixelCNN(len(grid), context=context, hidden=8, layers=2, kernel_size=7),
    "wavenet": lambda grid, context: WaveNet(context=context, hidden=8, blocks=2, layers=3, skip=10),
    "transformer": lambda grid, context: Transformer(grid, context=context, hidden=8, layers=2, heads=2),
    "rotary": lambda grid, context: Transformer(
        grid, context=context, hidden=12, layers=2, heads=2, positions="rotary"
    ),
    "any_order": lambda grid, context: Transformer(grid, context=context, hidden=8, layers=1, heads=2, any_order=True),
    "scales": lambda grid, context: ScalesTransformer(
        ((1,), (2,), (grid[0] - 3,)), context=context, hidden=8, layers=2, heads=2
    ),
}
GRIDS = [(7,), (4, 5), (2, 3, 4)]
CASES = [(name, grid) for name in MAKERS for grid in GRIDS if name not in ("wavenet", "scales") or len(grid) == 1]
SIZES = [(6,), (4, 2, 5)]

each_network = pytest.mark.parametrize(("name", "grid"), CASES, ids=[f"{name}-{grid}" for name, grid in CASES])
each_depth = pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"depth{len(sizes)}")


def network(name: str, grid: Grid, sizes: tuple[int, ...], context: int = 0) -> CausalNetwork:
    torch.manual_seed(0)
    made = CausalNetwork(MAKERS[name](grid, context), sizes, head=12)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.double().eval()


def some_codes(n: int, grid: Grid, sizes: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randint(size, (n, *grid)) for size in sizes], 1)


def some_context(n: int, grid: Grid, shape: str) -> Tensor | None:
    """Of 3 channels; the same everywhere, or along all axes but the first, or nowhere."""
    axes = {"whole": [1] * len(grid), "steps": [grid[0], *[1] * (len(grid) - 1)], "local": grid}
    return None if shape == "none" else torch.randn(n, 3, *axes[shape], dtype=torch.float64)


REAL: list[tuple[Trunk, Grid]] = [
    (PixelCNN(1, hidden=32), (64,)),
    (PixelCNN(2, hidden=32), (32, 32)),
    (PixelCNN(3, hidden=16), (4, 12, 12)),
    (WaveNet(hidden=16, skip=32), (4096,)),
    (Transformer((16, 16), hidden=64, layers=4, heads=4), (16, 16)),
    (Transformer((4, 8, 8), hidden=64, layers=4, heads=4), (4, 8, 8)),
    (ScalesTransformer(((1, 1), (2, 2), (4, 4), (8, 8)), hidden=64, layers=4, heads=4), (85,)),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("trunk", "grid"), REAL, ids=lambda value: type(value).__name__ if isinstance(value, Trunk) else str(value)
)
def test_no_position_sees_itself_or_a_later_one(trunk: Trunk, grid: Grid) -> None:
    for position in (0, 1, prod(grid) // 2 + 3, prod(grid) - 1):
        assert not reach(trunk, grid, position)[position:].any()


@pytest.mark.few(6)
@each_network
def test_a_code_changes_only_later_logits(name: str, grid: Grid) -> None:
    sizes = (3, 2, 4)
    net, codes = network(name, grid, sizes), some_codes(1, grid, sizes)

    def in_order(codes: Tensor) -> list[Tensor]:
        logits = [part.flatten(1, -2) for part in net(codes)]
        return [logits[d][0, p] for p in range(prod(grid)) for d in range(len(sizes))]

    before = in_order(codes)
    for order, (position, depth) in enumerate(product(range(prod(grid)), range(len(sizes)))):
        changed = codes.clone()
        code = changed.flatten(2)[0, depth, position]
        changed.flatten(2)[0, depth, position] = (code + 1) % sizes[depth]
        same = [torch.allclose(a, b, atol=1e-12, rtol=0) for a, b in zip(before, in_order(changed), strict=True)]
        assert all(same[: order + 1])
        assert not any(same[order + 1 : (position + 1) * len(sizes)])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("shape", ["none", "whole", "steps", "local"])
@each_depth
@each_network
@pytest.mark.few(40)
def test_stepping_gives_the_logits_of_forward(
    name: str, grid: Grid, sizes: tuple[int, ...], shape: str, dtype: torch.dtype, tolerance: float
) -> None:
    net = network(name, grid, sizes, context=0 if shape == "none" else 3).to(dtype)
    codes = some_codes(2, grid, sizes)
    context = some_context(2, grid, shape)
    context = None if context is None else context.to(dtype)
    assert_steps_equal_forward(net, codes, context, tolerance)


def assert_steps_equal_forward(net: CausalNetwork, codes: Tensor, context: Tensor | None, tolerance: float) -> None:
    grid = tuple(codes.shape[2:])
    with torch.no_grad():
        whole = [part.flatten(1, -2) for part in net(codes, context)]
        state = net.init(len(codes), grid, context)
        for position in range(prod(grid)):
            at = torch.tensor([position])
            feature = net.step(state, net.trunk.graph_id(grid, position), at)
            for depth in range(len(whole)):
                stepped = net.logits(state, feature, depth)
                torch.testing.assert_close(stepped, whole[depth][:, position], atol=tolerance, rtol=tolerance)
                last_input = codes[:, depth].flatten(1)[:, position]
                feature = net.append(state, feature, at, depth, last_input)


@pytest.mark.few(22)
@pytest.mark.parametrize("shape", ["none", "whole", "steps", "local"])
@each_network
def test_a_prefix_in_one_pass_is_its_positions_one_by_one(name: str, grid: Grid, shape: str) -> None:
    trunk = network(name, grid, (6,), context=0 if shape == "none" else 3).trunk
    assert type(trunk).prefill is not Trunk.prefill
    check_prefill(trunk, 2, grid, some_context(2, grid, shape))


@pytest.mark.long
@each_network
def test_a_prefix_of_many_examples_goes_through_some_at_a_time(
    name: str, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_module, "_rows", lambda device: 2 * prod(grid))
    assert list(stretches(3, prod(grid))) == [slice(0, 2), slice(2, 3)]
    check_prefill(network(name, grid, (6,), context=3).trunk, 3, grid, some_context(3, grid, "local"))


def test_a_cpu_computes_fewer_positions_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [len(list(stretches(8, 256, device))) for device in (cpu, gpu, None)] == [2, 1, 1]


@each_depth
def test_codes_are_embedded_for_a_prefix_as_at_a_step(sizes: tuple[int, ...]) -> None:
    net, grid = network("wavenet", (7,), sizes), (7,)
    codes = some_codes(2, grid, sizes)
    with torch.no_grad():
        state, whole = net.init(2, grid), net(codes)[0]
        net.prefill(state, grid, codes[:, :, :4])
        feature = net.step(state, 0, torch.tensor([4]))
        torch.testing.assert_close(net.logits(state, feature, 0), whole[:, 4])


@pytest.mark.parametrize(
    ("trunk", "grid"),
    [
        (PixelCNN(2, hidden=8, layers=3), (9, 8)),
        (PixelCNN(3, hidden=8, layers=2), (3, 4, 5)),
        (WaveNet(hidden=8, blocks=2, layers=4), (64,)),
    ],
    ids=["pixelcnn-2d", "pixelcnn-3d", "wavenet"],
)
def test_a_prefix_longer_than_what_a_state_keeps(trunk: Trunk, grid: Grid) -> None:
    check_prefill(trunk.double().eval(), 2, grid)


@pytest.mark.long
@pytest.mark.parametrize(
    ("trunk", "grid"),
    [
        (PixelCNN(2, hidden=32, layers=4), (32, 32)),
        (PixelCNN(3, hidden=16, layers=3), (3, 10, 12)),
        (WaveNet(hidden=32, layers=8), (600,)),
        (Transformer((20, 20), hidden=64, layers=4, heads=4), (20, 20)),
    ],
    ids=["pixelcnn-2d", "pixelcnn-3d", "wavenet", "transformer"],
)
def test_stepping_gives_the_logits_of_forward_at_real_size(trunk: Trunk, grid: Grid) -> None:
    """Float32, at every position of grids larger than any kernel, ring or stretch."""
    torch.manual_seed(0)
    net = CausalNetwork(trunk, (512,)).eval()
    assert_steps_equal_forward(net, some_codes(2, grid, (512,)), None, 1e-5)


@pytest.mark.few(9)
@pytest.mark.parametrize(
    ("prefix", "sampling"),
    [
        (0, SamplingOptions()),
        (3, SamplingOptions()),
        (0, SamplingOptions(temperature=0.7, top_k=3)),
        (0, SamplingOptions(top_p=0.6)),
        (0, SamplingOptions(guidance=2.5)),
        (2, SamplingOptions(guidance=0.5, temperature=1.3, top_k=4, top_p=0.9)),
    ],
    ids=["plain", "prefix", "top_k", "top_p", "guidance", "all"],
)
@each_depth
@each_network
def test_the_sampler_is_the_slow_one(
    name: str, grid: Grid, sizes: tuple[int, ...], prefix: int, sampling: SamplingOptions
) -> None:
    net, n = network(name, grid, sizes, context=3), 3
    axes = [grid[0], *[1] * (len(grid) - 1)]
    context, unconditional = torch.randn(2, n, 3, *axes, dtype=torch.float64)
    options: dict[str, Any] = {
        "context": context,
        "unconditional": unconditional,
        "prefix": some_codes(n, grid, sizes).flatten(2)[:, :, :prefix],
    }
    both = [
        draw(net, n, grid, sampling, generator=torch.Generator().manual_seed(5), **options)
        for draw in (sample, sample_slowly)
    ]
    assert torch.equal(*both)
    assert len(both[0].unique()) > 1


@each_network
def test_context_reaches_every_position_of_every_depth(name: str, grid: Grid) -> None:
    sizes = (3, 2)
    net, codes = network(name, grid, sizes, context=2), some_codes(1, grid, sizes)
    contexts = torch.randn(2, 1, 2, *[1] * len(grid), dtype=torch.float64)
    for one, other in zip(net(codes, contexts[0]), net(codes, contexts[1]), strict=True):
        assert (one - other).abs().amin() > 0


@each_network
def test_a_state_is_of_plain_tensors_and_starts_afresh(name: str, grid: Grid) -> None:
    """Two samples one after the other are the same: a state leaves nothing behind in the network, and weights that have
    changed are read anew."""
    net, n = network(name, grid, (5,)), 4

    def drawn() -> Tensor:
        return sample(net, n, grid, generator=torch.Generator().manual_seed(0))

    first = drawn()
    assert torch.equal(first, drawn())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.neg_()
    assert not torch.equal(first, drawn())
    assert torch.equal(drawn(), sample_slowly(net, n, grid, generator=torch.Generator().manual_seed(0)))


def test_depth_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="depth is 0"):
        CausalNetwork(PixelCNN(2, hidden=4, layers=1), ())


def test_log_prob_is_that_of_the_logits() -> None:
    net, codes = network("pixelcnn", (4, 5), (4, 2, 5)), some_codes(3, (4, 5), (4, 2, 5))
    with torch.no_grad():
        parts = [
            p.log_softmax(-1).gather(-1, codes[:, d].unsqueeze(-1)).flatten(1).sum(1) for d, p in enumerate(net(codes))
        ]
        torch.testing.assert_close(net.log_prob(codes), sum(parts))


def test_levels_in_order_start_as_alike_as_they_are_near() -> None:
    torch.manual_seed(0)
    rows = smooth(32, 40_000)
    levels = torch.linspace(-1, 1, 32)
    expected = torch.exp(-((levels[:, None] - levels) ** 2) / (2 * REACH**2))
    torch.testing.assert_close(rows @ rows.T / 40_000, expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(("ordered", "alike"), [(True, 1.0), (False, 0.0)])
def test_the_neighbours_of_a_level_start_alike_and_those_of_a_code_do_not(ordered: bool, alike: float) -> None:
    torch.manual_seed(0)
    net = CausalNetwork(WaveNet(hidden=400, blocks=1, layers=1), (256, 256), head=8, ordered=ordered)
    for table in net.tables:
        rows = table.get_parameter("weight").detach()
        assert float(rows.var()) == pytest.approx(0.5, rel=0.15)
        assert float((rows[1:] * rows[:-1]).mean() / rows.square().mean()) == pytest.approx(alike, abs=0.05)
