"""Quantizers without a learned table: levels, signs, corners of a sphere."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import log, prod, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.nn import entropy, signs
from toolkit.quantizer import Quantizer
from toolkit.quantizers.bsq import BSQQuantizer
from toolkit.quantizers.fsq import FSQQuantizer
from toolkit.quantizers.lfq import LFQQuantizer
from toolkit.testing.quantizer import QuantizerSuite

LEVELS = [(8, 5, 5, 5), (3,), (4, 3, 5), (6, 7)]
MANY = [(1000,), (1001,), (1002,), (2001, 5), (2**16,)]


class TestFSQQuantizer(QuantizerSuite):
    learns = False

    def make(self, dim: int) -> Quantizer:
        return FSQQuantizer(levels=(4, 3, 5))


class TestFSQQuantizerSymmetric(TestFSQQuantizer):
    def make(self, dim: int) -> Quantizer:
        return FSQQuantizer(levels=(2, 3, 5), bound="even", spacing="symmetric")


class TestFSQQuantizerWithNoise(TestFSQQuantizer):
    def make(self, dim: int) -> Quantizer:
        return FSQQuantizer(levels=(4, 2, 5), spacing="middles", noise=0.5)


class TestLFQQuantizer(QuantizerSuite):
    learns = False

    def make(self, dim: int) -> Quantizer:
        return LFQQuantizer(bits=6, heads=2)


class TestBSQQuantizer(QuantizerSuite):
    learns = False

    def make(self, dim: int) -> Quantizer:
        return BSQQuantizer(bits=6, heads=3)


def latents(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


# -- levels


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_every_code_is_one_combination_of_levels(levels: tuple[int, ...]) -> None:
    quantizer = FSQQuantizer(levels=levels)
    assert quantizer.codebook_sizes == (prod(levels),)
    assert quantizer.channels == quantizer.dim == len(levels)
    embedded = quantizer.embed(torch.arange(prod(levels)).view(-1, 1, 1))[:, :, 0]
    lattice = [[(step - size // 2) / (size // 2) for step in range(size)] for size in levels]
    fastest_first = [tuple(reversed(point)) for point in product(*reversed(lattice))]
    torch.testing.assert_close(embedded, torch.tensor(fastest_first))


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_the_value_is_the_nearest_level_of_the_bounded_latent(levels: tuple[int, ...]) -> None:
    """Brute force over all levels of each channel, in the space after the tanh."""
    quantizer = FSQQuantizer(levels=levels).double()
    z = 3 * latents(4, len(levels), 25)
    made = quantizer(z)
    for channel, size in enumerate(levels):
        reach, offset = (size - 1) * 1.001 / 2, 0.5 if size % 2 == 0 else 0.0
        bounded = torch.tanh(z[:, channel] + torch.atanh(torch.tensor(offset / reach).double())) * reach - offset
        steps = torch.arange(size) - size // 2
        nearest = steps[(bounded.unsqueeze(-1) - steps).abs().argmin(-1)]
        torch.testing.assert_close(made.z[:, channel], nearest / (size // 2), check_dtype=False)
        assert len(nearest.unique()) == size, "every level is reached"


def test_zero_stays_zero_at_even_and_odd_levels() -> None:
    assert not FSQQuantizer(levels=(8, 5, 4, 3))(torch.zeros(1, 4, 2)).z.any()


def test_the_gradient_is_that_of_the_bound() -> None:
    quantizer = FSQQuantizer(levels=(5, 8)).double()
    z = latents(3, 2, 7).requires_grad_()
    upstream = latents(3, 2, 7)
    (quantizer(z).z * upstream).sum().backward()
    reach = torch.tensor([4, 7]).double().view(2, 1) * 1.001 / 2
    shift = torch.tensor([0, 0.5]).double().view(2, 1).div(reach).atanh()
    slope = reach * (1 - (z + shift).tanh().square()) / torch.tensor([2, 4]).view(2, 1)
    torch.testing.assert_close(z.grad, (upstream * slope).detach())


def test_many_levels_are_told_apart_under_autocast() -> None:
    quantizer, z = FSQQuantizer(levels=(1000,)), torch.randn(4, 1, 500).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        made = quantizer(z)
    assert torch.equal(made.codes, quantizer(z.float()).codes)
    assert made.z.dtype == torch.float32


@pytest.mark.parametrize("levels", MANY, ids=str)
def test_the_outermost_of_many_levels_are_met_and_not_passed(levels: tuple[int, ...]) -> None:
    quantizer, far = FSQQuantizer(levels=levels), torch.tensor([-50.0, 50.0])
    made = quantizer(far.view(2, 1, 1).expand(2, len(levels), 1))
    assert made.codes.flatten().tolist() == [0, prod(levels) - 1]
    torch.testing.assert_close(quantizer.embed(made.codes), made.z)


def test_nothing_but_the_decoder_moves_a_lattice() -> None:
    made = FSQQuantizer()(torch.randn(3, 4, 5))
    assert made.loss.tolist() == [0, 0, 0]
    torch.testing.assert_close(made.kl, torch.full((3,), 5 * log(1000)))


@pytest.mark.parametrize("levels", [(2, 5), (), (2**12, 2**12, 3)], ids=str)
def test_levels_that_cannot_be_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="levels="):
        FSQQuantizer(levels=levels)


def test_the_bounds_and_spacings_that_there_are_are_named() -> None:
    for options in ({"bound": "sigmoid"}, {"spacing": "odd"}, {"noise": 1.5}, {"levels": (1,), "spacing": "middles"}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}="):
            FSQQuantizer(**options)  # type: ignore[arg-type]


SPACED = [(2,), (5, 2), (4, 3, 5), (1000,), (1001, 7)]


@pytest.mark.parametrize("levels", SPACED, ids=str)
@pytest.mark.parametrize("spacing", ["symmetric", "middles"])
def test_spaced_levels_lie_evenly_about_zero(levels: tuple[int, ...], spacing: Any) -> None:
    """Brute force over all levels of each channel, whose values are those of the definitions."""
    quantizer = FSQQuantizer(levels=levels, spacing=spacing).double()
    z = torch.cat([3 * latents(4, len(levels), 60), torch.full((4, len(levels), 1), 50.0).double()], 2)
    z[0, :, -1] = -50
    made = quantizer(z)
    digits, codes = [], made.codes[:, 0]
    for channel, size in enumerate(levels):
        one = (
            torch.linspace(-1, 1, size).double() if spacing == "symmetric" else (2 * torch.arange(size) + 1) / size - 1
        )
        nearest = (z[:, channel].tanh().unsqueeze(-1) - one).abs().argmin(-1)
        torch.testing.assert_close(made.z[:, channel], one[nearest].double())
        assert {0, size - 1} <= set(nearest.flatten().tolist())
        digits.append(nearest)
    assert torch.equal(codes, sum(digit * prod(levels[:i]) for i, digit in enumerate(digits)))
    torch.testing.assert_close(quantizer.embed(made.codes), made.z)


def test_the_even_bound_is_twice_a_sigmoid_less_one() -> None:
    """Its gradient, too; and 0 stays 0 where a level is there."""
    quantizer = FSQQuantizer(levels=(4, 5, 3), bound="even").double()
    assert not quantizer(torch.zeros(1, 3, 2).double()).z.any()
    z, upstream = latents(3, 1, 300).requires_grad_(), latents(3, 1, 300)
    made = FSQQuantizer(levels=(9,), bound="even").double()(z)
    bounded = (2 * (1.6 * z).sigmoid() - 1) * 4 * 1.001
    torch.testing.assert_close(made.z, bounded.round() / 4)
    gradients = [torch.autograd.grad((t * upstream).sum(), z)[0] for t in (made.z, bounded / 4)]
    torch.testing.assert_close(*gradients)


def test_normal_latents_use_evenly_bounded_levels_most_evenly() -> None:
    z, shares = torch.randn(4, 1, 20_000), {}
    for bound, spacing in product(("tanh", "even"), ("zero", "middles")):
        codes = FSQQuantizer(levels=(9,), bound=bound, spacing=spacing)(z).codes  # type: ignore[arg-type]
        share = torch.bincount(codes.flatten(), minlength=9) / codes.numel()
        shares[bound, spacing] = share.max() / share.min()
    assert shares["even", "middles"] < 1.5 < min(shares["tanh", "middles"], shares["even", "zero"])


@pytest.mark.parametrize("spacing", ["zero", "symmetric", "middles"])
def test_noise_in_place_of_rounding_is_a_level_wide(spacing: Any) -> None:
    """Its values are the bounded latents and at most half a level more, spread evenly; its gradient is the bound's."""
    quantizer = FSQQuantizer(levels=(5,), spacing=spacing, noise=1.0).double().train()
    z = torch.full((1, 1, 20_000), 0.3).double().requires_grad_()
    made, unit = quantizer(z), {"zero": 2, "symmetric": 2, "middles": 2.5}[spacing]
    bounded = 0.3 * torch.ones(1).double()
    bounded = bounded.tanh() * {"zero": 2.002, "symmetric": 2, "middles": 2.5}[spacing]
    moved = (made.z.detach() * unit - bounded).flatten()
    assert moved.abs().max() <= 0.5
    assert abs(moved.mean()) < 0.01
    assert abs(moved.var() - 1 / 12) < 0.003
    (noisy,) = torch.autograd.grad(made.z.sum(), z)
    (plain,) = torch.autograd.grad(FSQQuantizer(levels=(5,), spacing=spacing).double()(z).z.sum(), z)
    torch.testing.assert_close(noisy, plain)
    assert torch.equal(made.codes, quantizer.eval()(z).codes)


def test_noise_stays_in_the_range_and_is_of_training_alone() -> None:
    quantizer = FSQQuantizer(levels=(3, 4), spacing="middles", noise=0.5)
    z = 4 * torch.randn(8, 2, 500)
    noisy = quantizer.train()(z).z
    assert noisy.abs().max() <= 1
    rounded = quantizer.eval()(z).z
    kept = (noisy == rounded).float().mean()
    assert 0.45 < kept < 0.6
    assert torch.equal(rounded, FSQQuantizer(levels=(3, 4), spacing="middles")(z).z)


# -- signs


@pytest.mark.parametrize("make", [LFQQuantizer, BSQQuantizer])
def test_codes_are_the_bits_of_the_signs(make: type[LFQQuantizer | BSQQuantizer]) -> None:
    z = latents(3, 12, 5)
    quantizer = make(bits=12, heads=3).double()
    assert quantizer.codebook_sizes == (16, 16, 16)
    made = quantizer(z)
    for b, head, position in product(range(3), range(3), range(5)):
        bits = "".join("1" if z[b, 4 * head + i, position] > 0 else "0" for i in range(4))
        assert made.codes[b, head, position] == int(bits, 2)
    scale = 1.0 if make is LFQQuantizer else 1 / sqrt(12)
    torch.testing.assert_close(made.z, z.sign() * scale)
    torch.testing.assert_close(made.kl, torch.full((3,), 5 * 12 * log(2), dtype=torch.float64))


@pytest.mark.parametrize("make", [LFQQuantizer, BSQQuantizer])
def test_heads_without_codes_embed_as_zeros(make: type[LFQQuantizer | BSQQuantizer]) -> None:
    quantizer = make(bits=12, heads=3)
    made = quantizer(torch.randn(2, 12, 5))
    first = quantizer.embed(made.codes[:, :2])
    assert torch.equal(first[:, :8], made.z[:, :8])
    assert not first[:, 8:].any()


@pytest.mark.parametrize("make", [LFQQuantizer, BSQQuantizer])
@pytest.mark.parametrize("options", [{"bits": 9}, {"heads": 0}, {"bits": 50}, {"temperature": 0.0}], ids=str)
def test_bits_that_cannot_be_shared_out_are_refused(
    make: type[LFQQuantizer | BSQQuantizer], options: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="=".join(map(str, next(iter(options.items()))))):
        make(**options)  # type: ignore[arg-type]


def all_points(bits: int, unit: float) -> Tensor:
    """``(2^bits, bits)``, in the order of the codes."""
    return unit * torch.tensor(list(product((-1.0, 1.0), repeat=bits)), dtype=torch.float64)


def given(z: Tensor, points: Tensor, temperature: float) -> Tensor:
    """Softmax over all points ``(codes, bits)`` of the distances to z ``(batch, bits, positions)``: (…, codes)."""
    squares = (z.movedim(1, -1).unsqueeze(-2) - points).square().sum(-1)
    return (-squares / temperature).softmax(-1)


def nats(shares: Tensor) -> Tensor:
    return torch.special.entr(shares).sum(-1)


def slow_lfq(z: Tensor, heads: int, temperature: float, diversity: float) -> Tensor:
    """The entropy terms by enumeration, ``(batch,)``."""
    size = z.shape[1] // heads
    shares = [given(each, all_points(size, 1.0), temperature) for each in z.split(size, 1)]
    unsure = torch.stack([nats(each).mean(1) for each in shares]).sum(0)
    return unsure - diversity * torch.stack([nats(each.mean((0, 1))) for each in shares]).sum()


def slow_bsq(z: Tensor, heads: int, temperature: float, diversity: float) -> Tensor:
    u, bits = z / z.norm(dim=1, keepdim=True), z.shape[1]
    shares = given(u, all_points(bits, 1 / sqrt(bits)), temperature)
    ones = [shares[..., all_points(bits, 1.0)[:, i] > 0].sum(-1).mean() for i in range(bits)]
    used = torch.stack([nats(torch.stack([one, 1 - one])) for one in ones]).sum()
    return nats(shares).mean(1) - diversity * used


@pytest.mark.parametrize(("make", "slow"), [(LFQQuantizer, slow_lfq), (BSQQuantizer, slow_bsq)])
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_the_entropies_are_those_of_all_codes(
    make: type[LFQQuantizer | BSQQuantizer], slow: Callable[[Tensor, int, float, float], Tensor], heads: int
) -> None:
    """Values and gradients against enumeration, at a temperature where no code is certain."""
    options = {"commitment": 0.0} if make is LFQQuantizer else {}
    quantizer = make(bits=6, heads=heads, entropy=0.3, diversity=0.7, temperature=0.9, **options).double()  # type: ignore[arg-type]
    one, other = (t.requires_grad_() for t in latents(3, 6, 8).repeat(2, 1, 1, 1))
    loss, expected = quantizer(one).loss, 0.3 * slow(other, heads, 0.9, 0.7)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("make", [LFQQuantizer, BSQQuantizer])
def test_the_entropy_terms_want_sure_codes_and_all_of_them(make: type[LFQQuantizer | BSQQuantizer]) -> None:
    """Certain codes that are all used cost least; unsure ones, or one alone, more."""
    options = {"commitment": 0.0} if make is LFQQuantizer else {}
    quantizer = make(bits=3, heads=1, entropy=1.0, **options)  # type: ignore[arg-type]
    every = all_points(3, 1.0).T.unsqueeze(0).float()
    spread, one, unsure = (quantizer(z).loss for z in (every, every[:, :, :1].expand(-1, -1, 8), 1e-5 * every))
    torch.testing.assert_close(spread, torch.tensor([-3 * log(2)]))
    torch.testing.assert_close(one, torch.zeros(1), atol=1e-5, rtol=0)
    if make is LFQQuantizer:
        torch.testing.assert_close(unsure, torch.zeros(1), atol=1e-5, rtol=0)


def test_the_entropy_of_a_nearly_certain_bit_is_exact_in_single_precision() -> None:
    logits = torch.tensor([0.0, 3.0, -12.0, 25.0])
    ones = logits.double().sigmoid()
    expected = torch.special.entr(ones) + torch.special.entr((-logits.double()).sigmoid())
    torch.testing.assert_close(signs.bit_entropy(logits), expected.float(), rtol=1e-5, atol=0)


def test_entropies_stay_finite_where_every_code_is_certain() -> None:
    z = (1000 * torch.randn(4, 18, 6)).requires_grad_()
    made = LFQQuantizer()(z)
    made.loss.sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_eval_leaves_the_batchs_entropies_out() -> None:
    z = torch.randn(3, 18, 4)
    assert BSQQuantizer().eval()(z).loss.tolist() == [0, 0, 0]
    distance = (z - z.sign()).square().sum(1).mean(1)
    torch.testing.assert_close(LFQQuantizer(commitment=0.5).eval()(z).loss, 0.5 * distance)


def test_the_bits_taken_as_independent_bound_the_entropy_from_above() -> None:
    logits = latents(4, 6, 9)
    assert signs.mean_bit_entropy(logits) > signs.mean_code_entropy(logits, 1)
    torch.testing.assert_close(signs.mean_bit_entropy(logits), signs.mean_code_entropy(logits, 6))


def test_no_tensor_has_the_size_of_positions_times_codes(largest: Any) -> None:
    """Neither on the way there nor on the way back: both halves of the bits have 2^9 values."""
    z = torch.randn(4, 18, 8, 8, requires_grad=True)
    with largest:
        LFQQuantizer(heads=1)(z).loss.sum().backward()
    assert z.grad is not None
    assert largest.numel <= max(2**18, 256 * 2**9) < 256 * 2**18


def test_the_mean_is_that_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks: value of both, gradient of this one."""
    other = torch.tensor([0.2, 0.8])
    monkeypatch.setattr(entropy, "ranks", lambda: 2)
    monkeypatch.setattr(entropy, "all_reduce_sum", lambda mean: mean.add_(other))
    mine = torch.tensor([0.6, 0.4], requires_grad=True)
    mean = entropy.over_ranks(mine)
    torch.testing.assert_close(mean, torch.tensor([0.4, 0.6]))
    mean.sum().backward()
    torch.testing.assert_close(mine.grad, torch.ones(2))


# -- other implementations


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_a_peer_agrees_on_levels(levels: tuple[int, ...]) -> None:
    theirs = pytest.importorskip("vector_quantize_pytorch").FSQ(levels=list(levels))
    ours, z = FSQQuantizer(levels=levels), 2 * torch.randn(4, len(levels), 300)
    values, codes = theirs(z.movedim(1, -1))
    made = ours(z)
    assert torch.equal(made.codes[:, 0], codes.long())
    torch.testing.assert_close(made.z, values.movedim(-1, 1), check_stride=False)


def test_a_peer_agrees_on_symmetric_levels() -> None:
    peer = pytest.importorskip("vector_quantize_pytorch")
    theirs = peer.FSQ(levels=[2, 4, 5], preserve_symmetry=True)
    ours, z = FSQQuantizer(levels=(2, 4, 5), spacing="symmetric"), 2 * torch.randn(4, 3, 300)
    values, codes = theirs(z.movedim(1, -1))
    made = ours(z)
    assert torch.equal(made.codes[:, 0], codes.long())
    torch.testing.assert_close(made.z, values.movedim(-1, 1), check_stride=False)


@pytest.mark.parametrize("training", [False, True])
def test_a_peer_agrees_on_noise(training: bool) -> None:
    """Their values have the variance 1 where they are uniform, as 2 / sqrt(12) has in [-1, 1]."""
    theirs = pytest.importorskip("vector_quantize_pytorch").FSP(levels=[2, 4, 5], vector_norm="none")
    ours, z = FSQQuantizer(levels=(2, 4, 5), spacing="middles", noise=1.0), 2 * torch.randn(4, 3, 300)
    torch.manual_seed(3)
    values, codes, *_ = theirs.train(training)(z.movedim(1, -1))
    torch.manual_seed(3)
    made = ours.train(training)(z.movedim(1, -1).flatten(0, 1).unsqueeze(2))
    assert torch.equal(made.codes.flatten(), codes.long().flatten())
    torch.testing.assert_close(made.z.view(4, 300, 3) * sqrt(3), values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_peer_agrees_on_signs(heads: int) -> None:
    """Their entropies are means over heads and their commitment one over channels, where ours are sums."""
    peer = pytest.importorskip("vector_quantize_pytorch")
    weights = {"entropy_loss_weight": 0.1, "diversity_gamma": 0.7, "commitment_loss_weight": 1.5}
    theirs = peer.LFQ(codebook_size=2 ** (6 // heads), num_codebooks=heads, **weights)
    ours = LFQQuantizer(bits=6, heads=heads, commitment=1.5 / 6, entropy=0.1 / heads, diversity=0.7, temperature=2.0)
    z = torch.randn(4, 6, 50)
    values, codes, loss = theirs(z.movedim(1, -1), inv_temperature=1 / 2.0)
    made = ours(z)
    assert torch.equal(made.codes, codes.long().view(4, 50, heads).movedim(-1, 1))
    torch.testing.assert_close(made.z, values.movedim(-1, 1), check_stride=False)
    torch.testing.assert_close(made.loss.mean(), loss, check_stride=False)


def test_a_peer_agrees_on_corners() -> None:
    peer = pytest.importorskip("vector_quantize_pytorch")
    theirs, ours, z = peer.LFQ(codebook_size=64, spherical=True), BSQQuantizer(bits=6, heads=1), torch.randn(4, 6, 50)
    values, codes, _ = theirs(z.movedim(1, -1))
    made = ours(z)
    assert torch.equal(made.codes[:, 0], codes.long())
    torch.testing.assert_close(made.z, values.movedim(-1, 1), check_stride=False)
