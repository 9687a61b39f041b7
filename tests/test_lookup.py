"""The nearest entry, found without all distances."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from toolkit.nn import lookup
from toolkit.nn.lookup import nearest


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("tile", [1, 60, 61, 1 << 20])
def test_nearest_is_the_smallest_distance(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr(lookup, "TILE", tile)
    z, codebook = latents(97, 5), latents(300, 5)
    assert torch.equal(nearest(z, codebook), torch.cdist(z, codebook).argmin(1))


@pytest.mark.parametrize("dim", [2, 5, 70])
def test_few_rows_have_the_entries_of_many(dim: int) -> None:
    """As they arrive in a stream, to the last tie."""
    z, codebook = torch.randn(200, dim).mul(4).round(), torch.randn(60, dim).mul(4).round()
    assert torch.equal(torch.cat([nearest(row, codebook) for row in z.split(3)]), nearest(z, codebook))


@pytest.mark.parametrize("missing", [False, True])
def test_the_products_of_both_libraries_agree(monkeypatch: pytest.MonkeyPatch, missing: bool) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: not missing)
    z, weight, bias = latents(70, 5), latents(64, 5), latents(64)
    made = lookup._linear(z.float(), weight.float(), bias.float())
    torch.testing.assert_close(made, (z @ weight.T + bias).float())


def test_nearest_keeps_to_its_tile(largest: Any) -> None:
    z, codebook = torch.randn(70_000, 3), torch.randn(64, 3)
    with largest:
        nearest(z, codebook)
    assert z.numel() <= largest.numel <= lookup.TILE < len(z) * len(codebook)


@pytest.mark.parametrize("onednn", [False, True])
def test_nearest_tells_close_entries_apart_under_autocast(monkeypatch: pytest.MonkeyPatch, onednn: bool) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    z, codebook = torch.randn(200, 16), torch.randn(1000, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest(z, codebook), torch.cdist(z.double(), codebook.double()).argmin(1))


def test_nearest_tells_close_entries_apart_far_from_the_origin() -> None:
    codebook = torch.full((50, 64), 100.0)
    codebook[:, 0] += torch.arange(50) / 100
    z = codebook + 0.001 * torch.randn(50, 64)
    assert torch.equal(nearest(z, codebook), torch.arange(50))


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 1000])
def test_the_first_of_equals_is_nearest(size: int) -> None:
    codebook = torch.ones(size, 3)
    assert not nearest(torch.randn(9, 3), codebook).any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_codes_of_no_numbers_are_codes(value: float) -> None:
    z = torch.full((4, 3), value)
    assert nearest(z, torch.randn(100, 3)).lt(100).all()


@pytest.mark.long
@pytest.mark.parametrize("dim", [1, 3, 5])
@pytest.mark.parametrize("tile", [1, 600, 1 << 20])
def test_several_tables_are_searched_as_each_by_itself(monkeypatch: pytest.MonkeyPatch, tile: int, dim: int) -> None:
    monkeypatch.setattr(lookup, "TILE", tile)
    z, codebooks = torch.randn(4, 97, dim), torch.randn(4, 130, dim)
    few = lookup._among_few(z, lookup._tables(codebooks))
    assert torch.equal(few, torch.stack([nearest(*pair) for pair in zip(z, codebooks, strict=True)]))
    codebooks[1] = codebooks[1, :2].repeat(65, 1)  # whose rows all need a second look
    expected = torch.stack([nearest(*pair) for pair in zip(z, codebooks, strict=True)])
    assert torch.equal(nearest(z, codebooks), expected)


def test_fake_rows_are_one_tile() -> None:
    """A film's proof of fit would else take a minute: thousands of tiles, each of many operations without values."""
    with FakeTensorMode(), Operations() as few:
        nearest(torch.zeros(100, 3), torch.zeros(512, 3))
    with FakeTensorMode(), Operations() as many:
        nearest(torch.zeros(1 << 24, 3), torch.zeros(512, 3))
    assert many.count == few.count


class Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def excess(z: Tensor, codebook: Tensor, codes: Tensor) -> float:
    """By what share the squared distances of the codes exceed the smallest, both in float64."""
    z, codebook = z.double(), codebook.double()
    best = torch.cat([(part[:, None] - codebook).square().sum(2).amin(1) for part in z.split(16)])
    chosen = (z - codebook[codes]).square().sum(1)
    return float(((chosen - best) / best.clamp(min=1e-300)).max())


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape) * 2 - 1


def in_two_clusters(size: int, dim: int) -> Tensor:
    """Far from one another, and each a thousandth of that wide."""
    return torch.cat([100 + 0.1 * torch.randn(size // 2, dim), -100 + 0.1 * torch.randn(size // 2, dim)])


def on_a_diagonal(size: int, dim: int) -> Tensor:
    """Entries of a codebook that collapsed to one direction."""
    return uniform(size, 1) * torch.randn(1, dim)


TABLES = {
    "a fine line": uniform(4096, 1),
    "a finer line": uniform(16384, 1),
    "a line far away": 1000 + uniform(4096, 1),
    "a plane": uniform(16384, 2),
    "a fine plane": torch.cartesian_prod(torch.linspace(-1, 1, 64), torch.linspace(0, 1e-3, 64)),
    "four dims": torch.randn(4096, 4),
    "far away": 1e4 + torch.randn(512, 64),
    "normal": torch.randn(1024, 64),
    "clusters": in_two_clusters(512, 8),
    "a diagonal": on_a_diagonal(4096, 16),
}

each_table = pytest.mark.parametrize("codebook", TABLES.values(), ids=TABLES)


def among(codebook: Tensor, n: int = 64) -> Tensor:
    """Latents about as far from entries as these are from one another."""
    entries = codebook[torch.randint(len(codebook), (n,))]
    others = codebook[torch.randint(len(codebook), (n,))]
    gaps = torch.cdist(codebook[:16], codebook)
    gap = gaps.masked_fill_(gaps == 0, torch.inf).amin(1).median()
    return torch.cat([entries + gap * torch.randn_like(entries), (entries + others) / 2])


SUMMED = 4
"""Units in the last place of a squared distance that is summed in float32: for each of its roundings, and a few."""


@each_table
def test_nothing_is_nearer(codebook: Tensor) -> None:
    """But for the rounding of (z - e)^2 itself, in float32."""
    z = among(codebook)
    ulps = SUMMED + codebook.shape[1] ** 0.5
    assert excess(z, codebook, nearest(z, codebook)) <= ulps * torch.finfo(torch.float32).eps


@each_table
def test_an_entry_is_nearest_to_itself(codebook: Tensor) -> None:
    distinct = codebook.unique(dim=0)
    distinct = distinct[torch.randperm(len(distinct))]
    assert torch.equal(nearest(distinct, distinct), torch.arange(len(distinct)))


@each_table
def test_the_first_of_equal_entries_is_nearest(codebook: Tensor) -> None:
    z = among(codebook, 32)
    assert torch.equal(nearest(z, torch.cat([codebook, codebook.flip(0)])), nearest(z, codebook))


@pytest.mark.long
@pytest.mark.parametrize("tile", [1 << 12, 1 << 16])
@each_table
def test_tiles_and_rows_do_not_matter(monkeypatch: pytest.MonkeyPatch, codebook: Tensor, tile: int) -> None:
    z = among(codebook, 8)
    expected = torch.cat([nearest(one, codebook) for one in z.split(1)])
    monkeypatch.setattr(lookup, "TILE", tile)
    assert torch.equal(nearest(z, codebook), expected)


@each_table
def test_half_precision_is_compared_as_its_numbers_are(codebook: Tensor) -> None:
    z = among(codebook).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest(z, codebook), nearest(z.float(), codebook))


@pytest.mark.long
@pytest.mark.parametrize("name", ["a fine line", "normal", "clusters"])
def test_a_compiled_lookup_is_the_same(name: str) -> None:
    torch._dynamo.reset()
    codebook = TABLES[name]
    z, compiled = among(codebook), torch.compile(nearest, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(z, codebook), nearest(z, codebook))


class Lookup(torch.nn.Module):
    def forward(self, z: Tensor, codebook: Tensor) -> Tensor:
        return nearest(z, codebook)


@pytest.mark.long
@pytest.mark.parametrize("name", ["a fine line", "a fine plane", "four dims", "far away", "normal"])
@pytest.mark.few(1)
def test_an_exported_lookup_is_as_near(name: str) -> None:
    """Among the few that seem nearest, as on a GPU: enough but where many entries are as near as rounding."""
    codebook = TABLES[name]
    z = among(codebook)
    rows = {0: torch.export.Dim("rows", max=1 << 20)}
    graph = torch.export.export(Lookup(), (z[:5], codebook), dynamic_shapes=(rows, None)).module()
    ulps = SUMMED + codebook.shape[1] ** 0.5
    assert excess(z, codebook, graph(z, codebook)) <= ulps * torch.finfo(torch.float32).eps


@each_table
def test_few_candidates_are_nearly_always_enough(codebook: Tensor) -> None:
    """What a GPU does, here on the CPU."""
    z = among(codebook)
    tables = codebook.unsqueeze(0)
    few = (
        lookup._among_few(z.unsqueeze(0), lookup._tables(tables))[0] if codebook.shape[1] > 1 else nearest(z, codebook)
    )
    assert (few == nearest(z, codebook)).float().mean() > 0.5
