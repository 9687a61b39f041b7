"""Codes of large codebooks as several numbers of few values: the same probabilities, without a row per entry."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import pytest
import torch

from toolkit.errors import ToolkitError
from toolkit.nn.factors import factors_of, join, split
from toolkit.prior import Prior
from toolkit.priors.autoregressive import AutoregressivePrior
from toolkit.priors.factored import FactoredPrior
from toolkit.priors.maskgit import MaskGITPrior
from toolkit.priors.pixelcnn import PixelCNNPrior
from toolkit.priors.transformer import TransformerPrior
from toolkit.quantizer import Quantizer
from toolkit.quantizers.bsq import BSQQuantizer
from toolkit.quantizers.fsq import FSQQuantizer
from toolkit.quantizers.lfq import LFQQuantizer
from toolkit.spec import CodeSpec
from toolkit.testing.counting import every
from toolkit.testing.reference import sample_slowly

SMALL: dict[str, Any] = {
    "transformer": partial(TransformerPrior, hidden=8, layers=2, heads=2, head=8),
    "pixelcnn": partial(PixelCNNPrior, hidden=6, layers=2, kernel_size=3, head=8),
    "maskgit": partial(MaskGITPrior, hidden=8, layers=2, heads=2, passes=3),
}


def factored(code_spec: CodeSpec, inner: str = "transformer", **options: Any) -> FactoredPrior:
    torch.manual_seed(0)
    prior = FactoredPrior(code_spec, (), inner=SMALL[inner], **options).double().eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return prior


def inside(prior: Prior) -> AutoregressivePrior:
    assert isinstance(prior, FactoredPrior)
    assert isinstance(prior.inner, AutoregressivePrior)
    return prior.inner


def test_every_code_has_its_own_numbers() -> None:
    for size in (1, 2, 7, 64, 1000, 1009, 4096):
        for largest in (1, 2, 5, 64):
            factors, codes = factors_of(size, largest), torch.arange(size)
            parts = split(codes, factors)
            assert prod(factors) == size
            assert torch.equal(join(parts.unbind(), factors), codes)
            assert all((part < factor).all() for part, factor in zip(parts, factors, strict=True))
    assert factors_of(2**18, 64) == (64, 64, 64)
    assert factors_of(2**18, 2) == (2,) * 18
    assert factors_of(6 * 1009, 8) == (6, 1009)


@pytest.mark.parametrize(
    ("quantizer", "factors"),
    [(FSQQuantizer(levels=(4, 3, 5)), (4, 3, 5)), (LFQQuantizer(bits=6, heads=1), None), (BSQQuantizer(bits=6), None)],
    ids=["fsq", "lfq", "bsq"],
)
def test_the_numbers_are_levels_and_bits(quantizer: Quantizer, factors: tuple[int, ...] | None) -> None:
    """Each depends on one channel of the quantizer's latents, and on no other."""
    code_spec = CodeSpec((1,), quantizer.codebook_sizes)
    prior, codes = factored(code_spec, factors=factors, largest=2), every(code_spec)
    numbers, latents = prior._split(codes).flatten(1), quantizer.embed(codes).flatten(1)
    channels = set(range(latents.shape[1]))
    for number in numbers.unbind(1):
        pairs = {c: len(torch.stack((number, latents[:, c]), 1).unique(dim=0)) for c in channels}
        (channel,) = [c for c, count in pairs.items() if count == len(number.unique())]
        channels.remove(channel)
    assert not channels


@torch.no_grad()
@pytest.mark.parametrize("inner", ["transformer", "pixelcnn"])
def test_the_loss_is_the_product_of_softmaxes(inner: str) -> None:
    """Of all 64 codes at the last of two positions, written out."""
    prior, codes = (
        factored(CodeSpec((2,), (64,)), inner, largest=4),
        torch.stack((torch.full((64,), 37), torch.arange(64))),
    )
    codes = codes.T.unsqueeze(1)
    numbers = torch.stack([codes % 4, codes // 4 % 4, codes // 16], 1).squeeze(2)
    logits = inside(prior).network(numbers)
    nats = [of.log_softmax(-1).gather(-1, numbers[:, d, :, None]).flatten(1).sum(1) for d, of in enumerate(logits)]
    torch.testing.assert_close(prior.loss(codes, {}), -torch.stack(nats).sum(0))
    given = prior.log_prob(codes, {})
    first = torch.stack([of.log_softmax(-1)[0, 0, n] for of, n in zip(logits, numbers[0, :, 0], strict=True)]).sum()
    torch.testing.assert_close(given.exp().sum().log(), first)
    assert given.std() > 0.01


@pytest.mark.parametrize("inner", ["transformer", "pixelcnn"])
def test_cached_is_plain(inner: str) -> None:
    code_spec = CodeSpec((2, 3), (64, 9))
    prior = factored(code_spec, inner, largest=4)
    network = inside(prior).network
    drawn = prior.sample(5, {}, generator=torch.Generator().manual_seed(3))
    slow = sample_slowly(network, 5, (2, 3), generator=torch.Generator().manual_seed(3))
    assert torch.equal(prior._split(drawn), slow)
    assert len(drawn.unique()) > 10


@pytest.mark.parametrize("inner", SMALL)
def test_memory_does_not_grow_with_the_codebook(inner: str, largest: Any) -> None:
    code_spec = CodeSpec((3, 3), (2**24, 2**18))
    with largest:
        prior = FactoredPrior(code_spec, (), inner=SMALL[inner])
        codes = torch.stack([torch.randint(size, (2, 3, 3)) for size in code_spec.codebook_sizes], 1)
        prior.loss(codes, {}).sum().backward()
        drawn = prior.sample(2, {})
    assert largest.numel < 5000
    assert drawn.amax() > 2**18


def test_any_region_may_be_given_under_maskgit() -> None:
    prior = factored(CodeSpec((2, 2), (64, 3)), "maskgit", largest=4)
    given = torch.tensor([[[-1, 50, -1, 7], [1, -1, -1, -1]]]).expand(9, -1, -1)
    codes = prior.sample(9, {}, prefix=given).flatten(2)
    assert torch.equal(codes.where(given >= 0, -1), given)
    with pytest.raises(ToolkitError, match=r"outside the codebooks, which have \(64, 3\)"):
        prior.sample(9, {}, prefix=given.clamp(max=3) + 61)


def test_factors_that_are_not_the_codebooks_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"factors=\[8, 5\]: their product is 40, and the codebooks have 4, 64 entries"
    ):
        factored(CodeSpec((2,), (64, 4)), factors=(8, 5))
