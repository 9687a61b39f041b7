"""The loop that draws codes: what is picked, in which batches, and how fast steps are made."""

from __future__ import annotations

import pytest
import torch

from toolkit.causal import sampling
from toolkit.causal.network import CausalNetwork
from toolkit.causal.pixelcnn import PixelCNN
from toolkit.causal.sampling import compiled, sample, sample_logits
from toolkit.causal.transformer import Transformer
from toolkit.causal.wavenet import WaveNet
from toolkit.errors import ToolkitError
from toolkit.prior import SamplingOptions


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(context: int = 0) -> CausalNetwork:
    torch.manual_seed(0)
    return CausalNetwork(PixelCNN(2, context=context, hidden=8, layers=2, kernel_size=3), (7, 3), head=8).double()


def picked(sampling: SamplingOptions) -> set[int]:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(999, 4)
    return set(sample_logits(logits, torch.linspace(0, 1, 1001, dtype=torch.float64)[1:-1], sampling).tolist())


def test_pick_inverts_the_cumulative_distribution() -> None:
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log().expand(6, 4)
    uniform = torch.tensor([0.0, 0.099, 0.101, 0.499, 0.501, 0.999], dtype=torch.float64)
    assert sample_logits(logits, uniform).tolist() == [0, 0, 1, 1, 2, 3]


def test_pick_never_takes_an_impossible_code() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(2, 5)
    assert sample_logits(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).tolist() == [1, 3]


def test_filters_leave_the_likeliest_codes() -> None:
    assert picked(SamplingOptions()) == {0, 1, 2, 3}
    assert picked(SamplingOptions(top_k=1)) == {1}
    assert picked(SamplingOptions(top_k=3)) == {1, 2, 3}
    assert picked(SamplingOptions(top_k=9)) == {0, 1, 2, 3}
    assert picked(SamplingOptions(top_p=0.3)) == {1}
    assert picked(SamplingOptions(top_p=0.6)) == {1, 3}
    assert picked(SamplingOptions(top_p=1.0)) == {0, 1, 2, 3}
    assert picked(SamplingOptions(top_k=2, top_p=0.5)) == {1}
    assert picked(SamplingOptions(temperature=0.01)) == {1}


def test_filters_keep_a_uniform_distribution() -> None:
    uniform = torch.linspace(0, 1, 101, dtype=torch.float64)[:-1]
    assert len(sample_logits(torch.zeros(100, 7), uniform, SamplingOptions(top_k=2, top_p=0.3)).unique()) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature=0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_p": 0.0}, "top_p=0"),
    ],
)
def test_controls_that_leave_nothing_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        SamplingOptions(**options)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_batches_by_memory_change_nothing(guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    net, n, grid = network(context=2), 7, (4, 4)
    context, none = torch.randn(2, n, 2, 4, 1, dtype=torch.float64)
    prefix = torch.randint(3, (n, 2, 3))
    told: list[int] = []

    def draw() -> torch.Tensor:
        told.clear()
        return sample(
            net,
            n,
            grid,
            SamplingOptions(guidance=guidance),
            context=context,
            unconditional=none,
            prefix=prefix,
            generator=generator(),
            progress=told.append,
        )

    whole = draw()
    each = sampling._at_once(net, n, grid, [context], torch.device("cpu"))
    assert each == n
    started: list[int] = []
    init = CausalNetwork.init
    monkeypatch.setattr(sampling, "MEMORY", 1 << 16)
    monkeypatch.setattr(CausalNetwork, "init", lambda self, batch, *a: started.append(batch) or init(self, batch, *a))
    assert torch.equal(draw(), whole)
    assert max(started[2:]) < n
    assert told == sorted(told)
    assert told[-1] == 16


def test_a_state_of_more_examples_is_larger() -> None:
    """What batches by memory are counted by."""
    net = network()
    small, large = (sampling._bytes(net.init(n, (8, 8))) for n in (1, 9))
    assert 4 < (large - small) / (sampling._bytes(net.init(2, (8, 8))) - small) <= 8.001


@pytest.mark.parametrize(
    ("net", "grid"),
    [
        (CausalNetwork(PixelCNN(2, hidden=8, layers=2, kernel_size=5), (7, 3)), (3, 4)),
        (CausalNetwork(PixelCNN(3, hidden=8, layers=1, kernel_size=3), (7,)), (2, 2, 3)),
        (CausalNetwork(WaveNet(hidden=8, blocks=1, layers=3), (7,)), (12,)),
        (CausalNetwork(Transformer((12,), hidden=8, layers=1, heads=2), (7,)), (12,)),
    ],
    ids=["pixelcnn-2d", "pixelcnn-3d", "wavenet", "transformer"],
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own compiler uses what torch has deprecated
@pytest.mark.parametrize("n", [1, 3])
def test_compiled_steps_give_the_same_codes(net: CausalNetwork, grid: tuple[int, ...], n: int) -> None:
    net = net.double()
    plain = sample(net, n, grid, generator=generator())
    with compiled():
        assert torch.equal(sample(net, n, grid, generator=generator()), plain)


@pytest.mark.long
@pytest.mark.long
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("name", ["pixelcnn", "wavenet", "transformer"])
def test_a_step_asks_nothing_of_the_device(name: str, n: int) -> None:
    """It is one graph of operations on tensors, so that it can be compiled whole, or captured on a GPU and replayed."""
    trunk, grid = {
        "pixelcnn": (PixelCNN(2, hidden=8, layers=2, kernel_size=5), (3, 4)),
        "wavenet": (WaveNet(hidden=8, blocks=1, layers=3), (12,)),
        "transformer": (Transformer((12,), hidden=8, layers=1, heads=2), (12,)),
    }[name]
    net = CausalNetwork(trunk, (7, 3)).double()
    plain = sample(net, n, grid, generator=generator())
    seen = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        seen.append(graph)
        return graph

    torch._dynamo.reset()
    make = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda step, **_: make(step, fullgraph=True, dynamic=False, backend=backend))
        with compiled():
            assert torch.equal(sample(net, n, grid, generator=generator()), plain)
    keys = {net.trunk.graph_id(grid, position, coarse=True) for position in range(12)}
    assert len(seen) == len(keys) <= 8


def test_samples_can_be_differentiated_through() -> None:
    """They are made in inference mode, but no such tensors."""
    codes = sample(network(), 2, (3, 3), generator=generator())
    table = torch.randn(7, 4, requires_grad=True)
    torch.nn.functional.embedding(codes, table).sum().backward()
    assert table.grad is not None
