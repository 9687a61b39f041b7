"""The laws of sampling codes, which the quantizers' suite inherits."""

from __future__ import annotations

from abc import abstractmethod
from math import log, prod
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from toolkit.errors import ToolkitError
from toolkit.quantizer import Quantizer
from toolkit.spec import CodeSpec
from toolkit.testing.laws import PartLaws

SAMPLES = 20_000


class PosteriorLaws(PartLaws):
    """Builds the quantizer under test; laws of ``sample`` and ``posterior``."""

    dim: ClassVar[int] = 8
    """Argument of ``make``."""
    learns: ClassVar[bool] = True
    """Whether its codebooks change in training; False for fixed lattices."""
    grid: ClassVar[tuple[int, ...] | None] = None
    """The one grid of latents that it takes; None: any grid."""

    @abstractmethod
    def make(self, dim: int) -> Quantizer:
        """A quantizer with small codebooks."""

    def quantizer(self) -> Quantizer:
        """The quantizer to check, in float64 and eval mode, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            quantizer = self.make(self.dim).double()
            quantizer(self.latents(quantizer, (64,)))
        return quantizer.eval()

    def latents(self, quantizer: Quantizer, grid: tuple[int, ...], seed: int = 0) -> Tensor:
        """Latents of 5 examples on a grid, or on the one that it takes."""
        return latents(quantizer, self.grid or grid, seed)

    def part(self) -> Quantizer:
        return self.quantizer()

    def outcome(self, part: Quantizer) -> tuple[Tensor, ...]:
        quantized = part(self.latents(part, (3, 4)))
        return quantized.z.detach(), quantized.codes, quantized.loss.detach(), quantized.kl.detach()

    @pytest.mark.parametrize("training", [False, True])
    def test_a_sample_is_not_relaxed(self, training: bool) -> None:
        quantizer = self.quantizer().train(training)
        z = self.latents(quantizer, (3, 4))
        quantized = quantizer.sample(z)
        assert quantized.z.shape == (5, quantizer.dim, *z.shape[2:])
        assert quantized.codes.shape == (5, *code_spec_of(quantizer, z).shape)
        assert_codes(quantized.codes, quantizer)
        if quantizer.depth and not training:
            torch.testing.assert_close(quantized.z, quantizer.embed(quantized.codes))

    def test_a_sample_has_the_exact_kl(self) -> None:
        quantizer = self.quantizer()
        z = self.latents(quantizer, (3, 4))
        torch.testing.assert_close(quantizer.sample(z).kl, quantizer(z).kl)

    def test_it_has_a_posterior_or_raises_an_error(self) -> None:
        quantizer = self.quantizer()
        z = self.latents(quantizer, (3, 4))
        if quantizer.has_posterior:
            assert quantizer.posterior(z).sample(2).shape == (2, 5, *code_spec_of(quantizer, z).shape)
        else:
            with pytest.raises(ToolkitError, match="posterior"):
                quantizer.posterior(z)

    def test_the_posterior_sums_to_one(self) -> None:
        _, _, probs = self._enumerated()
        torch.testing.assert_close(probs.sum(), torch.ones_like(probs.sum()))

    def test_the_kl_is_the_rate_less_the_entropy(self) -> None:
        quantizer, z, probs = self._enumerated()
        entropy = -(probs * probs.log()).sum()
        rate = sum(log(size) for size in quantizer.codebook_sizes)
        torch.testing.assert_close(quantizer.posterior(z).entropy()[0], entropy)
        torch.testing.assert_close(quantizer(z).kl[0], rate - entropy)

    def test_samples_of_the_posterior_fit_its_probabilities(self) -> None:
        quantizer, z, probs = self._enumerated()
        torch.manual_seed(0)
        _assert_fits(quantizer.posterior(z).sample(SAMPLES).flatten(0, 1), probs, quantizer)

    def test_samples_of_the_quantizer_fit_the_posterior(self) -> None:
        quantizer, z, probs = self._enumerated()
        torch.manual_seed(0)
        _assert_fits(quantizer.sample(z.expand(SAMPLES, -1, -1)).codes, probs, quantizer)

    def _enumerated(self) -> tuple[Quantizer, Tensor, Tensor]:
        """A quantizer, latents of one position, and the probabilities of all its codes."""
        quantizer = self.quantizer()
        if not quantizer.has_posterior:
            pytest.skip("it has no posterior")
        if not quantizer.local:
            pytest.skip("it is not local: the codes of one position have no posterior of their own")
        z = latents(quantizer, (1,))[:1]
        nats = quantizer.posterior(z).log_prob(_all_codes(quantizer).unsqueeze(1))
        return quantizer, z, nats.detach()[:, 0].exp()


def latents(quantizer: Quantizer, grid: tuple[int, ...], seed: int = 0) -> Tensor:
    """Latents of 5 examples, in the quantizer's precision."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(5, quantizer.channels, *grid, generator=generator, dtype=torch.float64)
    floats = [t.dtype for t in quantizer.state_dict().values() if t.is_floating_point()]
    return z.to(floats[0]) if floats else z


def code_spec_of(quantizer: Quantizer, z: Tensor) -> CodeSpec:
    """The codes that the quantizer declares for latents z."""
    return CodeSpec.on(quantizer.code_grid(tuple(z.shape[2:])), quantizer.codebook_sizes)


def assert_codes(codes: Tensor, quantizer: Quantizer) -> None:
    """Checks that codes are int64 and in their codebooks."""
    assert codes.dtype == torch.int64
    for depth, size in enumerate(quantizer.codebook_sizes):
        assert 0 <= int(codes[:, depth].min()) <= int(codes[:, depth].max()) < size


def _all_codes(quantizer: Quantizer) -> Tensor:
    """Every code of one position, ``(n, depth, 1)``."""
    return torch.cartesian_prod(*map(torch.arange, quantizer.codebook_sizes)).view(-1, quantizer.depth, 1)


def _assert_fits(codes: Tensor, probs: Tensor, quantizer: Quantizer) -> None:
    """Checks that the count of each code is within 5 standard deviations, plus 1, of its expectation."""
    number = torch.zeros_like(codes[:, 0, 0])
    for depth, size in enumerate(quantizer.codebook_sizes):
        number = number * size + codes[:, depth, 0]
    counts = torch.bincount(number, minlength=prod(quantizer.codebook_sizes))
    expected = probs * len(codes)
    assert ((counts - expected).abs() <= 5 * (expected * (1 - probs)).sqrt() + 1).all()
