"""The quantizers of the core, each with its equation."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from toolkit.nn import codebook as table
from toolkit.quantizer import Quantizer
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.testing.quantizer import QuantizerSuite


class TestVectorQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return VectorQuantizer(dim, codebook_size=11)


class TestEMAQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return EMAQuantizer(dim, codebook_size=11)


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
    monkeypatch.setattr(table, "TILE", tile)
    z, codebook = latents(97, 5), latents(30, 5)
    assert torch.equal(table.nearest(z, codebook), torch.cdist(z, codebook).argmin(1))


def test_nearest_keeps_to_its_tile() -> None:
    z, codebook = torch.randn(70_000, 3), torch.randn(64, 3)
    with Largest() as largest:
        table.nearest(z, codebook)
    assert z.numel() <= largest.numel <= table.TILE < len(z) * len(codebook)


def test_nearest_tells_close_entries_apart_under_autocast() -> None:
    codebook = 1 + torch.arange(8.0)[:, None] / 500
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(table.nearest(codebook, codebook), torch.arange(8))


def test_the_values_are_the_entries_exactly() -> None:
    z, e = 1000 * torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    assert torch.equal(table.straight_through(z, e), e)


# -- equation 3


@pytest.mark.parametrize("dim", [1, 8, 64])
@pytest.mark.parametrize("commitment", [0.25, 2.0])
def test_each_term_moves_only_its_own_side(dim: int, commitment: float) -> None:
    quantizer = VectorQuantizer(dim, codebook_size=7, commitment=commitment, data_init=False).double()
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
    vq = VectorQuantizer(4, codebook_size=7, commitment=0.5, data_init=False).double().eval()
    ema = EMAQuantizer(4, codebook_size=7, commitment=0.5, data_init=False).double().eval()
    ema.codebook.copy_(vq.codebook.detach())
    gradients = []
    for quantizer in (vq, ema):
        z = torch.linspace(-1, 1, 48, dtype=torch.float64).view(2, 4, 6).requires_grad_()
        quantizer(z).loss.sum().backward()
        gradients.append(z.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("make", [VectorQuantizer, EMAQuantizer])
def test_kl_is_positions_times_log_k(make: type[Quantizer]) -> None:
    kl = make(4, codebook_size=7)(torch.randn(2, 4, 3, 5)).kl  # type: ignore[call-arg]
    torch.testing.assert_close(kl, torch.full((2,), 15 * log(7)))


# -- appendix A.1


def ema(restart: float = 0.0, dim: int = 2, **options: object) -> EMAQuantizer:
    quantizer = EMAQuantizer(dim, codebook_size=4, restart=restart, data_init=False, **options).double()  # type: ignore[arg-type]
    quantizer.codebook.normal_()
    quantizer.sums.copy_(quantizer.codebook)
    return quantizer


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
    quantizer.initialised.fill_(True)
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
    quantizer.initialised.fill_(True)
    quantizer.codebook[3] = 1e3
    quantizer.counts.fill_(tokens / 4)
    quantizer.counts[3] = 0.1 * tokens / 4 / 0.99 + 1e-6
    quantizer.sums.copy_(quantizer.codebook * quantizer.counts[:, None])
    quantizer(latents(1, 2, tokens))
    assert quantizer.codebook[3].tolist() == [1e3, 1e3]


def test_restarts_bring_a_collapsed_codebook_back() -> None:
    quantizer = EMAQuantizer(2, codebook_size=32, data_init=False)
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
    theirs = peer.VectorQuantize(dim=4, codebook_size=7, decay=0.9, eps=1e-12, commitment_weight=0.25)
    ours = EMAQuantizer(4, codebook_size=7, decay=0.9, commitment=0.25, restart=0.0, data_init=False)
    ours.codebook.copy_(theirs._codebook.embed[0])
    ours.sums.copy_(theirs._codebook.embed_avg[0])
    ours.counts.copy_(theirs._codebook.cluster_size[0])
    for _ in range(3):
        z = torch.randn(2, 4, 60)
        _, codes, loss = theirs.train()(z.movedim(1, -1))
        made = ours.train()(z)
        assert torch.equal(made.codes[:, 0], codes)
        torch.testing.assert_close(ours.codebook, theirs._codebook.embed[0])
        # theirs is a mean over dim, ours the norm
        torch.testing.assert_close(made.loss.mean() / 4, loss, check_stride=False)
