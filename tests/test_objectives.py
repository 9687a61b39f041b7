"""The objectives of the core, each with its equation."""

from __future__ import annotations

from copy import deepcopy
from itertools import product
from math import exp, log, pi

import pytest
import torch
from torch import Tensor

from toolkit import registry
from toolkit.autoencoder import Autoencoder
from toolkit.objective import Objective
from toolkit.objectives import samples as code_samples
from toolkit.objectives.elbo import ELBO
from toolkit.objectives.nvil import NVIL
from toolkit.objectives.vimco import VIMCO
from toolkit.quantizer import Posterior, Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.gaussian import GaussianQuantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.spec import DataSpec
from toolkit.testing.objective import ObjectiveSuite, code_maps
from toolkit.testing.parts import PointDecoder, PointEncoder, point_autoencoder, random_data

LEVELS = DataSpec(2, (6,), levels=5)
ONE = DataSpec(1, (1,), levels=3)
TWO = DataSpec(1, (2,), levels=3)
UNORDERED = DataSpec(2, (6,), levels=5, ordered=False)


def categorical(dim: int = 4) -> Quantizer:
    return CategoricalQuantizer(dim, codebook_size=3)


def pair(dim: int = 4) -> Quantizer:
    """Two groups of three codes."""
    return ProductQuantizer(dim, inner=categorical, groups=2)


class TestELBO(ObjectiveSuite):
    def make(self, data: DataSpec) -> Objective:
        return ELBO()


class TestELBORelaxed(TestELBO):
    def quantizer(self) -> Quantizer:
        return categorical()


class TestELBOContinuous(TestELBO):
    def quantizer(self) -> Quantizer:
        return GaussianQuantizer(4)


class TestVIMCO(ObjectiveSuite):
    def make(self, data: DataSpec) -> Objective:
        return VIMCO(samples=3)

    def quantizer(self) -> Quantizer:
        return categorical()


class TestVIMCOOfProduct(TestVIMCO):
    def quantizer(self) -> Quantizer:
        return pair()


class TestVIMCOInChunks(TestVIMCO):
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(code_samples, "CHUNK", 5 * self.data.dims * code_samples.PER_DIM)


class TestNVIL(ObjectiveSuite):
    def make(self, data: DataSpec) -> Objective:
        return NVIL(data, hidden=5)

    def quantizer(self) -> Quantizer:
        return categorical()


def test_every_objective_of_the_core_is_tested() -> None:
    core = {n for n in registry.names("objective") if registry.find("objective", n).distribution == "discrete-toolkit"}
    assert core == {"elbo", "vimco", "nvil", "adversarial"}


def test_the_loss_is_the_sum_of_its_terms() -> None:
    autoencoder, x = point_autoencoder(LEVELS), random_data(LEVELS, 5)
    made = ELBO()(autoencoder, x, {})
    assert set(made.terms) == {"nll", "kl", "quantizer"}
    torch.testing.assert_close(made.loss, made.terms["nll"] + made.terms["kl"] + made.terms["quantizer"])
    torch.testing.assert_close(made.terms["nll"], -made.likelihood.log_prob(x).mean())
    torch.testing.assert_close(made.terms["quantizer"], made.quantized.loss.mean())
    torch.testing.assert_close(made.terms["kl"], torch.tensor(6 * log(8)))


def test_the_loss_is_the_mean_over_examples() -> None:
    autoencoder, x = point_autoencoder(LEVELS), random_data(LEVELS, 5)
    losses = [ELBO()(autoencoder, one, {}).loss for one in x.split(1)]
    torch.testing.assert_close(ELBO()(autoencoder, x, {}).loss, torch.stack(losses).mean())


def test_the_bound_is_the_loss_without_the_quantizers_own() -> None:
    autoencoder, x = point_autoencoder(LEVELS).eval(), random_data(LEVELS, 5)
    made, bound = ELBO()(autoencoder, x, {}), ELBO().bound(autoencoder, x, {})
    torch.testing.assert_close(bound.data_nats.mean(), made.terms["nll"])
    torch.testing.assert_close(bound.code_nats.mean(), made.terms["kl"])
    torch.testing.assert_close((bound.data_nats + bound.code_nats).mean() + made.terms["quantizer"], made.loss)


def test_the_codebook_learns_only_from_the_quantizers_term() -> None:
    autoencoder, x = point_autoencoder(LEVELS), random_data(LEVELS, 5)
    made = ELBO()(autoencoder, x, {})
    codebook = autoencoder.quantizer.codebook
    assert torch.autograd.grad(made.terms["nll"], codebook, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(made.terms["quantizer"], codebook)[0].any()


@pytest.mark.parametrize("make", [VectorQuantizer, EMAQuantizer])
def test_a_mean_square_loss_is_this_one_in_other_units(
    make: type[VectorQuantizer] | type[EMAQuantizer],
) -> None:
    """The public CIFAR-10 example minimises MSE / variance + 0.25 x mean-square commitment at dim 64.

    One of its units is 3 x 32 x 32 / 2 = 1536 nats, and its 0.25 is 1536 x 0.25 / 64 = 6.0 of the paper's beta.
    """
    data, variance = DataSpec(3, (32, 32), variance=0.06), 0.06
    quantizer = make(64, codebook_size=16, commitment=6.0, init="random").double()
    autoencoder = _normal_autoencoder(data, quantizer).double().eval()
    x = random_data(data, 3).double()
    made = ELBO()(autoencoder, x, {})

    z = autoencoder.encode(x)
    e = autoencoder.embed(made.quantized.codes).detach()
    mean = autoencoder.decode(z + (e - z).detach(), {}).mean
    assert mean is not None
    theirs = (x - mean).square().mean() / variance + 0.25 * (z - e).square().mean()
    nats = 1536 * theirs + 1536 * log(2 * pi * variance) + 1024 * log(16)
    own = 1536 * (autoencoder.embed(made.quantized.codes) - z.detach()).square().mean() / 24
    torch.testing.assert_close(made.loss, nats + (own if make is VectorQuantizer else 0))

    shared = [*autoencoder.encoder.parameters(), *autoencoder.decoder.linear.parameters()]
    ours = torch.autograd.grad(made.loss, shared)
    for gradient, expected in zip(ours, torch.autograd.grad(1536 * theirs, shared), strict=True):
        torch.testing.assert_close(gradient, expected)


def _normal_autoencoder(data: DataSpec, quantizer):  # type: ignore[no-untyped-def]
    from toolkit.autoencoder import Autoencoder
    from toolkit.likelihoods.normal import NormalLikelihood

    return Autoencoder(data, PointEncoder(data, 64), quantizer, PointDecoder(64, NormalLikelihood(data)))


# What sampled objectives are, by enumeration.


def trained_autoencoder(data: DataSpec, quantizer: Quantizer) -> Autoencoder:
    """Of float64 parts whose posterior is neither flat nor sharp."""
    torch.manual_seed(1)
    autoencoder: Autoencoder = point_autoencoder(data, quantizer=quantizer).double()
    return autoencoder


def example_of(data: DataSpec) -> Tensor:
    """One example without a zero in it, on the scale that the encoder sees."""
    return torch.tensor([2, 0])[: data.axes[0]].reshape(1, *data.shape)


def draw_these(monkeypatch: pytest.MonkeyPatch, codes: Tensor) -> None:
    """The next draws of any posterior: codes ``(n, batch, depth, *grid)``."""
    monkeypatch.setattr(Posterior, "sample", lambda self, n: codes)


def log_weights(autoencoder: Autoencoder, x: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """log w and log q ``(maps,)`` of one example's code maps, the plain way."""
    logits = autoencoder.encode(x)[0].unflatten(0, (autoencoder.code_spec.depth, -1)).log_softmax(1)
    log_q = torch.stack([logits.gather(1, m.unsqueeze(1)).sum() for m in maps])
    log_px = autoencoder.decode(autoencoder.embed(maps), {}).log_prob(x.expand(len(maps), *x.shape[1:]))
    return log_px - autoencoder.code_spec.rate * log(2) - log_q, log_q


def gradients(loss: Tensor, *parts: torch.nn.Module) -> dict[str, Tensor]:
    named = {f"{i}.{n}": p for i, part in enumerate(parts) for n, p in part.named_parameters()}
    made = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), made, strict=True)}


def expected(
    objective: Objective, autoencoder: Autoencoder, x: Tensor, n: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, dict[str, Tensor]]:
    """Mean loss and mean gradients over all tuples of n draws, the objective's state being the same for each."""
    maps = code_maps(autoencoder.code_spec)
    log_q = log_weights(autoencoder, x, maps)[1].detach()
    value, mean = 0.0, {}
    for chosen in product(range(len(maps)), repeat=n):
        draw_these(monkeypatch, maps[list(chosen)].unsqueeze(1))
        own = deepcopy(objective)
        loss, share = own(autoencoder, x, {}).loss, log_q[list(chosen)].sum().exp().item()
        value += share * loss.item()
        for name, gradient in gradients(loss, autoencoder, own).items():
            mean[name] = mean.get(name, 0) + share * gradient
    return value, mean


def exact_bound(autoencoder: Autoencoder, x: Tensor, n: int) -> Tensor:
    """The expected bound of n draws, as a function of every parameter."""
    log_w, log_q = log_weights(autoencoder, x, code_maps(autoencoder.code_spec))
    tuples = torch.tensor(list(product(range(len(log_w)), repeat=n)))
    bounds = log_w[tuples].logsumexp(1) - log(n)
    return (log_q[tuples].sum(1).exp() * bounds).sum()


@pytest.mark.parametrize(
    ("data", "make", "n"),
    [(ONE, categorical, 2), (ONE, categorical, 3), (TWO, categorical, 2), (ONE, pair, 2)],
    ids=["one code twice", "one code thrice", "two positions", "a product"],
)
def test_vimco_follows_the_gradient_of_the_expected_bound(
    data: DataSpec, make, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    autoencoder, x = trained_autoencoder(data, make()), example_of(data)
    value, made = expected(VIMCO(samples=n).train(), autoencoder.train(), x, n, monkeypatch)
    bound = exact_bound(autoencoder, x, n)
    assert value == pytest.approx(-bound.item(), abs=1e-10)
    for name, gradient in gradients(-bound, autoencoder).items():
        assert gradient.any(), f"{name} would be compared with nothing"
        torch.testing.assert_close(made[name], gradient, atol=1e-10, rtol=0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("data", "make"), [(ONE, categorical), (TWO, categorical), (TWO, pair)], ids=["one code", "two", "a product"]
)
@pytest.mark.parametrize(("mean", "variance"), [(0.0, 0.25), (-3.0, 4.0)])
def test_nvil_follows_the_gradient_of_the_expected_bound(
    data: DataSpec, make, mean: float, variance: float, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """Whatever the baseline says. The encoder's is divided by the spread, where that is above 1, the rest is not."""
    autoencoder, x = trained_autoencoder(data, make()), example_of(data)
    objective = NVIL(data, hidden=3).double().train()
    objective.mean.fill_(mean), objective.variance.fill_(variance), objective.initialized.fill_(True)
    value, made = expected(objective, autoencoder.train(), x, 1, monkeypatch)
    bound = exact_bound(autoencoder, x, 1)
    assert value == pytest.approx(-bound.item(), abs=1e-10)
    for name, gradient in gradients(-bound, autoencoder).items():
        scale = max(1.0, variance**0.5) if ".encoder." in name else 1.0
        torch.testing.assert_close(made[name], gradient / scale, atol=1e-10, rtol=0)


def test_nvils_baseline_touches_no_other_part_and_none_touches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows (mean of signal^2 / 2), and nothing of the bound."""
    autoencoder, x = trained_autoencoder(TWO, categorical()), random_data(TWO, 4)
    objective = NVIL(TWO, hidden=3).double().eval()
    made = objective(autoencoder, x, {})
    error = made.terms["baseline"]
    assert not any(gradient.any() for gradient in gradients(error, autoencoder).values())
    for name, gradient in gradients(error, objective).items():
        torch.testing.assert_close(gradients(made.loss, objective)[name], gradient)
        assert gradient.any()


def test_vimcos_bound_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder, x = trained_autoencoder(ONE, categorical()), random_data(ONE, 2)
    codes = torch.tensor([[0, 1], [2, 2], [2, 0]]).reshape(3, 2, 1, 1)
    draw_these(monkeypatch, codes)
    bound, made = VIMCO(samples=3).bound(autoencoder, x, {}), VIMCO(samples=3)(autoencoder, x, {})
    totals, means = [], []
    for i in range(2):
        q = autoencoder.encode(x[i : i + 1])[0, :, 0].softmax(0)
        weights, nats = [], []
        for code in codes[:, i, 0, 0]:
            z = autoencoder.quantizer.codebook[code].reshape(1, -1, 1)
            nats.append(-autoencoder.decode(z, {}).log_prob(x[i : i + 1]).item())
            weights.append(exp(-nats[-1]) / 3 / q[code].item())
        totals.append(-log(sum(weights) / 3))
        means.append(sum(nats) / 3)
        weighted = sum(weight * each for weight, each in zip(weights, nats, strict=True)) / sum(weights)
        assert bound.data_nats[i].item() == pytest.approx(weighted)
        assert bound.single_sample_nats is not None
        assert bound.single_sample_nats[i].item() == pytest.approx(nats[0])
        assert (bound.data_nats + bound.code_nats)[i].item() == pytest.approx(totals[i])
        assert bound.quantized.kl[i].item() == pytest.approx((q * (3 * q).log()).sum().item())
    assert made.loss.item() == pytest.approx(sum(totals) / 2)
    assert made.terms["nll"].item() == pytest.approx(sum(means) / 2)
    assert made.terms["kl"].item() == pytest.approx(bound.quantized.kl.mean().item())
    assert torch.equal(made.quantized.codes, codes[0])
    torch.testing.assert_close(made.quantized.z, autoencoder.embed(codes[0]))


def test_more_samples_make_a_tighter_bound() -> None:
    autoencoder, x = trained_autoencoder(TWO, categorical()), random_data(TWO, 1)
    exact = [exact_bound(autoencoder, x, n).item() for n in (1, 2, 3)]
    assert exact[0] < exact[1] < exact[2]
    torch.manual_seed(0)
    means = []
    for n in (2, 10, 50):
        bound = VIMCO(samples=n).bound(autoencoder, x.expand(4000, 1, 2), {})
        means.append(-(bound.data_nats + bound.code_nats).mean().item())
    assert means[0] == pytest.approx(exact[1], abs=0.02)
    evidence = log_weights(autoencoder, x, code_maps(autoencoder.code_spec))
    assert means[0] < means[1] < means[2] < evidence[0].add(evidence[1]).logsumexp(0).item() + 0.01


def test_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="samples=1: at least 2"):
        VIMCO(samples=1)


@pytest.mark.parametrize("offset", [0.0, -1e5])
def test_vimco_is_stable_far_from_zero(offset: float) -> None:
    """Log weights of a large x, and of draws of which one is all the others' better by far."""
    from toolkit.objectives.vimco import leave_one_out_advantage, log_mean

    log_w = torch.tensor([[0.0, 1.0, 2.0], [3.0, -400.0, 2.0], [-1.0, 0.5, 2.0]])
    plain = torch.tensor([[0.0, 1.0, 2.0], [3.0, -400.0, 2.0], [-1.0, 0.5, 2.0]], dtype=torch.float64)
    wanted = []
    for i in range(3):
        others = plain.clone()
        others[i] = plain[[j for j in range(3) if j != i]].mean(0)
        wanted.append(log_mean(plain) - log_mean(others))
    torch.testing.assert_close(
        leave_one_out_advantage(log_w + offset).double(), torch.stack(wanted), atol=0.03 if offset else 1e-5, rtol=0
    )
    assert leave_one_out_advantage(torch.full((50, 4), offset)).abs().max() == 0


def seeded(objective: Objective, autoencoder: Autoencoder, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)
    loss = objective(autoencoder, x, {}).loss
    loss.backward()
    made = {name: p.grad for name, p in autoencoder.named_parameters() if p.grad is not None}
    autoencoder.zero_grad(set_to_none=True)
    return loss.detach(), made


@pytest.mark.parametrize("examples", [1, 5, 7, 1000])
def test_chunks_change_nothing(examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """7 draws of 5 examples: chunks of one, of a batch, of another length than any, and all at once."""
    autoencoder, x = trained_autoencoder(LEVELS, categorical()), random_data(LEVELS, 5)
    whole = seeded(VIMCO(samples=7), autoencoder, x)
    monkeypatch.setattr(code_samples, "CHUNK", examples * LEVELS.dims * code_samples.PER_DIM)
    assert code_samples.chunk_size(autoencoder, x.device) == examples
    loss, made = seeded(VIMCO(samples=7), autoencoder, x)
    torch.testing.assert_close(loss, whole[0])
    assert made.keys() == whole[1].keys()
    for name, gradient in made.items():
        torch.testing.assert_close(gradient, whole[1][name])
    with torch.no_grad():
        assert VIMCO(samples=7).bound(autoencoder, x, {}).data_nats.isfinite().all()


def test_a_chunk_keeps_nothing_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What autograd holds does not grow with the draws beyond their codes."""

    def held(samples: int) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            code_samples.log_likelihoods(autoencoder, x, {}, autoencoder.posterior(x).sample(samples))
        return sum(sizes)

    autoencoder, x = trained_autoencoder(LEVELS, categorical()), random_data(LEVELS, 5)
    at_once = held(40)
    monkeypatch.setattr(code_samples, "CHUNK", 10 * LEVELS.dims * code_samples.PER_DIM)
    assert held(40) < at_once / 4


# NVIL's figures and baseline.


def test_nvils_figures_follow_training_batches_only() -> None:
    autoencoder, objective = trained_autoencoder(LEVELS, categorical()), NVIL(LEVELS, decay=0.75).double()
    seen = []
    for seed in range(3):
        x = random_data(LEVELS, 8, seed)
        torch.manual_seed(seed)
        seen.append(code_samples.sample_codes(autoencoder, x, {}, 1).log_w.detach()[0])
        torch.manual_seed(seed)
        objective.train()(autoencoder, x, {})
        objective.eval()(autoencoder, 4 - x, {})
        objective.bound(autoencoder, 4 - x, {})
    mean, variance = seen[0].mean(), seen[0].var(correction=0)
    for bound in seen:
        variance = 0.75 * variance + 0.25 * (bound - mean).square().mean()
        mean = 0.75 * mean + 0.25 * bound.mean()
    torch.testing.assert_close(objective.mean, mean)
    torch.testing.assert_close(objective.variance, variance)


def test_nvils_figures_stay_where_a_captured_step_finds_them() -> None:
    autoencoder, objective = trained_autoencoder(LEVELS, categorical()), NVIL(LEVELS)
    before = {name: buffer.data_ptr() for name, buffer in objective.named_buffers()}
    objective(autoencoder, random_data(LEVELS, 3), {})
    assert {name: buffer.data_ptr() for name, buffer in objective.named_buffers()} == before
    assert objective.initialized


def test_nvils_first_batch_is_judged_by_its_own_figures() -> None:
    autoencoder, objective, x = trained_autoencoder(LEVELS, categorical()), NVIL(LEVELS), random_data(LEVELS, 64)
    objective.double().train().requires_grad_(False)
    for parameter in objective.parameters():
        parameter.zero_()
    assert objective(autoencoder, x, {}).terms["baseline"].item() == pytest.approx(0.5, rel=1e-6)


def test_nvils_figures_are_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second rank that holds the same sums of other numbers."""
    from toolkit.objectives import nvil

    other = torch.tensor([1.0, 5.0, 9.0])
    sums = torch.stack([torch.ones(3), other, other.square()]).double().sum(1)
    monkeypatch.setattr(nvil, "all_reduce_sum", lambda tensor: tensor.add_(sums))
    mean, variance = nvil.moments(torch.tensor([3.0, 3.0]))
    joined = torch.tensor([3.0, 3.0, 1.0, 5.0, 9.0]).double()
    torch.testing.assert_close(mean, joined.mean())
    torch.testing.assert_close(variance, joined.var(correction=0))


@pytest.mark.parametrize(
    "data",
    [LEVELS, UNORDERED, DataSpec(1, (20,)), DataSpec(3, (9, 16), levels=256), DataSpec(1, (3, 4, 12), levels=4)],
    ids=["levels", "unordered", "floats", "a plane", "three axes"],
)
def test_a_baseline_takes_any_data(data: DataSpec) -> None:
    """And learns what it is shown: a number that differs by example."""
    from toolkit.objectives.baseline import Baseline

    torch.manual_seed(0)
    baseline, x, wanted = Baseline(data, 16), random_data(data, 8), torch.linspace(-1, 1, 8)
    optimizer = torch.optim.Adam(baseline.parameters(), 0.02)
    for _ in range(200):
        loss = (baseline(x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01 * wanted.var().item()


def test_nvils_baseline_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves of the spread falls, with a model that stands still and codes that are always the same."""
    torch.manual_seed(0)
    autoencoder, objective = trained_autoencoder(LEVELS, categorical()).eval(), NVIL(LEVELS).double().train()
    draw_these(monkeypatch, torch.zeros(1, 16, 1, 6, dtype=torch.int64))
    optimizer, x, left = torch.optim.Adam(objective.parameters(), 0.02), random_data(LEVELS, 16), []
    for _ in range(150):
        made = objective(autoencoder, x, {})
        optimizer.zero_grad()
        made.loss.backward()
        optimizer.step()
        left.append(made.terms["baseline"].item())
    assert sum(left[-20:]) < 0.05 * sum(left[1:21])


# ELBO with quantizers that draw.


@pytest.mark.parametrize("make", [categorical, pair, GaussianQuantizer], ids=["relaxed", "product", "continuous"])
def test_elbo_learns_with_quantizers_that_draw(make) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    autoencoder, x = point_autoencoder(LEVELS, quantizer=make(4)).train(), random_data(LEVELS, 32)
    optimizer, losses = torch.optim.Adam(autoencoder.parameters(), 0.02), []
    for _ in range(60):
        loss = ELBO()(autoencoder, x, {}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < sum(losses[:10]) - 10


def test_elbos_bound_is_of_a_draw_not_of_the_relaxation() -> None:
    autoencoder, x = trained_autoencoder(LEVELS, categorical()).train(), random_data(LEVELS, 4)
    bound = ELBO().bound(autoencoder, x, {})
    torch.testing.assert_close(bound.quantized.z, autoencoder.embed(bound.quantized.codes))
    log_q = autoencoder.encode(x).log_softmax(1)
    kl = 6 * log(3) + (log_q.exp() * log_q).flatten(1).sum(1)
    torch.testing.assert_close(bound.code_nats, kl)
