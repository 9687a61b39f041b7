"""Stages of quantizers, and groups of them."""

from __future__ import annotations

from itertools import pairwise
from math import log
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from toy.toy_scales import ScalesQuantizer

from toolkit.nn import codebook as table
from toolkit.quantizer import Quantizer
from toolkit.quantizers import residual as residual_module
from toolkit.quantizers import vq
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.fsq import FSQQuantizer
from toolkit.quantizers.gaussian import GaussianQuantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.projected import ProjectedQuantizer
from toolkit.quantizers.residual import ResidualQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.quantizer import QuantizerSuite


def small_vq(dim: int) -> VectorQuantizer:
    return VectorQuantizer(dim, codebook_size=6)


def small_ema(dim: int) -> EMAQuantizer:
    return EMAQuantizer(dim, codebook_size=6)


def small_fsq(dim: int) -> ProjectedQuantizer:
    return ProjectedQuantizer(dim, inner=lambda _: FSQQuantizer(levels=(4, 3)))


def small_product(dim: int) -> ProductQuantizer:
    return ProductQuantizer(dim, inner=small_vq)


def small_categorical(dim: int) -> CategoricalQuantizer:
    return CategoricalQuantizer(dim, codebook_size=5)


class TestResidualQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ResidualQuantizer(dim, inner=small_vq, depth=3)


class TestResidualWithDropout(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ResidualQuantizer(dim, inner=small_ema, depth=3, dropout=0.5)


class TestResidualWithBeams(TestResidualQuantizer):
    def make(self, dim: int) -> Quantizer:
        return ResidualQuantizer(dim, inner=small_vq, depth=3, beams=4)


class TestResidualOfProjectedFSQ(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ResidualQuantizer(dim, inner=small_fsq, depth=2)


class TestResidualOfProducts(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ResidualQuantizer(dim, inner=small_product, depth=2)


class TestProductOfCategoricals(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_categorical)


class TestSharedProductOfCategoricals(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_categorical, shared=True)


class TestScales(QuantizerSuite):
    grid: ClassVar = (4, 4)

    def make(self, dim: int) -> Quantizer:
        return ScalesQuantizer(dim, codebook_size=11)


class TestProjectedScales(TestScales):
    def make(self, dim: int) -> Quantizer:
        return ProjectedQuantizer(dim, inner=ScalesQuantizer, codebook_dim=4)


class TestResidualOfScales(TestScales):
    def make(self, dim: int) -> Quantizer:
        return ResidualQuantizer(dim, inner=ScalesQuantizer, depth=2)


class TestSharedProductOfScales(TestScales):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=ScalesQuantizer, shared=True)


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def residual(depth: int = 3, **options: Any) -> ResidualQuantizer:
    """With entries that are far from 0, so that every stage can be told from none."""
    quantizer = ResidualQuantizer(4, inner=small_vq, depth=depth, **options).double()
    quantizer(latents(8, 4, 20))
    with torch.no_grad():
        for table in quantizer.parameters():
            table.normal_()
    return quantizer


# -- stages


def test_each_stage_quantizes_what_is_left() -> None:
    quantizer, z = residual().eval(), latents(2, 4, 5)
    made, left = quantizer(z), z
    for depth, stage in enumerate(quantizer.stages):
        one = stage(left)
        assert torch.equal(made.codes[:, depth], one.codes[:, 0])
        left = left - one.z
    torch.testing.assert_close(made.z, z - left)
    torch.testing.assert_close(made.metrics["quantization_error"], left.square().sum(1).mean())
    torch.testing.assert_close(made.kl, torch.full((2,), 3 * 5 * log(6)).double())


def test_the_first_depths_are_the_lower_bitrates() -> None:
    quantizer, z = residual().eval(), latents(2, 4, 5)
    codes, total = quantizer(z).codes, torch.zeros_like(z)
    for depth, stage in enumerate(quantizer.stages):
        total = total + stage.embed(codes[:, depth : depth + 1])
        torch.testing.assert_close(quantizer.embed(codes[:, : depth + 1]), total)


def test_part_of_a_stage_of_several_codes_can_be_embedded() -> None:
    quantizer = ResidualQuantizer(4, inner=small_product, depth=2).eval()
    codes = quantizer(torch.randn(2, 4, 5)).codes
    stages = list(quantizer.stages)
    expected = stages[0].embed(codes[:, :2]) + stages[1].embed(codes[:, 2:3])
    torch.testing.assert_close(quantizer.embed(codes[:, :3]), expected)


def test_the_error_falls_with_depth() -> None:
    quantizer, z = ResidualQuantizer(4, inner=lambda dim: EMAQuantizer(dim, codebook_size=16)), torch.randn(16, 4, 64)
    for _ in range(30):
        quantizer(z)
    codes = quantizer.eval()(z).codes
    errors = [(quantizer.embed(codes[:, :d]) - z).square().sum(1).mean().item() for d in range(1, 5)]
    assert all(after < 0.8 * before for before, after in pairwise(errors))


def test_every_stages_commitment_reaches_the_latents() -> None:
    """Stage by stage: commitment * 2 (r - e) / positions."""
    quantizer, z = residual(), latents(2, 4, 5).requires_grad_()
    codes, left = quantizer(z).codes, z.detach()
    for depth, stage in enumerate(quantizer.stages):
        z.grad = None
        for other in quantizer.stages:
            other.commitment = 0.25 if other is stage else 0.0
        quantizer(z).loss.sum().backward()
        left = left - stage.embed(codes[:, depth : depth + 1]).detach()
        torch.testing.assert_close(z.grad, 0.25 * 2 * left / 5)


@pytest.mark.parametrize("depth", [1, 4])
def test_the_decoders_gradient_does_not_grow_with_depth(depth: int) -> None:
    quantizer, z, upstream = residual(depth), latents(2, 4, 5).requires_grad_(), latents(2, 4, 5)
    (quantizer(z).z * upstream).sum().backward()
    torch.testing.assert_close(z.grad, upstream)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResidualQuantizer(4, inner=small_product, depth=2),
        lambda: ProductQuantizer(4, inner=small_vq),
        lambda: ProductQuantizer(4, inner=small_vq, shared=True),
    ],
    ids=["residual", "product", "shared"],
)
def test_latents_are_checked_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the quantizer that is called, not again by those within it; these are called as modules nevertheless."""
    checked, called = [], []
    monkeypatch.setattr(Quantizer, "check", lambda self, z: checked.append(self))
    quantizer = make()
    for part in quantizer.modules():
        part.register_forward_hook(lambda part, z, quantized: called.append(part))
    quantizer(torch.randn(2, 4, 5))
    assert checked == [quantizer]
    assert {*called} == {part for part in quantizer.modules() if isinstance(part, Quantizer)}


def test_losses_add_up() -> None:
    quantizer, z = residual(), latents(2, 4, 5)
    loss, left = torch.zeros(2).double(), z
    for stage in quantizer.stages:
        made = stage(left)
        loss, left = loss + made.loss, left - made.z
    torch.testing.assert_close(quantizer(z).loss, loss)


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (
            small_categorical,
            "takes 5 channels and gives 4, but the latents have 4: choose quantizer.inner.name=projected",
        ),
        (lambda _: FSQQuantizer(levels=(5, 5, 5)), "takes 3 channels and gives 3, but the latents have 4"),
        (lambda dim: ProjectedQuantizer(dim, inner=GaussianQuantizer), "continuous bottleneck"),
    ],
)
def test_stages_that_do_not_fit_are_refused(inner: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ResidualQuantizer(4, inner=inner)


@pytest.mark.parametrize(("name", "value"), [("depth", 0), ("dropout", 1.5)])
def test_options_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        ResidualQuantizer(4, **{name: value})  # type: ignore[arg-type]


# -- dropout


def lengths(quantizer: ResidualQuantizer, z: Tensor) -> Tensor:
    """How many stages each example used, told by its value; every stage's table must be without zeros."""
    made = quantizer(z)
    values = torch.stack([quantizer.embed(made.codes[:, : d + 1]) for d in range(len(quantizer.stages))])
    wrong = (values - made.z).abs().flatten(2).amax(2)
    assert (wrong.amin(0) < 1e-9).all()
    return wrong.argmin(0) + 1


def test_dropout_keeps_the_first_stages_of_some_examples() -> None:
    """A share (1 - dropout) uses all; the rest the first n, n uniform: so each n < depth has dropout / depth."""
    quantizer = residual(depth=4, dropout=0.6)
    used = torch.bincount(lengths(quantizer, latents(8000, 4, 2)), minlength=5)
    shares = torch.tensor([0, 0.15, 0.15, 0.15, 0.55])
    assert ((used - 8000 * shares).abs() <= 5 * (8000 * shares * (1 - shares)).sqrt()).all()


def test_no_dropout_in_eval_mode_and_none_at_zero() -> None:
    z = latents(200, 4, 2)
    assert (lengths(residual(dropout=1.0).eval(), z) == 3).all()
    assert (lengths(residual(dropout=0.0), z) == 3).all()
    assert (lengths(residual(dropout=1.0), z) < 3).any()


def test_a_dropped_stage_adds_no_loss_no_kl_and_no_gradient() -> None:
    quantizer, z = residual(dropout=1.0), latents(50, 4, 2).requires_grad_()
    made = quantizer(z)
    values = torch.stack([quantizer.embed(made.codes[:, : d + 1]) for d in range(3)])
    used = (values - made.z).abs().flatten(2).amax(2).argmin(0) + 1
    assert made.codes.shape == (50, 3, 2)
    torch.testing.assert_close(made.kl, used * 2 * log(6), check_dtype=False)
    left, loss = z.detach(), torch.zeros(50).double()
    for depth, stage in enumerate(quantizer.stages):
        one = stage(left)
        loss, left = loss + one.loss * (used > depth), left - one.z
    torch.testing.assert_close(made.loss, loss)
    upstream = latents(50, 4, 2)
    (made.z * upstream).sum().backward()
    torch.testing.assert_close(z.grad, upstream)


# -- groups


def test_groups_that_leave_no_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="continuous bottleneck"):
        ProductQuantizer(4, inner=GaussianQuantizer)


def test_the_error_of_groups_is_that_of_all_channels() -> None:
    z = torch.randn(3, 8, 5)
    for shared in (False, True):
        quantizer = ProductQuantizer(8, inner=lambda _: FSQQuantizer(levels=(4, 3, 5, 5)), shared=shared)
        made = quantizer(z)
        whole = FSQQuantizer(levels=(4, 3, 5, 5) * 2)(z)
        torch.testing.assert_close(made.metrics["quantization_error"], whole.metrics["quantization_error"])


@pytest.mark.parametrize("shared", [False, True])
def test_the_posterior_of_groups_is_each_groups_own(shared: bool) -> None:
    quantizer, z = ProductQuantizer(4, inner=small_categorical, shared=shared), torch.randn(3, 10, 7)
    assert quantizer.has_posterior
    for ours, mine in zip(quantizer.posterior(z).log_probs, z.chunk(2, 1), strict=True):
        torch.testing.assert_close(ours, mine.log_softmax(1))
    assert not ProductQuantizer(4, inner=small_vq).has_posterior


# -- another implementation


def test_a_peer_agrees_on_codes_and_values() -> None:
    peer = pytest.importorskip("vector_quantize_pytorch")
    theirs = peer.ResidualVQ(dim=4, codebook_size=6, num_quantizers=3, rotation_trick=False).eval()
    ours = ResidualQuantizer(4, inner=small_vq, depth=3).eval()
    for stage, layer in zip(ours.stages, theirs.layers, strict=True):
        layer._codebook.embed.normal_()
        stage.codebook.data.copy_(layer._codebook.embed[0])
    z = torch.randn(2, 4, 60)
    values, codes, _ = theirs(z.movedim(1, -1))
    made = ours(z)
    assert torch.equal(made.codes, codes.movedim(-1, 1))
    torch.testing.assert_close(made.z, values.movedim(-1, 1), check_stride=False)


@pytest.mark.parametrize("kind", [VectorQuantizer, EMAQuantizer])
def test_stages_learn_together_what_they_learn_one_by_one(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        residual = ResidualQuantizer(
            5, inner=lambda dim: kind(dim, codebook_size=7, dead_code_threshold=0.998), depth=3, dropout=0.5
        ).double()
        results = []
        for _ in range(4):
            z = torch.randn(4, 5, 6, dtype=torch.float64).requires_grad_()
            made = residual(z)
            (made.z.sum() + made.loss.sum()).backward()
            assert z.grad is not None
            results += [*made[:4], z.grad, *(value.clone() for value in residual.state_dict().values())]
        return [*results, torch.rand(1)]

    together = trained()
    monkeypatch.setattr(residual_module, "alike", lambda stages: False)
    for mine, other in zip(together, trained(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    "make", [ResidualQuantizer, lambda dim, depth, inner: ProductQuantizer(dim, groups=depth, inner=inner)]
)
def test_all_tables_statistics_are_reduced_at_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reduced = []
    for module in (table, vq):
        monkeypatch.setattr(module, "all_reduce_sum", lambda *tensors: reduced.extend(tensors))
    for inner in (small_vq, small_ema):
        quantizer = make(6, depth=3, inner=inner)
        quantizer(torch.randn(4, 6, 5))
        reduced.clear()
        quantizer(torch.randn(4, 6, 5))
        assert len(reduced) == 1


# -- beams


def trained(depth: int, beams: int, inner: Any = small_vq, dim: int = 3) -> ResidualQuantizer:
    quantizer = ResidualQuantizer(dim, inner=inner, depth=depth, beams=beams).double().train()
    quantizer(torch.randn(8, dim, 40, dtype=torch.float64))
    return quantizer.eval()


def errors(quantizer: ResidualQuantizer, z: Tensor) -> Tensor:
    """``(batch, *grid)``."""
    return (z - quantizer(z).z).square().sum(1)


def test_as_many_beams_as_sums_find_the_nearest_sum() -> None:
    quantizer = trained(depth=3, beams=36)
    z = torch.randn(2, 3, 2, 10, dtype=torch.float64)
    every = torch.cartesian_prod(*[torch.arange(6)] * 3)
    sums = quantizer.embed(every.unsqueeze(2)).squeeze(2)
    distances = (z.movedim(1, -1).unsqueeze(-2) - sums).square().sum(-1)
    made = quantizer(z)
    assert torch.equal(made.codes.movedim(1, -1), every[distances.argmin(-1)])
    torch.testing.assert_close(errors(quantizer, z), distances.amin(-1))
    torch.testing.assert_close(made.metrics["quantization_error"], distances.amin(-1).mean().detach())


@pytest.mark.parametrize("inner", [small_vq, small_ema, small_fsq])
def test_more_beams_have_no_larger_error(inner: Any) -> None:
    """At any position; and none is found that one beam has not, in training."""
    quantizer, z = trained(depth=4, beams=1, inner=inner), torch.randn(4, 3, 50, dtype=torch.float64)
    greedy, plain = errors(quantizer, z), quantizer(z)
    for beams in (2, 3, 8):
        quantizer.beams = beams
        found = errors(quantizer, z)
        assert (found <= greedy * (1 + 1e-12)).all(), f"{beams} beams are worse than one"
        made = quantizer(z)
        torch.testing.assert_close((made.loss, made.kl), (plain.loss, plain.kl))
        assert torch.equal(quantizer.sample(z).codes, made.codes)
    assert (found < greedy).float().mean() > 0.2


def test_the_greedy_choice_is_kept_where_beams_would_lose_it() -> None:
    """Two beams after the first stage drop the entry that the third one's sum needs."""
    rows, tables = torch.zeros(1, 1), [torch.tensor([[1.0], [1.1], [3.0]]), torch.tensor([[0.5], [-3.0]])]
    assert residual_module.beam_search(rows, tables, 2, torch.tensor([[2, 1]])).tolist() == [[2, 1]]
    assert residual_module.beam_search(rows, tables, 2, torch.tensor([[0, 0]])).tolist() == [[0, 0]]
    assert residual_module.beam_search(rows, tables, 3, torch.tensor([[0, 0]])).tolist() == [[2, 1]]


def test_beams_search_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer, z = trained(depth=3, beams=4), torch.randn(2, 3, 30, dtype=torch.float64)
    whole = quantizer(z).codes
    monkeypatch.setattr("toolkit.nn.beam.tile_size", lambda device: 50)
    assert torch.equal(quantizer(z).codes, whole)


def test_beams_are_refused_where_a_stage_has_several_codes() -> None:
    for beams, inner in ((4, small_product), (0, small_vq), (10**9, small_vq)):
        with pytest.raises(ValueError, match=f"beams={beams}"):
            ResidualQuantizer(4, inner=inner, beams=beams)
