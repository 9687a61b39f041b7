"""Quantizers side by side."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.nn import lookup
from toolkit.quantizer import Quantized, Quantizer
from toolkit.quantizers import ema, vq
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.accelerator import stand_in
from toolkit.testing.quantizer import QuantizerSuite


class TestProductQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_vq)


class TestProductOfEMA(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_ema, groups=4)


class TestSharedProduct(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_ema, shared=True)


def small_vq(dim: int) -> VectorQuantizer:
    return VectorQuantizer(dim, codebook_size=6)


def small_ema(dim: int) -> EMAQuantizer:
    return EMAQuantizer(dim, codebook_size=6)


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_groups_are_separate_quantizers() -> None:
    product = ProductQuantizer(10, inner=small_vq, groups=5).double().eval()
    z = latents(3, 10, 4)
    made = product(z)
    parts = [part(z[:, 2 * g : 2 * g + 2]) for g, part in enumerate(product.inner)]
    assert torch.equal(made.codes, torch.cat([part.codes for part in parts], 1))
    assert torch.equal(made.z, torch.cat([part.z for part in parts], 1))
    torch.testing.assert_close(made.loss, sum(part.loss for part in parts))
    torch.testing.assert_close(made.kl, torch.full((3,), 5 * 4 * log(6), dtype=torch.float64))


def test_ten_groups_are_the_papers_cifar_latents() -> None:
    product = ProductQuantizer(640, groups=10)
    assert (product.depth, product.codebook_sizes) == (10, (512,) * 10)
    assert product(torch.randn(2, 640, 8, 8)).codes.shape == (2, 10, 8, 8)


def test_missing_groups_embed_as_zeros() -> None:
    product = ProductQuantizer(6, inner=small_vq, groups=3).eval()
    made = product(torch.randn(2, 6, 4))
    assert torch.equal(product.embed(made.codes[:, :2])[:, :4], made.z[:, :4])
    assert not product.embed(made.codes[:, :2])[:, 4:].any()


def placed_ema(dim: int) -> EMAQuantizer:
    """One that draws nothing."""
    quantizer = EMAQuantizer(dim, codebook_size=4, dead_code_threshold=0.0, init="random").double()
    quantizer.codebook.normal_()
    quantizer.sums.copy_(quantizer.codebook)
    return quantizer


def test_shared_groups_take_one_step_of_one_table() -> None:
    shared = ProductQuantizer(6, inner=placed_ema, groups=3, shared=True)
    assert len(list(shared.inner)) == 1
    alone = placed_ema(2)
    alone.load_state_dict(shared.inner[0].state_dict())
    z = latents(4, 6, 5)
    made, plain = shared(z), alone(torch.cat(z.chunk(3, 1)))
    assert torch.equal(made.codes, torch.cat(plain.codes.chunk(3), 1))
    assert torch.equal(made.z, torch.cat(plain.z.chunk(3), 1))
    torch.testing.assert_close(made.loss, plain.loss.view(3, 4).sum(0))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shared.inner[0].state_dict()[name], value)


# Counts start at the expected count and move by a hundredth of the way: at this threshold some are revived each step.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "revived": {"dead_code_threshold": 0.998},
    "kmeans": {"init": "kmeans", "dead_code_threshold": 0.998},
    "entropy": {"entropy": 0.3, "entropy_temperature": 2.0},
    "rotation": {"gradient": "rotation"},
    "normalized": {"normalize": True, "dead_code_threshold": 0.998},
}


def one_by_one(product: ProductQuantizer, z: Tensor) -> Quantized:
    """The groups' own results, each quantizer by itself."""
    chunks = z.chunk(product.groups, 1)
    made = [part(chunk) for part, chunk in zip(product.inner, chunks, strict=True)]
    error = torch.stack([part.metrics["quantization_error"] for part in made]).sum()
    whole = (torch.cat([part[i] for part in made], 1) for i in range(2))
    return Quantized(*whole, sum(part.loss for part in made), sum(part.kl for part in made), {"error": error})


def trained(kind: Any, options: dict[str, Any], quantize: Callable[[Any, Tensor], Quantized]) -> list[Tensor]:
    """All that four steps give, gradients and states included, and the random number after them."""
    torch.manual_seed(0)
    product = ProductQuantizer(15, inner=lambda dim: kind(dim, codebook_size=7, **options), groups=3).double()
    results = []
    for _ in range(4):
        z, weight = latents(4, 15, 3, 5).requires_grad_(), latents(4, 15, 3, 5)
        made = quantize(product, z)
        ((made.z * weight).sum() + made.loss.sum()).backward()
        results += [*made[:4], *made.metrics.values(), z.grad]
        for parameter in product.parameters():
            assert parameter.grad is not None
            results.append(parameter.grad.clone())
            parameter.data -= 0.1 * parameter.grad
            parameter.grad = None
        results += [value.clone() for value in product.state_dict().values()]
    return [*results, torch.rand(1)]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", [VectorQuantizer, EMAQuantizer])
def test_groups_together_are_groups_one_by_one(kind: Any, options: dict[str, Any]) -> None:
    together = trained(kind, options, lambda product, z: product(z))
    apart = trained(kind, options, one_by_one)
    for mine, other in zip(together, apart, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("make", [small_vq, small_ema])
def test_alike_groups_are_searched_at_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[tuple[int, ...]] = []
    plain = lookup.nearest

    def counted(z: Tensor, entries: Tensor) -> Tensor:
        searched.append(tuple(z.shape))
        return plain(z, entries)

    for module in (vq, ema):
        monkeypatch.setattr(module, "nearest", counted)
    product = ProductQuantizer(10, inner=make, groups=5)
    for _ in range(2):
        product(torch.randn(3, 10, 4))
    assert searched == [(1, 12, 2)] * 5 + [(5, 12, 2)]
    product.inner[0].commitment = 7.0  # type: ignore[assignment]
    product(torch.randn(3, 10, 4))
    assert searched[6:] == [(1, 12, 2)] * 5


@pytest.mark.parametrize("kind", [VectorQuantizer, EMAQuantizer])
def test_more_groups_are_no_more_operations(kind: Any) -> None:
    counts = []
    for groups in (2, 7):
        inner = lambda dim: kind(dim, codebook_size=80, dead_code_threshold=0.5)  # noqa: E731
        with stand_in() as device:
            product = ProductQuantizer(8 * groups, inner=inner, groups=groups).to("cuda")
            for _ in range(2):
                product.zero_grad()
                device.operations.clear()
                made = product(torch.randn(3, 8 * groups, 4, device="cuda").requires_grad_())
                (made.z.sum() + made.loss.sum()).backward()
        counts.append(device.operations.copy())
    assert counts[0] == counts[1]


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_are_refused(groups: int) -> None:
    with pytest.raises(ValueError, match=f"dim=8 .* groups={groups}"):
        ProductQuantizer(8, groups=groups)
