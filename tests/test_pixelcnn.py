"""The gated PixelCNN: exactly the past, and the same code by code as all at once."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
import torch
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.pixelcnn import PixelCNN
from toolkit.priors.sampling import sample
from toolkit.spec import Condition
from toolkit.testing.reference import sample_slowly

GRIDS = [(7,), (4, 5), (2, 3, 4)]
SIZES = [(6,), (4, 2, 5)]


def network(
    grid: tuple[int, ...], sizes: tuple[int, ...], *, context: int = 0, layers: int = 3, hidden: int = 8
) -> PixelCNN:
    torch.manual_seed(0)
    made = PixelCNN(
        len(grid), sizes, context=context, hidden=hidden, layers=layers, kernel_size=3, head=12, dropout=0.1
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.double().eval()


def some_codes(n: int, grid: tuple[int, ...], sizes: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randint(size, (n, *grid)) for size in sizes], 1)


def reach(net: PixelCNN, grid: tuple[int, ...], position: int) -> Tensor:
    """Which positions' codes the feature of a position depends on, read off the gradient at some inputs."""
    weight = net.widen.weight
    embedded = torch.randn(8, weight.shape[1], *grid, dtype=weight.dtype, requires_grad=True)
    features = net.trunk(embedded).flatten(1, -2)[:, position]
    (gradient,) = torch.autograd.grad((features @ torch.randn(len(weight), dtype=weight.dtype)).sum(), embedded)
    return gradient.flatten(2).ne(0).any(0).any(0)


@pytest.mark.parametrize("grid", [(64,), (32, 32), (4, 12, 12)], ids=str)
def test_no_position_sees_itself_or_a_later_one(grid: tuple[int, ...]) -> None:
    net = PixelCNN(len(grid), (512,), hidden=32)
    for position in (0, 1, prod(grid) // 2 + 3, prod(grid) - 1):
        assert not reach(net, grid, position)[position:].any()


@pytest.mark.parametrize("grid", [(12,), (6, 6), (3, 4, 4)], ids=str)
def test_every_position_sees_all_earlier_ones(grid: tuple[int, ...]) -> None:
    net = network(grid, (5,), layers=max(grid), hidden=4)
    for position in range(prod(grid)):
        assert torch.equal(reach(net, grid, position), torch.arange(prod(grid)) < position)


def test_a_code_changes_only_later_logits() -> None:
    grid, sizes = (2, 3), (3, 2, 4)
    net, codes = network(grid, sizes), some_codes(1, grid, sizes)

    def in_order(codes: Tensor) -> list[Tensor]:
        logits = [part.flatten(1, -2) for part in net(codes)]
        return [logits[d][0, p] for p in range(prod(grid)) for d in range(len(sizes))]

    before = in_order(codes)
    for order, (position, depth) in enumerate(product(range(prod(grid)), range(len(sizes)))):
        changed = codes.clone()
        code = changed.flatten(2)[0, depth, position]
        changed.flatten(2)[0, depth, position] = (code + 1) % sizes[depth]
        same = [torch.equal(a, b) for a, b in zip(before, in_order(changed), strict=True)]
        assert all(same[: order + 1])
        assert not any(same[order + 1 : (position + 1) * len(sizes)])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("shape", ["none", "whole", "steps", "local"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_stepping_gives_the_logits_of_forward(
    grid: tuple[int, ...], sizes: tuple[int, ...], shape: str, dtype: torch.dtype, tolerance: float
) -> None:
    net = network(grid, sizes, context=0 if shape == "none" else 3).to(dtype)
    codes = some_codes(2, grid, sizes)
    axes = {"whole": [1] * len(grid), "steps": [grid[0], *[1] * (len(grid) - 1)], "local": grid}
    context = None if shape == "none" else torch.randn(2, 3, *axes[shape], dtype=dtype)
    with torch.no_grad():
        whole = [part.flatten(1, -2) for part in net(codes, context)]
        state = net.init(2, grid, context)
        for position in range(prod(grid)):
            feature = net.advance(state, position)
            for depth in range(len(sizes)):
                stepped = net.logits(feature, depth)
                torch.testing.assert_close(stepped, whole[depth][:, position], atol=tolerance, rtol=tolerance)
                entered = codes[:, depth].flatten(1)[:, position]
                feature = net.absorb(state, feature, position, depth, entered)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prefix": 3},
        {"temperature": 0.7, "top_k": 3},
        {"top_p": 0.6},
        {"guidance": 2.5},
        {"guidance": 0.5, "temperature": 1.3, "top_k": 4, "top_p": 0.9, "prefix": 2},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_sampler_is_the_slow_one(grid: tuple[int, ...], sizes: tuple[int, ...], options: dict) -> None:
    net, n = network(grid, sizes, context=3), 3
    if "prefix" in options:
        prefix = some_codes(n, grid, sizes).flatten(2)[:, :, : options["prefix"]]
        options = options | {"prefix": prefix}
    axes = [grid[0], *[1] * (len(grid) - 1)]
    context, unconditional = torch.randn(2, n, 3, *axes, dtype=torch.float64)
    both = [
        draw(
            net,
            n,
            grid,
            context=context,
            unconditional=unconditional,
            generator=torch.Generator().manual_seed(5),
            **options,
        )
        for draw in (sample, sample_slowly)
    ]
    assert torch.equal(*both)
    assert len(both[0].unique()) > 1


def test_context_reaches_every_position_of_every_depth() -> None:
    grid, sizes = (2, 3), (3, 2)
    net, codes = network(grid, sizes, context=2, layers=1), some_codes(1, grid, sizes)
    contexts = torch.randn(2, 1, 2, 1, 1, dtype=torch.float64)
    for one, other in zip(net(codes, contexts[0]), net(codes, contexts[1]), strict=True):
        assert (one - other).abs().amin() > 0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((4, (3,)), {}, "1 to 3 axes"),
        ((0, (3,)), {}, "1 to 3 axes"),
        ((2, ()), {}, "depth is 0"),
        ((2, (3,)), {"kernel_size": 4}, "kernel_size=4"),
        ((2, (3,)), {"layers": 0}, "layers=0"),
    ],
)
def test_what_it_cannot_be_is_refused(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        PixelCNN(*arguments, **options)


CONDITIONS = (Condition("kind", 3), Condition("move", 2, per_step=True), Condition("force", 2, real=True))


def test_whole_conditions_give_one_feature_each() -> None:
    embedding = ConditionEmbedding(CONDITIONS[:1], 5)
    labels = torch.tensor([0, 3, 0])
    features = embedding({"kind": labels, "stranger": labels}, 3)
    assert features.shape == (3, 5)
    assert torch.equal(features[0], features[2])
    assert torch.equal(features[1], embedding({}, 1)[0])
    assert not torch.equal(features[0], features[1])


def test_conditions_per_step_give_a_feature_per_step() -> None:
    embedding = ConditionEmbedding(CONDITIONS, 5)
    values = {
        "kind": torch.tensor([1, 2]),
        "move": torch.tensor([[0, 1, 2, 0]] * 2),
        "force": torch.randn(2, 4, 2),
    }
    features = embedding(values, 2)
    assert features.shape == (2, 5, 4)
    parts = [ConditionEmbedding.forward(embedding, {name: value}, 2) for name, value in values.items()]
    parts = [part.reshape(2, 5, -1) for part in parts]
    torch.testing.assert_close(features, sum(parts) - 2 * embedding({}, 2)[:, :, None])


def test_a_condition_that_does_not_change_is_the_same_at_every_step() -> None:
    embedding = ConditionEmbedding(CONDITIONS, 5)
    whole = {"move": torch.tensor([0, 2]), "force": torch.randn(2, 2)}
    steps = {name: value[:, None].expand(2, 4, *value.shape[1:]) for name, value in whole.items()}
    features = embedding(whole, 2)
    assert features.shape == (2, 5)
    torch.testing.assert_close(embedding(steps, 2), features[:, :, None].expand(2, 5, 4))


def test_examples_that_are_not_kept_have_no_conditions() -> None:
    embedding = ConditionEmbedding(CONDITIONS, 5)
    values = {"kind": torch.tensor([1, 2]), "move": torch.zeros(2, 4).long(), "force": torch.randn(2, 4, 2)}
    features = embedding(values, 2, keep=torch.tensor([True, False]))
    torch.testing.assert_close(features[0], embedding(values, 2)[0])
    torch.testing.assert_close(features[1], embedding({}, 1)[0, :, None].expand(5, 4))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("kind", (3,), r"\(3,\): it must be \(2\)"),
        ("kind", (2, 4), r"it must be \(2\)"),
        ("move", (3, 4), r"it must be \(2, steps\)"),
        ("force", (3, 2), r"it must be \(2, steps, 2\)"),
        ("force", (2, 4, 3), r"it must be \(2, steps, 2\)"),
    ],
)
def test_a_condition_of_another_shape_is_refused(name: str, shape: tuple[int, ...], expected: str) -> None:
    with pytest.raises(ToolkitError, match=rf"condition\.{name} has shape .*{expected}"):
        ConditionEmbedding(CONDITIONS, 5)({name: torch.zeros(shape).long()}, 2)


def test_steps_are_averaged_over_a_coarser_grid() -> None:
    steps = torch.arange(6.0).expand(1, 2, 6)
    assert over_grid(steps, (3, 4))[0, 0].tolist() == [[0.5], [2.5], [4.5]]
    assert over_grid(steps[..., 0], (3, 4)).shape == (1, 2, 1, 1)
