"""The quantizers of the core, each with its equation."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.nn import lookup
from toolkit.nn.direction import VARIANCE, direction
from toolkit.nn.entropy import choice_entropies
from toolkit.nn.rotation import rotation
from toolkit.quantizer import Quantizer
from toolkit.quantizers.ema import EMAQuantizer
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
            dim,
            codebook_size=11,
            init="kmeans",
            dead_code_threshold=0.2,
            gradient="rotation",
            normalize=True,
            entropy=0.1,
        )


class TestVectorQuantizerDiVeQ(TestVectorQuantizer):
    def make(self, dim: int) -> Quantizer:
        return VectorQuantizer(dim, codebook_size=11, gradient="direction", dead_code_threshold=0.2)


class TestVectorQuantizerByDirection(TestVectorQuantizer):
    def make(self, dim: int) -> Quantizer:
        return VectorQuantizer(dim, codebook_size=11, compare="direction", entropy=0.1)


class TestEMAQuantizerWithAll(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return EMAQuantizer(dim, codebook_size=11, init="kmeans", gradient="rotation", normalize=True, entropy=0.1)


class TestEMAQuantizerWithEntropy(QuantizerSuite):
    """Averages move the very table that the backward pass of the entropy looks at."""

    def make(self, dim: int) -> Quantizer:
        return EMAQuantizer(dim, codebook_size=11, entropy=0.1)


class TestSimVQQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return SimVQQuantizer(dim, codebook_size=11)


class TestSimVQQuantizerWithAll(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return SimVQQuantizer(dim, codebook_size=11, gradient="rotation", normalize=True, entropy=0.1)


class TestSimVQQuantizerByMLP(TestSimVQQuantizer):
    def make(self, dim: int) -> Quantizer:
        return started(SimVQQuantizer(dim, codebook_size=12, map="mlp", hidden=8))


class TestSimVQQuantizerByAttention(TestSimVQQuantizer):
    def make(self, dim: int) -> Quantizer:
        return started(SimVQQuantizer(dim, codebook_size=12, map="attention", hidden=8, layers=1, group=4))


def started(quantizer: SimVQQuantizer) -> SimVQQuantizer:
    """With a map that has learned something: it starts at 0."""
    assert quantizer.map is not None
    *_, last = (module for module in quantizer.map.modules() if isinstance(module, torch.nn.Linear))
    torch.nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(0))
    return quantizer


TABLES = [VectorQuantizer, EMAQuantizer, SimVQQuantizer]


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def entries(quantizer: Quantizer) -> Tensor:
    """All of them, ``(codebook_size, dim)``."""
    return quantizer.embed(torch.arange(quantizer.codebook_sizes[0]).view(-1, 1, 1)).squeeze(2).detach().clone()


def test_the_values_are_the_entries_exactly() -> None:
    z, e = 1000 * torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    assert torch.equal(table.straight_through(z, e), e)


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
    for code_spec, entry, g, got in zip(*rows, strict=True):
        matrix = rotation_matrix(code_spec, entry) * entry.norm() / code_spec.norm()
        torch.testing.assert_close(matrix @ code_spec, entry)
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


@pytest.mark.parametrize("make", [VectorQuantizer, SimVQQuantizer])
def test_a_direction_is_as_long_as_the_way_and_moves_both(make: Any) -> None:
    quantizer = make(4, codebook_size=7, gradient="direction").double()
    quantizer(latents(2, 4, 6))
    z = latents(2, 4, 6).requires_grad_()
    made, e = quantizer.train()(z), quantizer.eval()(z)
    assert torch.equal(made.codes, e.codes)
    way = e.z.detach() - z
    torch.testing.assert_close((made.z - z).norm(dim=1), way.norm(dim=1))
    assert (torch.cosine_similarity(made.z - z, way, dim=1) > 0.9).float().mean() > 0.8
    assert made.loss.tolist() == [0, 0]
    made.z.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in quantizer.parameters())
    torch.testing.assert_close(quantizer.embed(e.codes), e.z)


def test_a_direction_has_the_gradient_of_its_length() -> None:
    """And a finite one where latent and entry are the same."""
    z, e = latents(2, 3, 5), latents(2, 3, 5)
    z[0, :, 0] = e[0, :, 0]
    z.requires_grad_(), e.requires_grad_()
    torch.manual_seed(1)
    made, upstream = direction(z, e), latents(2, 3, 5)
    (made * upstream).sum().backward()
    unit = torch.nn.functional.normalize((made - z).detach(), dim=1)
    along = (unit * upstream).sum(1, keepdim=True) * torch.nn.functional.normalize((e - z).detach(), dim=1)
    torch.testing.assert_close(e.grad, along)
    torch.testing.assert_close(z.grad, upstream - along)


def test_only_learned_entries_have_a_gradient_by_direction() -> None:
    with pytest.raises(ValueError, match=r"gradient=direction: one of straight_through, rotation$"):
        EMAQuantizer(4, gradient="direction")  # type: ignore[arg-type]


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


MAPS: list[dict[str, Any]] = [{"map": "linear"}, {"map": "mlp"}, {"map": "attention", "group": 4}]


@pytest.mark.parametrize("options", MAPS, ids=str)
def test_every_map_starts_as_the_linear_one(options: dict[str, Any]) -> None:
    tables = []
    for chosen in ({}, options):
        torch.manual_seed(0)
        tables.append(entries(SimVQQuantizer(4, codebook_size=12, **chosen)))
    assert torch.equal(*tables)


@pytest.mark.parametrize("options", MAPS, ids=str)
def test_a_map_is_folded_into_a_table_out_of_training(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed once while the weights stay, and again after they change: by a step, by loading, by training."""
    quantizer = SimVQQuantizer(4, codebook_size=12, hidden=8, **options).eval()
    if quantizer.map is not None:
        started(quantizer)
    calls, mapped, codes = [], quantizer._mapped, torch.arange(12).view(-1, 1, 1)
    monkeypatch.setattr(quantizer, "_mapped", lambda: (calls.append(1), mapped())[1])

    def embedded(computed: int) -> Tensor:
        calls.clear()
        with torch.no_grad():
            e = quantizer.embed(codes)
            assert torch.equal(e.squeeze(2), mapped())
            quantizer(torch.randn(2, 4, 3))
        assert len(calls) == computed
        return e

    first = embedded(1)
    assert torch.equal(embedded(0), first)
    with torch.no_grad():
        quantizer.linear.weight.mul_(2)
    second = embedded(1)
    assert not torch.equal(second, first)
    quantizer.load_state_dict({name: 3 * value for name, value in quantizer.state_dict().items()})
    assert not torch.equal(embedded(1), second)
    assert quantizer.embed(codes).requires_grad, "with a gradient it is not folded"
    quantizer.train()
    quantizer.linear.weight.data.zero_()  # which leaves no trace
    quantizer.eval()
    embedded(1)


def test_attention_sees_other_entries_and_an_mlp_does_not() -> None:
    for options, reaches in ((MAPS[1], False), (MAPS[2], True)):
        quantizer = started(SimVQQuantizer(4, codebook_size=12, hidden=8, **options)).double()
        table_of = quantizer.codebook.clone().requires_grad_()
        assert quantizer.map is not None
        (moved,) = torch.autograd.grad(quantizer.map(table_of)[0].square().sum(), table_of)
        assert bool(moved[4:].any()) is reaches


def test_what_attention_cannot_group_is_refused() -> None:
    for options in ({"map": "cubic"}, {"map": "attention", "group": 5}, {"map": "attention", "hidden": 6, "group": 4}):
        with pytest.raises(ValueError, match=r"(map|group|hidden)="):
            SimVQQuantizer(4, codebook_size=12, **options)  # type: ignore[arg-type]


# -- normalized


@pytest.mark.parametrize("make", TABLES)
def test_normalized_codes_are_by_cosine(make: type[VectorQuantizer]) -> None:
    quantizer = make(4, codebook_size=7, normalize=True).double()
    z = (10 * latents(3, 4, 6)).requires_grad_()
    quantizer(z)
    made = quantizer.eval()(z)
    rows = table.flatten(z.detach())
    cosines = torch.cosine_similarity(rows[:, None], entries(quantizer)[None], dim=2)
    assert torch.equal(made.codes.flatten(), cosines.argmax(1))
    torch.testing.assert_close(made.z.norm(dim=1), torch.ones(3, 6, dtype=torch.float64))
    torch.testing.assert_close(made.metrics["quantization_error"], 2 - 2 * cosines.amax(1).mean())
    torch.testing.assert_close(quantizer.embed(made.codes), made.z)


def test_compared_by_direction_lengths_stay_as_they_are() -> None:
    """The search is DAC's: the most similar direction; values, error and losses are those of what is there."""
    quantizer = VectorQuantizer(4, codebook_size=7, compare="direction", init="random").double().eval()
    with torch.no_grad():
        quantizer.codebook.mul_(torch.arange(1, 8).unsqueeze(1))
    z = 10 * latents(3, 4, 6)
    made, rows = quantizer(z), table.flatten(z)
    cosines = torch.cosine_similarity(rows[:, None], quantizer.codebook[None], dim=2)
    assert torch.equal(made.codes.flatten(), cosines.argmax(1))
    assert not torch.equal(made.codes.flatten(), torch.cdist(rows, quantizer.codebook).argmin(1))
    e = quantizer.codebook[made.codes[:, 0]].movedim(-1, 1)
    torch.testing.assert_close(made.z, e)
    torch.testing.assert_close(made.metrics["quantization_error"], (z - e).square().sum(1).mean())
    torch.testing.assert_close(quantizer.embed(made.codes), made.z)


def test_a_normalized_average_is_the_normalized_sum() -> None:
    quantizer = EMAQuantizer(3, codebook_size=5, normalize=True, dead_code_threshold=0.0).double()
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
        table_before = entries(quantizer)
        x = z.clone().requires_grad_()
        loss = quantizer(x).loss
        loss.sum().backward()
        losses.append((loss, quantizer.eval()(z).loss))
    each, together = choice_entropies(table.flatten(z), table_before, 2.0)
    torch.testing.assert_close(losses[1][0] - losses[0][0], (0.3 * (each - together)).expand(2))
    torch.testing.assert_close(losses[0][1], losses[1][1])


def test_entropies_of_far_entries_have_a_gradient() -> None:
    z = torch.zeros(3, 2, requires_grad=True)
    sum(choice_entropies(z, torch.tensor([[0.0, 1.0], [1e3, 0.0]]), 0.01)).backward()  # type: ignore[union-attr]
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.long
@pytest.mark.parametrize("make", TABLES)
@pytest.mark.parametrize("entropy", [0.0, 0.1])
def test_no_step_holds_all_distances(make: type[VectorQuantizer], entropy: float, largest: Any) -> None:
    quantizer = make(2, codebook_size=256, entropy=entropy)
    z = torch.randn(8, 2, 4096, requires_grad=True)
    with largest:
        made = quantizer(z)
        (made.z.sum() + made.loss.sum()).backward()
    assert largest.numel <= lookup.TILE < 8 * 4096 * 256


@pytest.mark.parametrize("make", TABLES)
def test_kl_is_positions_times_log_k(make: type[Quantizer]) -> None:
    kl = make(4, codebook_size=7)(torch.randn(2, 4, 3, 5)).kl  # type: ignore[call-arg]
    torch.testing.assert_close(kl, torch.full((2,), 15 * log(7)))


# -- appendix A.1


def ema(dead_code_threshold: float = 0.0, dim: int = 2, **options: object) -> EMAQuantizer:
    quantizer = EMAQuantizer(
        dim, codebook_size=4, dead_code_threshold=dead_code_threshold, init="random", **options
    ).double()  # type: ignore[arg-type]
    quantizer.codebook.normal_()
    quantizer.sums.copy_(quantizer.codebook)
    return quantizer


def skip_the_first_batch(quantizer: Quantizer) -> None:
    quantizer.load_state_dict(quantizer.state_dict() | {"initialized": torch.tensor(True)})


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
    quantizer = ema(decay=0.5).float()
    quantizer.codebook[3], quantizer.sums[3] = 1e3, 1e3
    z = torch.randn(1, 2, 8)
    with torch.no_grad():
        for _ in range(200):
            quantizer(z)
    assert quantizer.codebook.isfinite().all()
    assert quantizer.codebook[3].tolist() == [1e3, 1e3]
    assert quantizer.counts[3] < 1e-37
    quantizer(torch.full((1, 2, 1), 900.0))
    torch.testing.assert_close(quantizer.codebook[3], torch.tensor([900.0, 900.0]))


@pytest.mark.parametrize("tokens", [8, 800])
def test_a_restarted_entry_survives_the_step(tokens: int) -> None:
    quantizer = ema(dead_code_threshold=0.1)
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
    quantizer = ema(dead_code_threshold=0.1)
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


# -- another implementation


def test_a_peer_agrees_on_codes_averages_and_loss() -> None:
    peer = pytest.importorskip("vector_quantize_pytorch")
    theirs = peer.VectorQuantize(
        dim=4, codebook_size=7, decay=0.9, eps=1e-12, commitment_weight=0.25, rotation_trick=False,
        threshold_ema_dead_code=0,
    )  # fmt: skip
    ours = EMAQuantizer(4, codebook_size=7, decay=0.9, commitment=0.25, dead_code_threshold=0.0, init="random")
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


def test_a_peer_agrees_on_directions() -> None:
    peer = pytest.importorskip("vector_quantize_pytorch.vector_quantize_pytorch")
    z, e = torch.randn(2, 50, 4), torch.randn(2, 50, 4)
    made = []
    for each in (lambda: peer.directional_reparam(z, e, VARIANCE), lambda: direction(z.mT, e.mT).mT):
        torch.manual_seed(2)
        noise = torch.randn(2, 50, 4)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch, "randn_like", lambda t, noise=noise: noise if t.shape == noise.shape else noise.mT)
            made.append(each())
    torch.testing.assert_close(*made)


def test_a_peer_agrees_on_simvq_of_any_map() -> None:
    peer = pytest.importorskip("vector_quantize_pytorch")
    ours = started(SimVQQuantizer(4, codebook_size=12, map="attention", hidden=8, group=4))

    class Sum(torch.nn.Module):
        def forward(self, codebook: Tensor) -> Tensor:
            assert ours.map is not None
            mapped: Tensor = ours.linear(codebook) + ours.map(codebook)
            return mapped

    theirs = peer.SimVQ(dim=4, codebook_size=12, codebook_transform=Sum(), rotation_trick=False, channel_first=True)
    theirs.frozen_codebook.copy_(ours.codebook)
    z = torch.randn(2, 4, 60)
    e, codes, loss = theirs(z)
    made = ours(z)
    assert torch.equal(made.codes.view(2, 60), codes)
    torch.testing.assert_close((made.z, made.loss.mean() / 4), (e, loss), check_stride=False)


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
