"""Priors over codes of several grids."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.causal import sampling
from toolkit.causal.network import Trunk
from toolkit.causal.scales import ScalesTransformer
from toolkit.errors import ToolkitError
from toolkit.prior import Prior, SamplingOptions
from toolkit.priors.categorical import CategoricalPrior
from toolkit.priors.coarse_to_fine import COARSER, CoarseToFinePrior
from toolkit.priors.maskgit import MaskGITPrior
from toolkit.priors.pixelcnn import PixelCNNPrior
from toolkit.priors.scales import ScalesPrior
from toolkit.priors.transformer import TransformerPrior
from toolkit.spec import CodeSpec, Condition
from toolkit.testing.causal import check_prefill, reach
from toolkit.testing.counting import every, goodness_of_fit, histogram
from toolkit.testing.on_gpu import on_gpu
from toolkit.testing.tape import Tape

Make = Callable[[CodeSpec, tuple[Condition, ...]], Prior]
KIND = Condition("kind", 2)
PARTS = {
    "time": CodeSpec((6,), (3,), ((1,), (2,), (3,))),
    "images": CodeSpec((7,), (2,), ((1, 1), (1, 2), (2, 2))),
    "volumes": CodeSpec((9,), (2,), ((1, 1, 1), (2, 2, 2))),
    "depths": CodeSpec((3,), (3, 2), ((1, 1), (2, 1))),
    "fine to coarse": CodeSpec((7,), (2,), ((2, 2), (1, 3))),
}


def scales(code_spec: CodeSpec, conditions: tuple[Condition, ...] = ()) -> Prior:
    return ScalesPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8)


def coarse_to_fine(inner: Make, code_spec: CodeSpec, conditions: tuple[Condition, ...] = ()) -> Prior:
    return CoarseToFinePrior(code_spec, conditions, inner=inner, hidden=6, residual_blocks=1)


def small_pixelcnn(code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
    return PixelCNNPrior(code_spec, conditions, hidden=6, layers=1, kernel_size=3, head=8)


def small_transformer(code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
    return TransformerPrior(code_spec, conditions, hidden=8, layers=1, heads=2, head=8)


def small_maskgit(code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
    return MaskGITPrior(code_spec, conditions, hidden=8, layers=1, heads=2, passes=3)


PRIORS = {
    "scales": scales,
    "pixelcnns": partial(coarse_to_fine, small_pixelcnn),
    "transformers": partial(coarse_to_fine, small_transformer),
    "categoricals": partial(coarse_to_fine, CategoricalPrior),
}
each_prior = pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)
each_parts = pytest.mark.parametrize("code_spec", PARTS.values(), ids=PARTS)


def random_prior(make: Make, code_spec: CodeSpec, conditions: tuple[Condition, ...] = ()) -> Prior:
    """In float64, at weights that are far from what they start at."""
    torch.manual_seed(0)
    prior = make(code_spec, conditions).double().eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return prior


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def probabilities(prior: Prior, codes: Tensor, conditions: dict[str, Tensor] | None = None) -> Tensor:
    return prior.log_prob(codes, conditions or {}).exp()


@pytest.mark.few(5)
@each_parts
@each_prior
def test_they_sum_to_one_and_samples_fit(make: Make, code_spec: CodeSpec) -> None:
    prior, outcomes = random_prior(make, code_spec), every(code_spec)
    expected = probabilities(prior, outcomes)
    torch.testing.assert_close(expected.sum().item(), 1.0, atol=1e-9, rtol=0)
    codes = prior.sample(20_000, {}, generator=generator())
    assert goodness_of_fit(histogram(codes, outcomes), 20_000 * expected) > 1e-4


@each_prior
def test_they_sum_to_one_and_samples_fit_under_a_condition(make: Make) -> None:
    code_spec = PARTS["depths"]
    prior, outcomes = random_prior(make, code_spec, (KIND,)), every(code_spec)
    expected = probabilities(prior, outcomes, {"kind": torch.ones(len(outcomes)).long()})
    torch.testing.assert_close(expected.sum().item(), 1.0, atol=1e-9, rtol=0)
    codes = prior.sample(20_000, {"kind": torch.ones(20_000).long()}, generator=generator())
    assert goodness_of_fit(histogram(codes, outcomes), 20_000 * expected) > 1e-4
    assert (expected - probabilities(prior, outcomes)).abs().max() > 1e-6


@each_parts
@each_prior
def test_a_code_depends_on_none_of_a_later_part(make: Make, code_spec: CodeSpec) -> None:
    """The probability of the first parts, summed over the rest, is the same whatever network sees the rest."""
    prior, outcomes = random_prior(make, code_spec), every(code_spec)
    first = prod(code_spec.parts[0])
    nats = Tape()
    codes = outcomes[::7][:20]
    prior.entropy_code(nats, len(codes), {}, codes[:, :, :first], positions=first)
    known = (outcomes[None, :, :, :first] == codes[:, None, :, :first]).flatten(2).all(2)
    marginal = (known * probabilities(prior, outcomes)).sum(1)
    torch.testing.assert_close(nats.nats(), -marginal.log(), atol=1e-4, rtol=1e-4)


@pytest.mark.long
@each_parts
@each_prior
def test_any_prefix_is_kept_and_continued_as_its_parts_are(make: Make, code_spec: CodeSpec) -> None:
    prior = random_prior(make, code_spec)
    whole = prior.sample(8, {}, generator=generator())
    for positions in range(code_spec.grid[0] + 1):
        prefix = whole[:, :, :positions]
        again = prior.sample(8, {}, prefix=prefix, generator=generator())
        assert torch.equal(again, whole), f"a prefix of {positions} positions changes what follows"


@each_prior
def test_the_first_of_many_samples_are_those_of_few(make: Make) -> None:
    prior = random_prior(make, PARTS["images"], (KIND,))
    kinds = torch.arange(6) % 2
    many = prior.sample(6, {"kind": kinds}, SamplingOptions(guidance=2.0), generator=generator())
    few = prior.sample(2, {"kind": kinds[:2]}, SamplingOptions(guidance=2.0), generator=generator())
    assert few.shape == (2, 1, 7)
    assert many.shape == (6, 1, 7)


@each_prior
def test_guidance_needs_conditions(make: Make) -> None:
    with pytest.raises(ToolkitError, match="guidance=2"):
        random_prior(make, PARTS["images"]).sample(2, {}, SamplingOptions(guidance=2.0))


# -- one prior after another


def test_masked_codes_are_filled_in_part_by_part() -> None:
    prior = random_prior(partial(coarse_to_fine, small_maskgit), PARTS["images"], (KIND,))
    assert not prior.tractable
    with pytest.raises(NotImplementedError, match="maskgit"):
        prior.log_prob(torch.zeros(1, 1, 7).long(), {})
    assert prior.loss(torch.zeros(3, 1, 7).long(), {}).shape == (3,)
    prefix = torch.ones(4, 1, 5).long()
    codes = prior.sample(4, {}, SamplingOptions(guidance=2.0), prefix=prefix, generator=generator())
    assert torch.equal(codes[:, :, :5], prefix)
    prefix = torch.tensor([-1, 1, -1, -1, -1, -1, 1]).expand(4, 1, 7)
    assert (prior.sample(4, {}, prefix=prefix)[:, :, [1, 6]] == 1).all()


def test_guidance_keeps_the_coarser_codes() -> None:
    """A network without conditions that sees no class is the same as one whose class has no effect."""
    prior = random_prior(PRIORS["pixelcnns"], PARTS["images"], (KIND,))
    with torch.no_grad():
        for one in prior.priors:  # type: ignore[union-attr]
            one.embedding.maps[0].weight.zero_()  # type: ignore[union-attr]
    kinds = {"kind": torch.zeros(64).long()}
    plain = prior.sample(64, kinds, generator=generator())
    guided = prior.sample(64, kinds, SamplingOptions(guidance=3.0), generator=generator())
    assert torch.equal(plain, guided)


def test_training_never_drops_the_coarser_codes() -> None:
    prior = CoarseToFinePrior(PARTS["images"], (KIND,), inner=small_pixelcnn, hidden=6).train()
    embedding = prior.priors[1].embedding
    features = torch.randn(5, 1, 2, 6)
    none = torch.zeros(5, dtype=torch.bool)
    known = {"kind": torch.ones(5).long(), COARSER: features}
    torch.testing.assert_close(embedding(known, 5, none), embedding({COARSER: features}, 5))
    with pytest.raises(ToolkitError, match=r"expected \(5, \*grid, 6\)"):
        embedding({COARSER: features[:, :, :, :3]}, 5)


def test_a_part_is_given_every_code_before() -> None:
    prior = CoarseToFinePrior(PARTS["time"], (), inner=small_pixelcnn, hidden=6)
    before = [torch.zeros(1, 1, 1).long(), torch.zeros(1, 1, 2).long()]
    plain = prior.features[1](before)
    assert plain.shape == (1, 3, 6)
    for part, position in ((0, 0), (1, 0), (1, 1)):
        other = [codes.clone() for codes in before]
        other[part][:, :, position] = 2
        assert not torch.allclose(prior.features[1](other), plain)


# -- the transformer over scales


def trunk(code_spec: CodeSpec, context: int = 0) -> ScalesTransformer:
    torch.manual_seed(0)
    return ScalesTransformer(code_spec.parts, context=context, hidden=8, layers=2, heads=2).double()


@each_parts
def test_features_depend_on_all_parts_before_and_no_other(code_spec: CodeSpec) -> None:
    network, start = trunk(code_spec), 0
    for part in code_spec.parts:
        for position in (start, start + prod(part) - 1):
            reached = reach(network, code_spec.grid, position)
            assert reached[:start].all()
            assert not reached[start:].any()
        start += prod(part)


@each_parts
@pytest.mark.parametrize("context", [0, 3])
def test_cached_equals_plain(code_spec: CodeSpec, context: int) -> None:
    network = trunk(code_spec, context)
    known = torch.randn(5, context, 1, dtype=torch.float64) if context else None
    embedded = torch.randn(5, 8, *code_spec.grid, dtype=torch.float64)
    with torch.no_grad():
        plain = network(embedded, known)
        state = network.init(5, code_spec.grid, known)
        for index in range(code_spec.grid[0]):
            position = torch.tensor([index])
            step = network.step(state, network.graph_id(code_spec.grid, index), position)
            assert float((step - plain[:, index]).abs().max()) < 1e-10
            network.append(state, position, embedded[:, :, index])
    check_prefill(network, 5, code_spec.grid, known)


def test_a_part_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []
    prior = random_prior(scales, PARTS["images"])
    real = ScalesTransformer._enter

    def counted(self: ScalesTransformer, state: Any, number: int) -> None:
        entered.append(number)
        real(self, state, number)

    monkeypatch.setattr(ScalesTransformer, "_enter", counted)
    prior.sample(3, {})
    assert entered == [0, 1, 2]


@pytest.mark.parametrize("name", ["images", "depths"])
def test_a_part_sampled_at_once_is_its_positions_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = random_prior(scales, PARTS[name], (KIND,))
    kinds, options = {"kind": torch.arange(6) % 2}, SamplingOptions(guidance=2.0, top_p=0.9)

    def sampled() -> Tensor:
        return prior.sample(6, kinds, options, generator=generator())

    expected = sampled()
    monkeypatch.setattr(sampling, "PART", 40)
    assert torch.equal(sampled(), expected)
    monkeypatch.setattr(ScalesTransformer, "together", Trunk.together)
    assert torch.equal(sampled(), expected)


def test_captured_steps_give_the_codes_of_the_cpu() -> None:
    prior = random_prior(scales, PARTS["images"], (KIND,))
    kinds, options = {"kind": torch.arange(6) % 2}, SamplingOptions(guidance=2.0)
    expected = [prior.sample(6, kinds, options, generator=generator(seed)) for seed in range(3)]
    with on_gpu():
        there, kinds = prior.to("cuda"), {"kind": kinds["kind"].to("cuda")}
        for seed, codes in enumerate(expected):
            assert torch.equal(there.sample(6, kinds, options, generator=generator(seed)).cpu(), codes)


@pytest.mark.slow
def test_compiled_steps_give_the_codes_of_plain_ones() -> None:
    prior = random_prior(scales, PARTS["images"])
    expected = prior.sample(6, {}, generator=generator())
    with sampling.compiled():
        assert torch.equal(prior.sample(6, {}, generator=generator()), expected)


def test_positions_of_a_part_are_independent_given_the_parts_before() -> None:
    code_spec = PARTS["images"]
    prior, outcomes = random_prior(scales, code_spec), every(code_spec)
    p = probabilities(prior, outcomes).view([2] * 7)
    first = p.sum((3, 4, 5, 6))
    torch.testing.assert_close(first * first.sum((1, 2), keepdim=True), first.sum(2, True) * first.sum(1, True))


def test_parts_of_other_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="as many axes"):
        scales(CodeSpec((6,), (2,), ((2,), (2, 2))))


def test_another_grid_is_refused() -> None:
    with pytest.raises(ToolkitError, match=r"a grid of \(6,\)"):
        trunk(PARTS["images"])(torch.zeros(1, 8, 6, dtype=torch.float64))
