"""The laws of what decoders give piece by piece, and of examples in padding, which their suite inherits."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch
from torch import Tensor, nn

from toolkit.decoder import Decoder
from toolkit.lengths.mask import mask_of
from toolkit.lengths.padded import Ends, looks_ahead
from toolkit.likelihood import Likelihood
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.nn.receptive_field import receptive_field
from toolkit.pieces import Windows, through
from toolkit.spec import Condition, DataSpec
from toolkit.testing.context import CUTTINGS, ROOM, close_to, cutting, cuttings, in_float64, randomized
from toolkit.testing.laws import PartLaws
from toolkit.testing.parts import plain_likelihood, random_data

KIND = Condition("kind", 3)


class DecodingLaws(PartLaws):
    """Builds the decoder under test; laws of ``context``, of streams and of padding."""

    data: ClassVar[DataSpec]
    """Data of the decoder's rank."""
    grid: ClassVar[tuple[int, ...]]
    """Grid of the latents."""
    dim: ClassVar[int] = 6
    """Channels of the latents."""
    conditional: ClassVar[bool] = True
    """Whether it asks for conditions."""

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

    def _latents(self, n: int, grid: tuple[int, ...] | None = None) -> Tensor:
        return torch.randn(n, self.dim, *(grid or self.grid), generator=torch.Generator().manual_seed(0))

    def test_the_context_is_the_receptive_field(self) -> None:
        """Of the first axis, away from its borders; of the mean, without conditions."""
        with in_float64():
            decoder, z, stride = self._in_context(8)
            before, _ = decoder.context or (0, 0)
            under = slice((before + 1) * stride - decoder.lead, (before + 2) * stride - decoder.lead)
            field = receptive_field(Mean(decoder), z, (under,))
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
                close_to(self._arriving(decoder, pieces, stride), Mean(decoder)(z))
        decoder, z = decoder.float(), z.float()
        for pieces in list(cuttings(z, 1))[-1:]:
            close_to(self._arriving(decoder, pieces, stride), Mean(decoder)(z))

    @torch.no_grad()
    def test_any_cutting_gives_the_whole(self) -> None:
        """Twenty random ones, in either precision."""
        with in_float64():
            decoder, z, stride = self._in_context(2)
            whole = Mean(decoder)(z)
            for seed in range(CUTTINGS):
                close_to(self._arriving(decoder, cutting(z, seed), stride), whole)
        decoder, z = decoder.float(), z.float()
        whole = Mean(decoder)(z)
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
        windows, mean, lead = through(Windows(1, None, before, after), pieces), Mean(decoder), decoder.lead
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


class Mean(nn.Module):
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
