"""The laws of quantizers, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import log
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from toolkit.quantizer import Quantized, Quantizer

GRIDS = ((1,), (7,), (3, 4), (2, 3, 2))

each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


class QuantizerSuite(ABC):
    """Subclass it as ``class TestMyQuantizer(QuantizerSuite)`` and say how to ``make`` a small one.

    One that learns is checked after a step of training, so that what it draws from the data is drawn.
    """

    dim: ClassVar[int] = 8
    """What ``make`` is given."""
    learns: ClassVar[bool] = True
    """Whether its tables change in training; False for fixed lattices."""

    @abstractmethod
    def make(self, dim: int) -> Quantizer:
        """A quantizer with small codebooks."""

    def quantizer(self) -> Quantizer:
        """One to check, in float64 and eval mode, the same from call to call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            quantizer = self.make(self.dim).double()
            quantizer(_latents(quantizer, (64,)))
        return quantizer.eval()

    @each_grid
    def test_what_it_gives_has_the_stated_shape(self, grid: tuple[int, ...]) -> None:
        quantizer = self.quantizer()
        assert len(quantizer.codebook_sizes) == quantizer.depth
        made = quantizer(_latents(quantizer, grid))
        assert made.z.shape == (5, quantizer.dim, *grid)
        assert made.codes.shape == (5, quantizer.depth, *grid)
        assert made.codes.dtype == torch.int64
        for per_example in (made.loss, made.kl):
            assert per_example.shape == (5,)
            assert per_example.isfinite().all()
        assert all(figure.dim() == 0 for figure in made.metrics.values())
        _assert_in_range(made.codes, quantizer)

    @each_grid
    def test_embedding_the_codes_gives_the_latents(self, grid: tuple[int, ...]) -> None:
        quantizer = self.quantizer()
        made = quantizer(_latents(quantizer, grid))
        torch.testing.assert_close(quantizer.embed(made.codes), made.z)

    def test_the_first_depths_can_be_embedded(self) -> None:
        quantizer = self.quantizer()
        codes = quantizer(_latents(quantizer, (3, 4))).codes
        for depth in range(1, quantizer.depth + 1):
            z = quantizer.embed(codes[:, :depth])
            assert z.shape == (5, quantizer.dim, 3, 4)
            assert z.isfinite().all()

    def test_positions_do_not_influence_one_another(self) -> None:
        quantizer = self.quantizer()
        z, order = _latents(quantizer, (12,)), torch.randperm(12, generator=_generator())
        plain, shuffled = quantizer(z), quantizer(z[:, :, order])
        assert torch.equal(shuffled.codes, plain.codes[:, :, order])
        torch.testing.assert_close(shuffled.z, plain.z[:, :, order])
        torch.testing.assert_close(shuffled.loss, plain.loss)

    def test_examples_do_not_influence_one_another(self) -> None:
        quantizer = self.quantizer()
        z = _latents(quantizer, (3, 4))
        together, alone = quantizer(z), [quantizer(one) for one in z.split(1)]
        for name in ("z", "codes", "loss", "kl"):
            torch.testing.assert_close(getattr(together, name), torch.cat([getattr(one, name) for one in alone]))

    def test_eval_changes_no_state(self) -> None:
        quantizer = self.quantizer()
        before = _state(quantizer)
        with torch.no_grad():
            quantizer(10 * _latents(quantizer, (3, 4)))
        _assert_same_state(quantizer, before)

    def test_the_decoders_gradient_reaches_every_channel(self) -> None:
        quantizer = self.quantizer()
        z = _latents(quantizer, (3, 4)).requires_grad_()
        quantizer.train()(z).z.square().sum().backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        assert (z.grad.movedim(1, 0).flatten(1).abs().amax(1) > 0).all()

    def test_training_reaches_every_depth(self) -> None:
        quantizer = self.quantizer()
        if not self.learns:
            pytest.skip("its tables are fixed")
        before = [_table(quantizer, depth) for depth in range(quantizer.depth)]
        made = quantizer.train()(_latents(quantizer, (3, 4), seed=1).requires_grad_())
        made.loss.sum().backward()
        with torch.no_grad():
            for parameter in quantizer.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=0.1)
        for depth, table in enumerate(before):
            assert not torch.allclose(_table(quantizer, depth), table), f"depth {depth} learns nothing"

    def test_the_kl_lies_between_none_and_the_rate(self) -> None:
        quantizer = self.quantizer()
        kl = quantizer(_latents(quantizer, (3, 4))).kl
        rate = 12 * sum(log(size) for size in quantizer.codebook_sizes)
        assert (kl >= 0).all()
        assert quantizer.depth == 0 or (kl <= rate + 1e-6).all()

    @pytest.mark.parametrize("training", [False, True])
    def test_codes_do_not_suffer_from_half_precision(self, training: bool) -> None:
        quantizer = self.quantizer().float()
        z, state = _latents(quantizer, (3, 4)).bfloat16(), _state(quantizer)
        made = []
        for latents in (z, z.float()):
            quantizer.load_state_dict(state)
            torch.manual_seed(0)
            with torch.autocast("cpu", torch.bfloat16):
                made.append(quantizer.train(training)(latents))
        assert torch.equal(made[0].codes, made[1].codes)
        assert made[0].loss.dtype == made[0].kl.dtype == torch.float32
        assert {t.dtype for t in quantizer.state_dict().values() if t.is_floating_point()} <= {torch.float32}

    @pytest.mark.filterwarnings("ignore:Guards may run slower")  # what torch says of Python 3.13.0
    @pytest.mark.parametrize("training", [False, True])
    def test_it_compiles_whole(self, training: bool) -> None:
        plain, compiled = self.quantizer().train(training), self.quantizer().train(training)
        torch._dynamo.reset()
        whole = torch.compile(compiled, fullgraph=True, backend="aot_eager")
        for seed in range(2):
            z = _latents(plain, (3, 4), seed)
            made = []
            for forward in (plain, whole):
                torch.manual_seed(seed)
                made.append(forward(z))
            _assert_same(*made)
        _assert_same_state(compiled, _state(plain))

    def test_the_state_dict_is_the_whole_quantizer(self) -> None:
        quantizer, other = self.quantizer(), self.make(self.dim).double().eval()
        other.load_state_dict(quantizer.state_dict())
        z = _latents(quantizer, (3, 4))
        _assert_same(other(z), quantizer(z))
        for each in (quantizer, other):
            torch.manual_seed(0)
            each.train()(z)
        _assert_same_state(other, _state(quantizer))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _latents(quantizer: Quantizer, grid: tuple[int, ...], seed: int = 0) -> Tensor:
    """Of 5 examples, in the quantizer's precision."""
    z = torch.randn(5, quantizer.channels, *grid, generator=_generator(seed), dtype=torch.float64)
    floats = [t.dtype for t in quantizer.state_dict().values() if t.is_floating_point()]
    return z.to(floats[0]) if floats else z


def _table(quantizer: Quantizer, depth: int) -> Tensor:
    """What the codes of one depth add to latents, all others being 0; relative to its first code."""
    size = quantizer.codebook_sizes[depth]
    codes = torch.zeros(size, quantizer.depth, 1, dtype=torch.int64)
    codes[:, depth, 0] = torch.arange(size)
    z = quantizer.embed(codes).detach().clone()
    return z - z[:1]


def _state(quantizer: Quantizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


def _assert_same_state(quantizer: Quantizer, expected: dict[str, Tensor]) -> None:
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, expected[name]), f"{name} is not the same"


def _assert_same(made: Quantized, expected: Quantized) -> None:
    assert torch.equal(made.codes, expected.codes)
    for name in ("z", "loss", "kl"):
        torch.testing.assert_close(getattr(made, name), getattr(expected, name))


def _assert_in_range(codes: Tensor, quantizer: Quantizer) -> None:
    for depth, size in enumerate(quantizer.codebook_sizes):
        assert 0 <= int(codes[:, depth].min()) <= int(codes[:, depth].max()) < size
