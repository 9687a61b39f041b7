"""The laws of decoders, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from toolkit.decoder import Decoder
from toolkit.fit import fakes
from toolkit.lengths import mask_of
from toolkit.likelihood import Distribution, Likelihood, check_distribution
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.nn.receptive_field import receptive_field
from toolkit.padded import Ends, looks_ahead
from toolkit.pieces import Windows, through
from toolkit.spec import Condition, DataSpec
from toolkit.testing.context import CUTTINGS, ROOM, close_to, cutting, cuttings, in_float64, randomized
from toolkit.testing.counting import every, goodness_of_fit, histogram
from toolkit.testing.exporting import EXPORTED_AT, RUN_AT, exported, exports
from toolkit.testing.laws import PartLaws, as_assertion
from toolkit.testing.on_gpu import check_on_gpu
from toolkit.testing.parts import plain_likelihood, random_data

KIND = Condition("kind", 3)


class DecoderSuite(PartLaws):
    """Subclass it as ``class TestMyDecoder(DecoderSuite)``, set data and grid, and build a small one in ``make``, from
    those of its arguments that the decoder asks for."""

    data: ClassVar[DataSpec]
    """Data of the decoder's rank."""
    grid: ClassVar[tuple[int, ...]]
    """Grid of the latents."""
    dim: ClassVar[int] = 6
    """Channels of the latents."""
    conditional: ClassVar[bool] = True
    """Whether it asks for conditions."""
    tiny: ClassVar[tuple[tuple[DataSpec, tuple[int, ...]], ...]] = ()
    """Data small enough to enumerate, and the grid of its latents; for decoders whose dims depend on one another, such
    as autoregressive ones."""
    least_of_latents: ClassVar[float] = 0.05
    """The share of its mean's power that must differ between latents before any training."""

    @abstractmethod
    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        """A decoder with few parameters."""

    def decoder(
        self,
        data: DataSpec | None = None,
        grid: tuple[int, ...] | None = None,
        likelihood: Likelihood | None = None,
    ) -> Decoder:
        """The decoder to check, in eval mode, the same at every call."""
        data, grid = data or self.data, grid or self.grid
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            conditions = (KIND,) if self.conditional else ()
            return self.make(data, self.dim, grid, conditions, likelihood or plain_likelihood(data)).eval()

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

    def test_the_context_is_the_receptive_field(self) -> None:
        """Of the first axis, away from its borders; of the mean, without conditions."""
        with in_float64():
            decoder, z, stride = self._in_context(8)
            before, _ = decoder.context or (0, 0)
            under = slice((before + 1) * stride - decoder.lead, (before + 2) * stride - decoder.lead)
            field = receptive_field(_Mean(decoder), z, (under,))
        assert field is not None, "x depends on nothing"
        own, read = before + 1, field[0]
        measured = max(0, own - read.start), max(0, read.stop - own - 1)
        assert measured == decoder.context, f"declares a context of {decoder.context}, but it is {measured}"

    @torch.no_grad()
    def test_chunks_with_context_give_the_whole(self) -> None:
        """However the latents are cut: decoded as they arrive, up to rounding."""
        with in_float64():
            decoder, z, stride = self._in_context(2)
            for pieces in cuttings(z, 1):
                close_to(self._arriving(decoder, pieces, stride), _Mean(decoder)(z))
        decoder, z = decoder.float(), z.float()
        for pieces in list(cuttings(z, 1))[-1:]:
            close_to(self._arriving(decoder, pieces, stride), _Mean(decoder)(z))

    @torch.no_grad()
    def test_any_cutting_gives_the_whole(self) -> None:
        """Twenty random ones, in either precision."""
        with in_float64():
            decoder, z, stride = self._in_context(2)
            whole = _Mean(decoder)(z)
            for seed in range(CUTTINGS):
                close_to(self._arriving(decoder, cutting(z, seed), stride), whole)
        decoder, z = decoder.float(), z.float()
        whole = _Mean(decoder)(z)
        for seed in range(CUTTINGS):
            close_to(self._arriving(decoder, cutting(z, seed), stride), whole)

    @torch.no_grad()
    def test_an_example_in_padding_gives_what_it_does_alone(self) -> None:
        """However long it is, and whatever the padding holds."""
        if looks_ahead(self.decoder()) and not self.decoder().takes_padding:
            pytest.skip("does not take padding")
        positions = self.grid[0]
        stride, rest = divmod(self.data.axes[0], positions)
        if rest or self.decoder().lead:
            pytest.skip("its first latent has fewer positions than the others")
        with in_float64():
            decoder, z, x = randomized(self.decoder()), self._latents(2).double(), random_data(self.data, 2)
            x = x.double() if x.is_floating_point() else x
            whole = decoder(z, {}).log_prob_by_position(x)
            for latents in range(1, positions, max(1, positions // 3)):
                length = latents * stride
                ends = Ends(mask_of(torch.tensor([length, positions * stride]), positions * stride), stride)
                with ends.in_zeros(decoder):
                    nats = decoder(z, {}).log_prob_by_position(x)
                close_to(nats[:1, :length], decoder(z[:1, :, :latents], {}).log_prob_by_position(x[:1, :, :length]))
                close_to(nats[1:], whole[1:])

    @torch.no_grad()
    def test_a_stream_of_means_gives_the_whole(self) -> None:
        """However the latents are cut, and whatever streams are beside: what a decoder gives that keeps a state."""
        if self.decoder().mean_stream() is None:
            pytest.skip("has no stream of means")
        kind = {"kind": torch.arange(2)} if self.conditional else {}
        with in_float64():
            decoder, z, _ = self._in_context(2)
            assert decoder.context is not None
            assert decoder.context[1] == 0, "has a stream of means, but its context is not all before"
            whole = decoder(z, kind).mean
            assert whole is not None
            for pieces in cuttings(z, 1):
                close_to(self._means(decoder, pieces, kind), whole)
            alone = {name: value[1:] for name, value in kind.items()}
            close_to(self._means(decoder, [z[1:]], alone), whole[1:])

    @torch.no_grad()
    def test_a_stream_gives_the_whole(self) -> None:
        """However the latents are cut, and whatever streams are beside: what a decoder with a state draws."""
        if self.decoder().stream_context is None:
            pytest.skip("declares no stream_context")
        with in_float64():
            decoder, z = randomized(self.decoder()), self._latents(2, (9, *self.grid[1:])).double()
            kind = torch.arange(2)
            whole = self._streamed(decoder, [z], kind, 0)
            assert whole.shape[2] == 9 * self.data.axes[0] // self.grid[0]
            for pieces in cuttings(z, 1):
                assert torch.equal(self._streamed(decoder, pieces, kind, 0), whole)
            assert torch.equal(self._streamed(decoder, [z[1:]], kind[1:], 1), whole[1:])

    @torch.no_grad()
    def test_any_cutting_of_a_stream_gives_the_whole(self) -> None:
        """Twenty random ones."""
        if self.decoder().stream_context is None:
            pytest.skip("declares no stream_context")
        with in_float64():
            decoder, z = randomized(self.decoder()), self._latents(1, (9, *self.grid[1:])).double()
            kind = torch.arange(1)
            whole = self._streamed(decoder, [z], kind, 0)
            for seed in range(CUTTINGS):
                assert torch.equal(self._streamed(decoder, cutting(z, seed), kind, 0), whole)

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
        mean, free = _Mean(decoder), decoder.context is not None and self.grid[0] > 1
        graph = exported(mean, self._inputs(EXPORTED_AT), strict, {2: 1} if free else None)
        for n, more in zip(RUN_AT, (0, int(free)), strict=True):
            inputs = self._inputs(n, (self.grid[0] + more, *self.grid[1:]))
            torch.testing.assert_close(graph(*inputs), mean(*inputs))

    def _in_context(self, n: int) -> tuple[Decoder, Tensor, int]:
        """In float64 a decoder, n examples of latents long enough for its context, and positions of x per latent.

        Its mean is what it gives the likelihood: a Gaussian's, which is no narrower than float64.
        """
        context = self.decoder().context
        if context is None:
            pytest.skip("declares no context")
        lead = self.decoder().lead
        stride, grid = (self.data.axes[0] + lead) // self.grid[0], (sum(context) + ROOM, *self.grid[1:])
        data = replace(self.data, axes=(stride * grid[0] - lead, *self.data.axes[1:]))
        decoder = self.decoder(data, grid, NormalLikelihood(DataSpec(data.channels, data.axes), scale=1.0))
        return randomized(decoder), self._latents(n, grid).double(), stride

    def _arriving(self, decoder: Decoder, pieces: list[Tensor], stride: int) -> Tensor:
        """Means of latents in pieces, each as soon as its context is there."""
        before, after = decoder.context or (0, 0)
        windows, mean, lead = through(Windows(1, None, before, after), pieces), _Mean(decoder), decoder.lead
        slices = ((w.t, max(0, w.own.start * stride - lead), w.own.stop * stride - lead) for w in windows)
        return torch.cat([mean(t)[:, :, start:stop] for t, start, stop in slices], 2)

    def _streamed(self, decoder: Decoder, pieces: list[Tensor], kind: Tensor, seed: int) -> Tensor:
        """What streams draw of latents in pieces, the first with this seed."""
        stream = decoder.stream([torch.Generator().manual_seed(seed + i) for i in range(len(kind))])
        before, after = decoder.stream_context or (0, 0)
        conditions = {"kind": kind} if self.conditional else {}
        windows = through(Windows(1, None, before, after), pieces)
        return torch.cat([stream(w.t, w.own, conditions) for w in windows], 2)

    def _means(self, decoder: Decoder, pieces: list[Tensor], kind: dict[str, Tensor]) -> Tensor:
        """Means of latents in pieces by a stream."""
        stream, means = decoder.mean_stream(), list[Tensor]()
        assert stream is not None
        for window in through(Windows(1, None), pieces):
            mean = stream(window.t, kind).mean
            assert mean is not None
            means.append(mean)
        return torch.cat(means, 2)

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

    def _latents(self, n: int, grid: tuple[int, ...] | None = None) -> Tensor:
        return torch.randn(n, self.dim, *(grid or self.grid), generator=torch.Generator().manual_seed(0))

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


class _Mean(nn.Module):
    """The mean that a decoder gives."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor, kind: Tensor | None = None) -> Tensor:
        mean = self.decoder(z, {} if kind is None else {"kind": kind}).mean
        assert mean is not None, "its distribution has no mean"
        return mean

    if TYPE_CHECKING:
        __call__ = forward
