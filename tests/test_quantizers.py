"""The quantizers of the core, each with its equation."""

from __future__ import annotations

import copy
import subprocess
import sys
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from toolkit.nn import codebook as table
from toolkit.nn import lookup
from toolkit.nn.entropy import choice_entropies
from toolkit.nn.kmeans import draw_rows, kmeans
from toolkit.nn.lookup import nearest
from toolkit.nn.rotation import rotation
from toolkit.quantizer import Quantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.simvq import SimVQQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.quantizer import QuantizerSuite


class TestVectorQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return VectorQuantizer(dim, codebook_size=11)


class TestEMAQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return EMAQuantizer(dim, codebook_size=11)


class TestVectorQuantizerWithAll(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return VectorQuantizer(
            dim, codebook_size=11, init="kmeans", restart=0.2, gradient="rotation", normalise=True, entropy=0.1
        )


class TestEMAQuantizerWithAll(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return EMAQuantizer(dim, codebook_size=11, init="kmeans", gradient="rotation", normalise=True, entropy=0.1)


class TestEMAQuantizerWithEntropy(QuantizerSuite):
    """Averages move the very table that the backward pass of the entropy looks at."""

    def make(self, dim: int) -> Quantizer:
        return EMAQuantizer(dim, codebook_size=11, entropy=0.1)


class TestSimVQQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return SimVQQuantizer(dim, codebook_size=11)


class TestSimVQQuantizerWithAll(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return SimVQQuantizer(dim, codebook_size=11, gradient="rotation", normalise=True, entropy=0.1)


class TestProductQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_vq)


class TestProductOfEMA(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_ema, groups=4)


class TestSharedProduct(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return ProductQuantizer(dim, inner=small_ema, shared=True)


TABLES = [VectorQuantizer, EMAQuantizer, SimVQQuantizer]


def small_vq(dim: int) -> VectorQuantizer:
    return VectorQuantizer(dim, codebook_size=6)


def small_ema(dim: int) -> EMAQuantizer:
    return EMAQuantizer(dim, codebook_size=6)


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


# -- the nearest entry


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.numel = max(self.numel, made.numel())
        return made


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


def test_nearest_keeps_to_its_tile() -> None:
    z, codebook = torch.randn(70_000, 3), torch.randn(64, 3)
    with Largest() as largest:
        nearest(z, codebook)
    assert z.numel() <= largest.numel <= lookup.TILE < len(z) * len(codebook)


@pytest.mark.parametrize("onednn", [False, True])
def test_nearest_tells_close_entries_apart_under_autocast(monkeypatch: pytest.MonkeyPatch, onednn: bool) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    z, codebook = torch.randn(200, 16), torch.randn(1000, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest(z, codebook), torch.cdist(z.double(), codebook.double()).argmin(1))


def test_the_values_are_the_entries_exactly() -> None:
    z, e = 1000 * torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    assert torch.equal(table.straight_through(z, e), e)


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


# -- gradients past the table


def rotation_matrix(z: Tensor, e: Tensor) -> Tensor:
    """That turns z's direction to e's, and what is across both not at all."""
    a, c = z / z.norm(), e / e.norm()
    b = c - (a @ c) * a
    b = b / b.norm()
    plane = torch.stack([a, b], 1)
    cos, sin = a @ c, b @ c
    turn = torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])
    return torch.eye(len(z), dtype=z.dtype) + plane @ (turn - torch.eye(2, dtype=z.dtype)) @ plane.T


def test_the_rotation_takes_the_gradient_along() -> None:
    z, e, upstream = latents(3, 5, 4).requires_grad_(), latents(3, 5, 4), latents(3, 5, 4)
    made = rotation(z, e)
    assert torch.equal(made, e)
    made.backward(upstream)
    assert z.grad is not None
    rows = (table.flatten(each) for each in (z.detach(), e, upstream, z.grad))
    for latent, entry, g, got in zip(*rows, strict=True):
        matrix = rotation_matrix(latent, entry) * entry.norm() / latent.norm()
        torch.testing.assert_close(matrix @ latent, entry)
        torch.testing.assert_close(got, matrix.T @ g)


def test_the_rotation_is_safe_where_there_is_none() -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    e = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, -2.0], [0.0, 0.0], [1.0, 2.0]])
    rotation(z, e).sum().backward()
    assert z.grad is not None
    expected = [[1.0, 1.0], [0.0, 0.0], [-0.2, -1.4], [1.0, 1.0], [1.0, 1.0]]
    torch.testing.assert_close(z.grad, torch.tensor(expected))


def test_rotation_is_an_option() -> None:
    quantizer = VectorQuantizer(4, codebook_size=7, gradient="rotation").double()
    z, upstream = latents(2, 4, 6).requires_grad_(), latents(2, 4, 6)
    made = quantizer(z)
    (got,) = torch.autograd.grad(made.z, z, upstream)
    (expected,) = torch.autograd.grad(rotation(z, made.z.detach()), z, upstream)
    torch.testing.assert_close(got, expected)


# -- equation 3


@pytest.mark.parametrize("dim", [1, 8, 64])
@pytest.mark.parametrize("commitment", [0.25, 2.0])
def test_each_term_moves_only_its_own_side(dim: int, commitment: float) -> None:
    quantizer = VectorQuantizer(dim, codebook_size=7, commitment=commitment, init="random").double()
    with torch.no_grad():
        quantizer.codebook.normal_()
    z = latents(3, dim, 2, 5).requires_grad_()
    made = quantizer(z)
    made.loss.sum().backward()

    rows, e = table.flatten(z.detach()), table.flatten(made.z.detach())
    won = made.codes.flatten()
    positions = 10
    expected = torch.zeros_like(quantizer.codebook)
    for row, entry, code in zip(rows, e, won, strict=True):
        expected[code] += 2 * (entry - row) / positions
    assert quantizer.codebook.grad is not None
    torch.testing.assert_close(quantizer.codebook.grad, expected)
    assert z.grad is not None
    torch.testing.assert_close(table.flatten(z.grad), commitment * 2 * (rows - e) / positions)
    squares = (rows - e).square().sum(1).view(3, positions).mean(1)
    torch.testing.assert_close(made.loss, (1 + commitment) * squares)


@pytest.mark.parametrize("make", [VectorQuantizer, EMAQuantizer])
def test_the_decoders_gradient_passes_straight_through(make: type[Quantizer]) -> None:
    quantizer = make(4).double()
    z, upstream = latents(2, 4, 6).requires_grad_(), latents(2, 4, 6)
    (quantizer(z).z * upstream).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, upstream)
    assert all(p.grad is None for p in quantizer.parameters())


def test_ema_commits_as_vq_does() -> None:
    vq = VectorQuantizer(4, codebook_size=7, commitment=0.5, init="random").double().eval()
    ema = EMAQuantizer(4, codebook_size=7, commitment=0.5, init="random").double().eval()
    ema.codebook.copy_(vq.codebook.detach())
    gradients = []
    for quantizer in (vq, ema):
        z = torch.linspace(-1, 1, 48, dtype=torch.float64).view(2, 4, 6).requires_grad_()
        quantizer(z).loss.sum().backward()
        gradients.append(z.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("make", TABLES)
def test_the_error_is_what_it_says(make: type[Quantizer]) -> None:
    z = torch.randn(2, 4, 3, 5, requires_grad=True)
    made = make(4).eval()(z)
    error = made.metrics["quantization_error"]
    assert not error.requires_grad
    torch.testing.assert_close(error, (z - made.z).square().sum(1).mean())


@pytest.mark.parametrize("make", [VectorQuantizer, SimVQQuantizer])
def test_the_codebook_term_is_not_weighted(make: type[VectorQuantizer] | type[SimVQQuantizer]) -> None:
    z, gradients = latents(2, 4, 6), []
    for commitment in (0.0, 0.25):
        torch.manual_seed(1)
        quantizer = make(4, codebook_size=7, commitment=commitment).double()
        quantizer(z).loss.sum().backward()
        gradients.append([p.grad for p in quantizer.parameters()])
    torch.testing.assert_close(*gradients)


def test_simvq_is_a_frozen_table_through_a_learned_map() -> None:
    quantizer = SimVQQuantizer(4, codebook_size=7).double()
    assert [name for name, _ in quantizer.named_parameters()] == ["linear.weight"]
    made = quantizer(latents(2, 4, 6))
    entries = quantizer.codebook @ quantizer.linear.weight.T
    assert torch.equal(made.z.detach(), table.look_up(made.codes, entries))
    made.loss.sum().backward()
    assert quantizer.linear.weight.grad is not None


# -- normalised


@pytest.mark.parametrize("make", TABLES)
def test_normalised_codes_are_by_cosine(make: type[VectorQuantizer]) -> None:
    quantizer = make(4, codebook_size=7, normalise=True).double()
    z = (10 * latents(3, 4, 6)).requires_grad_()
    quantizer(z)
    made = quantizer.eval()(z)
    rows = table.flatten(z.detach())
    cosines = torch.cosine_similarity(rows[:, None], quantizer.entries()[None].detach(), dim=2)
    assert torch.equal(made.codes.flatten(), cosines.argmax(1))
    torch.testing.assert_close(made.z.norm(dim=1), torch.ones(3, 6, dtype=torch.float64))
    torch.testing.assert_close(made.metrics["quantization_error"], 2 - 2 * cosines.amax(1).mean())
    torch.testing.assert_close(quantizer.embed(made.codes), made.z)


def test_a_normalised_average_is_the_normalised_sum() -> None:
    quantizer = EMAQuantizer(3, codebook_size=5, normalise=True, restart=0.0).double()
    for _ in range(3):
        quantizer(latents(2, 3, 20))
    codes = torch.arange(5).view(5, 1, 1)
    expected = torch.nn.functional.normalize(quantizer.sums, dim=1)
    torch.testing.assert_close(quantizer.embed(codes).squeeze(2), expected)


# -- entropy


@pytest.mark.parametrize("tile", [1, 50, 1 << 20])
def test_the_entropies_are_those_of_the_softmax(monkeypatch: pytest.MonkeyPatch, tile: int) -> None:
    monkeypatch.setattr(lookup, "TILE", tile)
    z, codebook = latents(13, 4).requires_grad_(), latents(6, 4).requires_grad_()
    p = (-torch.cdist(z, codebook).square() / 0.7).softmax(1)
    entropy = torch.distributions.Categorical(p).entropy().mean(), torch.distributions.Categorical(p.mean(0)).entropy()
    made = choice_entropies(z, codebook, 0.7)
    torch.testing.assert_close(made, entropy)
    for mine, other in zip(made, entropy, strict=True):
        gradients = [torch.autograd.grad(each, (z, codebook), retain_graph=True) for each in (mine, other)]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("make", TABLES)
def test_entropy_is_weighted_and_of_training_alone(make: type[VectorQuantizer]) -> None:
    z, losses = latents(2, 4, 9), []
    for weight in (0.0, 0.3):
        torch.manual_seed(0)
        quantizer = make(4, codebook_size=7, entropy=weight, entropy_temperature=2.0).double()
        quantizer(z)
        entries = quantizer.entries().detach().clone()
        x = z.clone().requires_grad_()
        loss = quantizer(x).loss
        loss.sum().backward()
        losses.append((loss, quantizer.eval()(z).loss))
    each, together = choice_entropies(table.flatten(z), entries, 2.0)
    torch.testing.assert_close(losses[1][0] - losses[0][0], (0.3 * (each - together)).expand(2))
    torch.testing.assert_close(losses[0][1], losses[1][1])


def test_entropies_of_far_entries_have_a_gradient() -> None:
    z = torch.zeros(3, 2, requires_grad=True)
    sum(choice_entropies(z, torch.tensor([[0.0, 1.0], [1e3, 0.0]]), 0.01)).backward()  # type: ignore[union-attr]
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("make", TABLES)
@pytest.mark.parametrize("entropy", [0.0, 0.1])
def test_no_step_holds_all_distances(make: type[VectorQuantizer], entropy: float) -> None:
    quantizer = make(2, codebook_size=256, entropy=entropy)
    z = torch.randn(8, 2, 4096, requires_grad=True)
    with Largest() as largest:
        made = quantizer(z)
        (made.z.sum() + made.loss.sum()).backward()
    assert largest.numel <= lookup.TILE < 8 * 4096 * 256


@pytest.mark.parametrize("make", TABLES)
def test_kl_is_positions_times_log_k(make: type[Quantizer]) -> None:
    kl = make(4, codebook_size=7)(torch.randn(2, 4, 3, 5)).kl  # type: ignore[call-arg]
    torch.testing.assert_close(kl, torch.full((2,), 15 * log(7)))


# -- appendix A.1


def ema(restart: float = 0.0, dim: int = 2, **options: object) -> EMAQuantizer:
    quantizer = EMAQuantizer(dim, codebook_size=4, restart=restart, init="random", **options).double()  # type: ignore[arg-type]
    quantizer.codebook.normal_()
    quantizer.sums.copy_(quantizer.codebook)
    return quantizer


def skip_the_first_batch(quantizer: Quantizer) -> None:
    quantizer.load_state_dict(quantizer.state_dict() | {"initialised": torch.tensor(True)})


@pytest.mark.parametrize("decay", [0.9, 0.99])
def test_ema_follows_the_recursion(decay: float) -> None:
    quantizer = ema(decay=decay)
    counts = [3 * 7 / 4] * 4  # the fair share of three times seven latents
    entries = [row.clone() for row in quantizer.codebook]
    sums = [row * counts[0] for row in quantizer.codebook]
    for _ in range(5):
        z = latents(3, 2, 7)
        rows = list(z.movedim(1, -1).reshape(-1, 2))
        won = [min(range(4), key=lambda i: float((row - entries[i]).square().sum())) for row in rows]
        assert quantizer(z).codes.flatten().tolist() == won
        for i in range(4):
            mine = [row for row, winner in zip(rows, won, strict=True) if winner == i]
            counts[i] = decay * counts[i] + (1 - decay) * len(mine)
            sums[i] = decay * sums[i] + (1 - decay) * sum(mine, torch.zeros(2, dtype=torch.float64))
            entries[i] = sums[i] / counts[i]
        torch.testing.assert_close(quantizer.counts, torch.tensor(counts, dtype=torch.float64))
        torch.testing.assert_close(quantizer.sums, torch.stack(sums))
        torch.testing.assert_close(quantizer.codebook, torch.stack(entries))


def test_the_latents_see_the_table_before_it_moves() -> None:
    quantizer = ema()
    before = quantizer.codebook.clone()
    made = quantizer(latents(3, 2, 7))
    assert torch.equal(made.z, table.look_up(made.codes, before))


def test_an_unused_entry_keeps_its_place() -> None:
    quantizer = ema().float()
    quantizer.codebook[3], quantizer.sums[3] = 1e3, 1e3
    z = torch.randn(1, 2, 8)
    with torch.no_grad():
        for _ in range(20_000):
            quantizer(z)
    assert quantizer.codebook.isfinite().all()
    assert quantizer.codebook[3].tolist() == [1e3, 1e3]
    assert quantizer.counts[3] < 1e-37
    quantizer(torch.full((1, 2, 1), 900.0))
    torch.testing.assert_close(quantizer.codebook[3], torch.tensor([900.0, 900.0]))


@pytest.mark.parametrize("tokens", [8, 800])
def test_a_restarted_entry_survives_the_step(tokens: int) -> None:
    quantizer = ema(restart=0.1)
    skip_the_first_batch(quantizer)
    quantizer.codebook[3], quantizer.sums[3] = 1e3, 1e3
    fair = tokens / 4
    quantizer.counts.fill_(fair)
    quantizer.counts[3] = 0.1 * fair / 0.99 - 1e-6
    quantizer.sums.copy_(quantizer.codebook * quantizer.counts[:, None])
    z = latents(1, 2, tokens)
    quantizer(z)
    assert any(torch.equal(quantizer.codebook[3], row) for row in table.flatten(z))
    assert quantizer.counts[3] == fair
    torch.testing.assert_close(quantizer.sums / quantizer.counts[:, None], quantizer.codebook)
    kept = quantizer.codebook[3].clone()
    assert 3 in quantizer(kept.view(1, 2, 1)).codes


@pytest.mark.parametrize("tokens", [8, 800])
def test_the_threshold_grows_with_the_batch(tokens: int) -> None:
    quantizer = ema(restart=0.1)
    skip_the_first_batch(quantizer)
    quantizer.codebook[3] = 1e3
    quantizer.counts.fill_(tokens / 4)
    quantizer.counts[3] = 0.1 * tokens / 4 / 0.99 + 1e-6
    quantizer.sums.copy_(quantizer.codebook * quantizer.counts[:, None])
    quantizer(latents(1, 2, tokens))
    assert quantizer.codebook[3].tolist() == [1e3, 1e3]


def test_restarts_bring_a_collapsed_codebook_back() -> None:
    quantizer = EMAQuantizer(2, codebook_size=32, init="random")
    quantizer.codebook.fill_(1e3)
    quantizer.sums.fill_(1e3)
    z = torch.randn(4, 2, 64)
    for _ in range(300):
        quantizer(z)
    assert len(quantizer.eval()(z).codes.unique()) > 28


# -- the first batch


@pytest.mark.parametrize("make", [VectorQuantizer, EMAQuantizer])
def test_the_first_batch_becomes_the_codebook_once(make: type[Quantizer]) -> None:
    options = {"restart": 0.0} if make is EMAQuantizer else {}
    quantizer = make(3, codebook_size=5, **options)  # type: ignore[call-arg]
    z = 50 + torch.randn(2, 3, 9)
    started = quantizer.eval()(z).z.detach()
    assert started.abs().max() < 1, "no data is drawn in eval mode"
    quantizer.train()(z)
    drawn = quantizer.codebook.detach().clone()  # type: ignore[operator, union-attr]
    near = torch.cdist(drawn, table.flatten(z)).amin(1)
    assert near.max() < 1 if make is EMAQuantizer else near.max() == 0
    again = make(3, codebook_size=5, **options)  # type: ignore[call-arg]
    again.load_state_dict(quantizer.state_dict())
    for each in (quantizer, again):
        each.train()(-z)
        # no gradient step was made, and of averages only that of the one entry that won moves
        moved = (each.codebook.detach() != drawn).any(1).sum()  # type: ignore[operator, union-attr]
        assert moved <= (1 if make is EMAQuantizer else 0)


LEARNED = [VectorQuantizer, EMAQuantizer]


@pytest.mark.parametrize("make", LEARNED)
@pytest.mark.parametrize("way", ["strict", "loose", "assign", "deepcopy"])
def test_a_resumed_table_is_not_drawn_again(make: type[VectorQuantizer], way: str) -> None:
    trained, z = make(3, codebook_size=5), torch.randn(2, 3, 9)
    trained(z)
    resumed = copy.deepcopy(trained) if way == "deepcopy" else make(3, codebook_size=5)
    if way != "deepcopy":
        resumed.load_state_dict(trained.state_dict(), strict=way != "loose", assign=way == "assign")
    kept = resumed.codebook.detach().clone()
    resumed(100 + z)
    assert (resumed.codebook.detach() == kept).all(1).sum() >= 4, "of one entry's average at most"


def test_a_fresh_state_is_drawn_again() -> None:
    quantizer = VectorQuantizer(3, codebook_size=5)
    fresh = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(torch.randn(2, 3, 9))
    quantizer.load_state_dict(fresh)
    quantizer(100 + torch.randn(2, 3, 9))
    assert quantizer.codebook.mean() > 90


def test_a_fake_batch_is_no_first_batch() -> None:
    quantizer = VectorQuantizer(3, codebook_size=5)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        quantizer.eval()(torch.zeros(2, 3, 9))
    quantizer.train()(100 + torch.randn(2, 3, 9))
    assert quantizer.codebook.mean() > 90


def test_a_meta_quantizer_takes_a_state() -> None:
    trained = EMAQuantizer(3, codebook_size=5)
    trained(torch.randn(2, 3, 9))
    with torch.device("meta"):
        empty = EMAQuantizer(3, codebook_size=5)
    empty.load_state_dict(trained.state_dict(), assign=True)
    z = torch.randn(2, 3, 9)
    assert torch.equal(empty.eval()(z).codes, trained.eval()(z).codes)


@pytest.mark.parametrize("make", LEARNED)
def test_drawn_numbers_are_used(make: type[VectorQuantizer]) -> None:
    """A step that neither starts nor restarts an entry leaves the random numbers alone."""
    quantizer = make(3, codebook_size=5, restart=0.0)
    quantizer(torch.randn(2, 3, 9))
    before = torch.get_rng_state()
    quantizer(torch.ones(2, 3, 9))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", LEARNED)
def test_random_entries_stay_where_they_are(make: type[VectorQuantizer]) -> None:
    quantizer = make(3, codebook_size=5, init="random", restart=0.0)
    before = quantizer.codebook.detach().clone()
    quantizer(torch.ones(2, 3, 9))
    assert (quantizer.codebook.detach() == before).all(1).sum() >= 4


def test_draws_are_one_from_each_stretch() -> None:
    rows = torch.arange(100.0).unsqueeze(1)
    assert torch.equal(draw_rows(rows, 10).squeeze(1).div(10, rounding_mode="floor"), torch.arange(10.0))
    assert draw_rows(rows[:3], 10).squeeze(1).unique().tolist() == [0, 1, 2]


def test_kmeans_lowers_the_error_to_a_fixed_point() -> None:
    middles = 10 * latents(6, 4)
    z = (middles[:, None] + 0.1 * latents(6, 50, 4)).flatten(0, 1)
    entries = kmeans(z, middles + latents(6, 4))
    torch.testing.assert_close(entries, z.view(6, 50, 4).mean(1))
    far = torch.cat([entries, torch.full((1, 4), 1e6, dtype=torch.float64)])
    torch.testing.assert_close(kmeans(z, far), far)


def test_kmeans_is_an_option() -> None:
    z = latents(4, 3, 50)
    errors = []
    for init in ("data", "kmeans"):
        torch.manual_seed(0)
        quantizer = VectorQuantizer(3, codebook_size=8, init=init).double()  # type: ignore[arg-type]
        errors.append(quantizer(z).metrics["quantization_error"])
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook_size": 0}, "codebook_size=0"),
        ({"entropy_temperature": 0.0}, "entropy_temperature=0.0"),
        ({"gradient": "none"}, "gradient=none: one of straight_through, rotation"),
        ({"init": "zeros"}, "init=zeros: one of data, kmeans, random"),
    ],
)
@pytest.mark.parametrize("make", LEARNED)
def test_what_cannot_be_is_refused(make: type[VectorQuantizer], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(4, **options)


# -- entries that start again


@pytest.mark.parametrize("make", LEARNED)
def test_restarts_follow_a_moving_source(make: type[VectorQuantizer]) -> None:
    """64 drifting clusters, entries that start far from them: without restarts, about 50 of 256 are ever used."""
    source = torch.Generator().manual_seed(0)
    quantizer = make(8, codebook_size=256, init="random", restart=0.1)
    optimizer = torch.optim.Adam([*quantizer.parameters(), nn.Parameter(torch.zeros(()))], 1e-2)
    middles = 3 * torch.randn(64, 8, generator=source)
    for _ in range(1500):
        middles += 0.02 * torch.randn(64, 8, generator=source)
        which = torch.randint(64, (1024,), generator=source)
        x = (middles[which] + 0.3 * torch.randn(1024, 8, generator=source)).T.unsqueeze(0)
        made = quantizer(x)
        if made.loss.requires_grad:
            optimizer.zero_grad()
            made.loss.sum().backward()
            optimizer.step()
    made = quantizer.eval()(x)
    assert len(made.codes.unique()) >= 100
    assert made.metrics["quantization_error"] / 8 <= 0.12


def test_vq_restarts_what_wins_too_little() -> None:
    quantizer = VectorQuantizer(2, codebook_size=4, restart=0.1).double()
    z = latents(1, 2, 80)
    quantizer(z)
    with torch.no_grad():
        quantizer.codebook[3] = 1e3
    counts = quantizer.counts.clone()
    counts[3] = 0.1 * 20 + 1e-6
    quantizer.counts.copy_(counts)
    made = quantizer(z)
    assert quantizer.codebook[3].tolist() == [1e3, 1e3], "not yet"
    won = made.codes.flatten().bincount(minlength=4)
    torch.testing.assert_close(quantizer.counts, 0.99 * counts + 0.01 * won)
    codes = quantizer(z).codes
    assert any(torch.equal(quantizer.codebook[3].detach(), row) for row in table.flatten(z))
    assert 3 in codes, "it is looked up in the step that moves it"
    torch.testing.assert_close(quantizer.counts[3], (0.99 * 20 + 0.01 * (codes == 3).sum()).double())


def test_restarts_can_be_turned_on_later() -> None:
    """A run that is told to try them still has its counts, and only what is late starts again."""
    plain, later = (VectorQuantizer(2, codebook_size=4, restart=restart).double() for restart in (0.0, 0.1))
    z = latents(1, 2, 80)
    for _ in range(3):
        plain(z)
    before = plain.codebook.detach().clone()
    assert (plain.counts > 0.1 * 20).all()
    later.load_state_dict(plain.state_dict())
    later(z)
    assert torch.equal(later.codebook, before)


# -- many ranks


RANKS = """
import sys, torch, torch.distributed as dist
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.vq import VectorQuantizer

rank, ranks, file, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
if ranks > 1:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=ranks)
states = {}
for make in (VectorQuantizer, EMAQuantizer):
    for options in ({"init": "kmeans", "restart": 0.3}, {"normalise": True, "entropy": 0.1}):
        torch.manual_seed(0)
        quantizer = make(3, codebook_size=16, **options).double()
        source = torch.Generator().manual_seed(1)
        torch.manual_seed(2 + rank)
        for step in range(50):
            z = torch.randn(2, 3, 24, generator=source, dtype=torch.float64)
            # one half of the batch has far fewer kinds of latents: its rank alone would miss entries
            z[1] = z[1, :, :1] + 0.01 * z[1]
            quantizer.zero_grad()
            made = quantizer(z.chunk(ranks)[rank])
            if made.loss.requires_grad:
                made.loss.mean().backward()
                for p in quantizer.parameters():
                    if ranks > 1:
                        dist.all_reduce(p.grad)
                    with torch.no_grad():
                        p.sub_(p.grad / ranks, alpha=0.2)
        quantizer.eval()
        if rank == 0:
            quantizer(z)  # alone: in eval mode ranks do not wait for one another
        states[f"{make.__name__} {options}"] = quantizer.state_dict()
torch.save(states, out)
if ranks > 1:
    dist.barrier()
    dist.destroy_process_group()
"""


def test_two_ranks_are_one_with_the_joined_batch(tmp_path: Path) -> None:
    def start(rank: int, ranks: int) -> subprocess.Popen[bytes]:
        words = [str(rank), str(ranks), str(tmp_path / "meet"), str(tmp_path / f"{rank}of{ranks}")]
        return subprocess.Popen([sys.executable, "-c", RANKS, *words])

    started = [start(0, 1), start(0, 2), start(1, 2)]
    try:
        assert [process.wait(120) for process in started] == [0, 0, 0]
    finally:
        for process in started:
            process.kill()
    joined, first, second = (torch.load(tmp_path / name) for name in ("0of1", "0of2", "1of2"))
    for name, state in joined.items():
        for key, value in state.items():
            assert torch.equal(first[name][key], second[name][key]), f"{name} {key}: ranks differ"
            torch.testing.assert_close(first[name][key], value, atol=1e-5, rtol=0, msg=f"{name} {key}")


# -- products


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


def test_shared_groups_take_one_step_of_one_table() -> None:
    shared = ProductQuantizer(6, inner=lambda dim: ema(dim=dim), groups=3, shared=True)
    assert len(list(shared.inner)) == 1
    alone = ema()
    alone.load_state_dict(shared.inner[0].state_dict())
    z = latents(4, 6, 5)
    made, plain = shared(z), alone(torch.cat(z.chunk(3, 1)))
    assert torch.equal(made.codes, torch.cat(plain.codes.chunk(3), 1))
    assert torch.equal(made.z, torch.cat(plain.z.chunk(3), 1))
    torch.testing.assert_close(made.loss, plain.loss.view(3, 4).sum(0))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(shared.inner[0].state_dict()[name], value)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_are_refused(groups: int) -> None:
    with pytest.raises(ValueError, match=f"dim=8 .* groups={groups}"):
        ProductQuantizer(8, groups=groups)


# -- another implementation


def test_a_peer_agrees_on_codes_averages_and_loss() -> None:
    peer = pytest.importorskip("vector_quantize_pytorch")
    theirs = peer.VectorQuantize(
        dim=4, codebook_size=7, decay=0.9, eps=1e-12, commitment_weight=0.25, rotation_trick=False,
        threshold_ema_dead_code=0,
    )  # fmt: skip
    ours = EMAQuantizer(4, codebook_size=7, decay=0.9, commitment=0.25, restart=0.0, init="random")
    ours.codebook.copy_(theirs._codebook.embed[0])
    ours.sums.copy_(theirs._codebook.embed_avg[0])
    ours.counts.copy_(theirs._codebook.cluster_size[0])
    skip_the_first_batch(ours)
    for _ in range(3):
        z = torch.randn(2, 4, 60)
        _, codes, loss = theirs.train()(z.movedim(1, -1))
        made = ours.train()(z)
        assert torch.equal(made.codes[:, 0], codes)
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0])
        # theirs is a mean over dim, ours the norm
        torch.testing.assert_close(made.loss.mean() / 4, loss.squeeze(), check_stride=False)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_a_peer_agrees_on_simvq(gradient: str) -> None:
    peer = pytest.importorskip("vector_quantize_pytorch")
    theirs = peer.SimVQ(dim=4, codebook_size=7, rotation_trick=gradient == "rotation", channel_first=True)
    ours = SimVQQuantizer(4, codebook_size=7, gradient=gradient)  # type: ignore[arg-type]
    ours.load_state_dict({"codebook": theirs.frozen_codebook, "linear.weight": theirs.code_transform.weight})
    z, upstream = torch.randn(2, 4, 60), torch.randn(2, 4, 60)
    gradients = []
    for quantizer, weight in ((ours, ours.linear.weight), (theirs, theirs.code_transform.weight)):
        x = z.clone().requires_grad_()
        e, codes, loss = quantizer(x)[:3]
        torch.autograd.backward([e, loss.mean() / (4 if quantizer is ours else 1)], [upstream, None])
        gradients.append((e, codes.view(2, 60), x.grad, weight.grad))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, check_stride=False)
