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
