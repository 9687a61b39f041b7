"""The laws of decoders, as tests that a plugin's tests inherit."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from toolkit.decoder import Decoder
from toolkit.fit import fakes
from toolkit.likelihood import Distribution, check_distribution
from toolkit.spec import DataSpec
from toolkit.testing.counting import every, goodness_of_fit, histogram
from toolkit.testing.decoding import KIND, DecodingLaws, Mean
from toolkit.testing.exporting import EXPORTED_AT, RUN_AT, exported, exports
from toolkit.testing.laws import as_assertion
from toolkit.testing.on_gpu import check_on_gpu
from toolkit.testing.parts import plain_likelihood, random_data


class DecoderSuite(DecodingLaws):
    """Subclass it as ``class TestMyDecoder(DecoderSuite)``, set data and grid, and build a small one in ``make``, from
    those of its arguments that the decoder asks for."""

    tiny: ClassVar[tuple[tuple[DataSpec, tuple[int, ...]], ...]] = ()
    """Data small enough to enumerate, and the grid of its latents; for decoders whose dims depend on one another, such
    as autoregressive ones."""
    least_of_latents: ClassVar[float] = 0.05
    """The share of its mean's power that must differ between latents before any training."""

    def part(self) -> Decoder:
        return self.decoder()

    def outcome(self, part: Decoder) -> tuple[Tensor, ...]:
        return (self._log_prob(part, 2),)

    def test_it_gives_a_distribution_over_the_data(self) -> None:
        distribution = self.decoder()(self._latents(3), {})
        assert isinstance(distribution, Distribution)
        assert distribution.shape == self.data.shape

    def test_its_results_fit_a_model(self) -> None:
        """What ``toolkit check`` asks of a distribution's shapes and types."""
        decoder = self.decoder()
        with fakes(decoder), as_assertion():
            check_distribution(decoder, decoder(torch.zeros(2, self.dim, *self.grid), {}), self.data)

    def test_its_rank_is_that_of_the_data(self) -> None:
        assert self.decoder().rank in (None, self.data.rank)

    def test_log_prob_is_finite(self) -> None:
        nats = self._log_prob(self.decoder(), 3)
        assert nats.shape == (3,)
        assert nats.isfinite().all()

    def test_log_prob_is_precise_under_autocast(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            assert self._log_prob(self.decoder(), 3).dtype == torch.float32

    def test_mean_and_samples_have_the_shape_of_the_data(self) -> None:
        with torch.no_grad():
            distribution = self.decoder()(self._latents(3), {})
            x = distribution.sample(torch.Generator().manual_seed(0))
        assert x.shape == (3, *self.data.shape)
        assert x.is_floating_point() == (self.data.levels is None)
        assert distribution.mean is None or distribution.mean.shape == x.shape

    @torch.no_grad()
    def test_probabilities_of_all_data_sum_to_one(self) -> None:
        for data, grid in self._each_tiny():
            nats = self._tiny_distribution(data, grid, len(every(data))).log_prob(every(data))
            torch.testing.assert_close(nats.exp().sum().item(), 1.0, atol=1e-6, rtol=0)

    @torch.no_grad()
    def test_samples_fit_log_prob(self) -> None:
        n = 20_000
        for data, grid in self._each_tiny():
            expected = self._tiny_distribution(data, grid, len(every(data))).log_prob(every(data)).exp() * n
            x = self._tiny_distribution(data, grid, n).sample(torch.Generator().manual_seed(0))
            assert goodness_of_fit(histogram(x, every(data)), expected) > 1e-4

    def test_a_seed_decides_the_sample(self) -> None:
        distribution = self.decoder()(self._latents(3), {})
        first, again = (distribution.sample(torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(first, again)

    def test_examples_do_not_influence_one_another(self) -> None:
        decoder, x, z, kind = self.decoder(), random_data(self.data, 3), self._latents(3), torch.arange(3)
        with torch.no_grad():
            together = decoder(z, {"kind": kind}).log_prob(x)
            parts = zip(z.split(1), x.split(1), kind.split(1), strict=True)
            alone = [decoder(one, {"kind": k}).log_prob(v) for one, v, k in parts]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-3, rtol=1e-4)

    def test_the_data_depend_on_the_latents(self) -> None:
        decoder, x = self.decoder(), random_data(self.data, 1).expand(2, *self.data.shape)
        with torch.no_grad():
            nats = decoder(self._latents(2), {}).log_prob(x)
        assert (nats[0] - nats[1]).abs() > 1e-6

    @torch.no_grad()
    def test_its_mean_is_of_the_latents_from_the_start(self) -> None:
        """A share of its power before any training. Else training begins by unlearning biases, with gradients to the
        latents that vanish, and codes collapse."""
        mean = self.decoder()(self._latents(8), {}).mean
        if mean is None:
            pytest.skip("its distribution has no mean")
        share = mean.var(0).mean() / mean.square().mean()
        assert share >= self.least_of_latents, f"only {share:.2%} of its power: initialize it without biases"

    def test_the_data_depend_on_conditions(self) -> None:
        decoder, x = self._conditional(), random_data(self.data, 1).expand(2, *self.data.shape)
        with torch.no_grad():
            nats = decoder(self._latents(1).expand(2, -1, *self.grid), {"kind": torch.arange(2)}).log_prob(x)
        assert (nats[0] - nats[1]).abs() > 1e-6

    def test_a_missing_condition_means_none(self) -> None:
        none = {"kind": torch.full((3,), KIND.size)}
        decoder = self._conditional()
        torch.testing.assert_close(self._log_prob(decoder, 3), self._log_prob(decoder, 3, none))

    def test_the_gradient_reaches_latents_and_every_parameter(self) -> None:
        decoder, z = self.decoder().train(), self._latents(8).requires_grad_()
        kind = {"kind": torch.arange(8) % (KIND.size + 1)}
        decoder(z, kind).log_prob(random_data(self.data, 8)).mean().backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        assert z.grad.any()
        for name, parameter in decoder.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            assert parameter.grad.any(), f"the gradient of {name} is zero"

    def test_eval_changes_no_state(self) -> None:
        decoder = self.decoder()
        before = {name: value.clone() for name, value in decoder.state_dict().items()}
        assert torch.equal(self._log_prob(decoder, 3), self._log_prob(decoder, 3))
        assert all(torch.equal(value, before[name]) for name, value in decoder.state_dict().items())

    def test_the_state_dict_is_the_whole_decoder(self) -> None:
        decoder = self.decoder()
        conditions = (KIND,) if self.conditional else ()
        other = self.make(self.data, self.dim, self.grid, conditions, plain_likelihood(self.data)).eval()
        other.load_state_dict(decoder.state_dict())
        torch.testing.assert_close(self._log_prob(other, 3), self._log_prob(decoder, 3))

    def test_it_computes_on_a_gpu(self) -> None:
        """Forward, backward and state lie there, and no step of training waits for it; on a stand-in for a GPU."""

        def forward(decoder: Decoder, z: Tensor, x: Tensor, kind: dict[str, Tensor]) -> list[Tensor]:
            distribution = decoder(z, kind)
            sample = [] if decoder.training else [distribution.sample(torch.Generator().manual_seed(0))]
            mean = [] if distribution.mean is None else [distribution.mean]
            return [distribution.log_prob(x), *mean, *sample]

        kind = {"kind": torch.arange(2)} if self.conditional else {}
        check_on_gpu(self.decoder(), forward, self._latents(2).requires_grad_(), random_data(self.data, 2), kind)

    def test_it_runs_on_fake_tensors(self) -> None:
        """Building a model runs it on them, to check that the parts fit."""
        decoder = self.decoder()
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            dtype = torch.get_default_dtype() if self.data.levels is None else torch.int64
            x = torch.zeros(2, *self.data.shape, dtype=dtype)
            assert decoder(torch.zeros(2, self.dim, *self.grid), {}).log_prob(x).shape == (2,)

    @exports
    @torch.no_grad()
    def test_it_exports(self, strict: bool) -> None:
        """Latents and a condition to the mean, what a deployed decoder gives; as a graph of any number of examples and,
        where a context is declared, of any length."""
        decoder = self.decoder()
        if decoder(self._latents(1), {}).mean is None:
            pytest.skip("its distribution has no mean")
        mean, free = Mean(decoder), decoder.context is not None and self.grid[0] > 1
        graph = exported(mean, self._inputs(EXPORTED_AT), strict, {2: 1} if free else None)
        for n, more in zip(RUN_AT, (0, int(free)), strict=True):
            inputs = self._inputs(n, (self.grid[0] + more, *self.grid[1:]))
            torch.testing.assert_close(graph(*inputs), mean(*inputs))

    def _each_tiny(self) -> tuple[tuple[DataSpec, tuple[int, ...]], ...]:
        return self.tiny or pytest.skip("its dims are independent: the suite of its likelihood checks this")

    @torch.no_grad()
    def _tiny_distribution(self, data: DataSpec, grid: tuple[int, ...], n: int) -> Distribution:
        """Given one example's latents n times, with random weights in float64."""
        decoder, generator = self.decoder(data, grid).double(), torch.Generator().manual_seed(1)
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        z = torch.randn(1, self.dim, *grid, generator=generator, dtype=torch.float64)
        return decoder(z.expand(n, -1, *grid), {"kind": torch.ones(n, dtype=torch.int64)})

    def _inputs(self, n: int, grid: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
        """Latents, and a condition where it asks for one."""
        kind = torch.arange(n) % (KIND.size + 1)
        return (self._latents(n, grid), kind) if self.conditional else (self._latents(n, grid),)

    def _log_prob(self, decoder: Decoder, n: int, conditions: dict[str, Tensor] | None = None) -> Tensor:
        with torch.no_grad():
            return decoder(self._latents(n), conditions or {}).log_prob(random_data(self.data, n))

    def _conditional(self) -> Decoder:
        if not self.conditional:
            pytest.skip("asks for no conditions")
        return self.decoder()
