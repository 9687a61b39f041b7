"""Recorded steps of sampling: captured graphs on a stand-in GPU, and compiled code on a CPU, kept between calls."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.causal import graphs, sampling
from toolkit.causal.batch import opaque, refill, tensors
from toolkit.causal.network import CausalNetwork
from toolkit.causal.pixelcnn import PixelCNN
from toolkit.causal.sampling import compiled, sample
from toolkit.causal.transformer import Transformer
from toolkit.causal.wavenet import WaveNet
from toolkit.prior import SamplingOptions
from toolkit.testing.accelerator import StandIn, stand_in

MAKERS: dict[str, tuple[Callable[[], CausalNetwork], tuple[int, ...]]] = {
    "pixelcnn": (lambda: CausalNetwork(PixelCNN(2, context=2, hidden=8, layers=2, kernel_size=5), (7, 3)), (4, 3)),
    "pixelcnn-3d": (lambda: CausalNetwork(PixelCNN(3, context=2, hidden=8, layers=2, kernel_size=3), (7,)), (3, 2, 3)),
    "wavenet": (lambda: CausalNetwork(WaveNet(context=2, hidden=8, blocks=2, layers=3, skip=8), (7,)), (12,)),
    "transformer": (lambda: CausalNetwork(Transformer((4, 4), context=2, hidden=8, layers=2, heads=2), (7,)), (4, 4)),
}
OPTIONS = SamplingOptions(temperature=0.8, top_k=5, top_p=0.9, guidance=2.0)

each_network = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture
def gpu() -> Iterator[StandIn]:
    with stand_in() as device:
        yield device
    graphs.forget()


def network(name: str = "wavenet") -> tuple[CausalNetwork, tuple[int, ...]]:
    torch.manual_seed(0)
    make, grid = MAKERS[name]
    return make().eval(), grid


def draw(net: CausalNetwork, grid: tuple[int, ...], n: int = 3, seed: int = 0, **given: Any) -> Tensor:
    """Codes of conditions of their own, on the CPU."""
    random = torch.Generator().manual_seed(seed)
    context = torch.randn(n, 2, *[1] * len(grid), generator=random)
    device = net.proj.weight.device
    return sample(
        net, n, grid, context=context.to(device), unconditional=0 * context.to(device), generator=random, **given
    ).cpu()


@pytest.mark.parametrize("given", [{}, {"sampling": OPTIONS, "prefix": 6}], ids=["plain", "options"])
@each_network
@pytest.mark.few(3)
def test_captured_steps_give_the_codes_of_the_cpu(gpu: StandIn, name: str, given: dict[str, Any]) -> None:
    net, grid = network(name)
    if "prefix" in given:
        given = {**given, "prefix": torch.randint(3, (3, len(net.codebook_sizes), given["prefix"]))}
    expected = [draw(net, grid, seed=seed, **given) for seed in (0, 1)]
    net = net.to("cuda")
    made = []
    for seed in (0, 1):
        made.append(draw(net, grid, seed=seed, **given))
        assert torch.equal(made[seed], expected[seed])
        steps = {net.trunk.graph_id(grid, position, coarse=True) for position in range(prod(grid))}
        assert 0 < len(gpu.graphs) <= len(steps)  # by both together
    assert not torch.equal(*made)
    assert all(graph.replays > 1 for graph in gpu.graphs)
    assert {graph.error_mode for graph in gpu.graphs} == {"thread_local"}
    assert len({graph.pool_id for graph in gpu.graphs}) == 1


def test_slices_share_their_graphs(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    net, grid = network()
    expected = draw(net, grid, n=7)
    monkeypatch.setattr(sampling, "_at_once", lambda *_, **__: 3)
    assert torch.equal(draw(net.to("cuda"), grid, n=7), expected)
    assert len(gpu.graphs) == 1
    assert gpu.graphs[0].replays == 3 * 12 - 1


@pytest.mark.long
@each_network
def test_what_is_trained_meanwhile_counts(gpu: StandIn, name: str) -> None:
    net, grid = network(name)
    net = net.to("cuda")
    before = draw(net, grid, n=8)
    captured = len(gpu.graphs)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    after = draw(net, grid, n=8)
    assert len(gpu.graphs) == captured
    assert not torch.equal(after, before)
    assert torch.equal(after, draw(net.to("cpu"), grid, n=8))


def test_weights_that_move_take_new_graphs(gpu: StandIn) -> None:
    net, grid = network()
    net = net.to("cuda")
    draw(net, grid)
    old = weakref.ref(next(iter(graphs._shelves[net].batches.values())))
    for weight in net.parameters():
        weight.data = 2 * weight.data
    after = draw(net, grid)
    gc.collect()
    assert old() is None
    assert len(gpu.graphs) == 2
    assert torch.equal(after, draw(net.to("cpu"), grid))


def test_other_options_take_other_graphs(gpu: StandIn) -> None:
    net, grid = network()
    expected = draw(net, grid, sampling=OPTIONS)
    net = net.to("cuda")
    draw(net, grid)
    assert torch.equal(draw(net, grid, sampling=OPTIONS), expected)
    assert len(gpu.graphs) == 2
    assert len({graph.pool_id for graph in gpu.graphs}) == 1


def test_what_is_kept_ends_with_the_network_or_when_it_is_much(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    net, grid = network()
    net = net.to("cuda")
    draw(net, grid)
    kept = weakref.ref(next(iter(graphs._shelves[net].batches.values())))
    del net
    gc.collect()
    assert kept() is None
    net, grid = network()
    net = net.to("cuda")
    draw(net, grid, n=2)
    draw(net, grid, n=3)
    monkeypatch.setattr(graphs, "KEPT", max(kept.batch.bytes for kept in graphs._shelves[net].batches.values()))
    graphs.trim(net)
    assert [kept.batch.n for kept in graphs._shelves[net].batches.values()] == [3]
    graphs.forget(net)
    assert net not in graphs._shelves


def test_contexts_are_left_as_they_are(gpu: StandIn) -> None:
    net, grid = network("pixelcnn")
    net = net.to("cuda")
    context = torch.randn(2, 2, 1, 1).to("cuda")
    before = context.clone()
    sample(net, 2, grid, context=context)
    sample(net, 2, grid, context=0 * context)
    assert torch.equal(context.cpu(), before.cpu())


def test_a_state_with_parts_unknown_is_not_kept(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    net, grid = network()
    assert not opaque(net.init(1, grid))
    assert opaque([net.init(1, grid), object()])
    expected = [draw(net, grid, seed=seed) for seed in (0, 1)]
    net = net.to("cuda")
    monkeypatch.setattr(graphs, "opaque", lambda state: True)
    assert [draw(net, grid, seed=seed).tolist() for seed in (0, 1)] == [codes.tolist() for codes in expected]
    assert len(gpu.graphs) == 2


@torch.inference_mode()
@each_network
def test_a_refilled_state_is_a_fresh_one(name: str) -> None:
    net, grid = network(name)
    state, fresh = (net.init(2, grid, torch.randn(2, 2, *[1] * len(grid))) for _ in range(2))
    net.prefill(state, grid, torch.zeros(2, len(net.codebook_sizes), 5, dtype=torch.int64))
    at = [tensor.data_ptr() for tensor in tensors(state)]
    assert not all(torch.equal(*pair) for pair in zip(tensors(state), tensors(fresh), strict=True))
    refill(state, fresh)
    assert [tensor.data_ptr() for tensor in tensors(state)] == at
    assert all(torch.equal(*pair) for pair in zip(tensors(state), tensors(fresh), strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler uses what torch has deprecated
@pytest.mark.parametrize("name", ["pixelcnn", "wavenet"])
def test_compiled_steps_are_compiled_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, grid = network(name)
    net = net.double()
    monkeypatch.setattr(sampling, "_at_once", lambda *_, **__: 2)
    random = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    expected = sample(net, 3, grid, generator=random())
    torch._dynamo.utils.counters.clear()
    with compiled():
        assert torch.equal(sample(net, 3, grid, generator=random()), expected)
        steps = {net.trunk.graph_id(grid, position, coarse=True) for position in range(prod(grid))}
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(steps)
        with torch.no_grad():
            for weight in net.parameters():
                weight.mul_(1.5)
        after = sample(net, 3, grid, generator=random())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(steps)
    assert torch.equal(after, sample(net, 3, grid, generator=random()))
    graphs.forget()
