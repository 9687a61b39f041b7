"""The laws of encoders, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from toolkit.encoder import Encoder
from toolkit.lengths.mask import mask_of
from toolkit.lengths.padded import Ends, looks_ahead
from toolkit.nn.receptive_field import receptive_field
from toolkit.pieces import Windows, through
from toolkit.spec import DataSpec
from toolkit.testing.context import CUTTINGS, ROOM, close_to, cutting, cuttings, in_float64, randomized
from toolkit.testing.exporting import EXPORTED_AT, RUN_AT, exported, exports
from toolkit.testing.laws import PartLaws
from toolkit.testing.on_gpu import check_on_gpu
from toolkit.testing.parts import random_data


class EncoderSuite(PartLaws):
    """Subclass it as ``class TestMyEncoder(EncoderSuite)``, set the data, and build a small one in ``make``.

    Where a stride is declared, the axes must be long enough that the middle of the grid sees no border.
    """

    data: ClassVar[DataSpec]
    """Argument of ``make``; of the encoder's rank."""
    dim: ClassVar[int] = 6
    """Channels of the latents."""

    @abstractmethod
    def make(self, data: DataSpec, dim: int) -> Encoder:
        """An encoder with few parameters."""

    def encoder(self, data: DataSpec | None = None) -> Encoder:
        """The encoder to check, in eval mode, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make(data or self.data, self.dim).eval()

    def part(self) -> Encoder:
        return self.encoder()

    def outcome(self, part: Encoder) -> tuple[Tensor, ...]:
        return (_latents(part, random_data(self.data, 2)),)

    def test_latents_have_dim_channels_and_the_rank_of_the_data(self) -> None:
        z = self.encoder()(random_data(self.data, 3))
        assert z.shape[:2] == (3, self.dim)
        assert z.dim() == 2 + self.data.rank
        assert z.isfinite().all()

    def test_its_rank_is_that_of_the_data(self) -> None:
        assert self.encoder().rank in (None, self.data.rank)

    def test_the_stride_divides_the_axes(self) -> None:
        encoder = self.encoder()
        if encoder.stride is None:
            pytest.skip("declares no stride")
        grid = encoder(random_data(self.data, 1)).shape[2:]
        covered = (self.data.axes[0] + encoder.lead, *self.data.axes[1:])
        for length, stride, positions in zip(covered, encoder.stride, grid, strict=True):
            assert stride is None or positions == length // stride

    def test_shifting_the_data_by_a_stride_shifts_the_latents_by_one(self) -> None:
        encoder = self.encoder()
        if encoder.stride is None:
            pytest.skip("declares no stride")
        for axis, stride in enumerate(encoder.stride):
            if stride is None:
                continue
            x = random_data(self.data, 1)
            z, moved = _latents(encoder, x), _latents(encoder, x.roll(stride, 2 + axis))
            inner = self._sees_no_border(encoder, x, z, axis, stride)
            torch.testing.assert_close(
                moved.index_select(2 + axis, inner + 1), z.index_select(2 + axis, inner), atol=1e-4, rtol=1e-4
            )

    def test_a_prefix_in_gives_the_prefix_out(self) -> None:
        encoder = self.encoder()
        if not encoder.causal:
            pytest.skip("is not declared causal")
        x = random_data(self.data, 2)
        z = _latents(encoder, x)
        stride = (self.data.axes[0] + encoder.lead) // z.shape[2]
        for length in range(1, z.shape[2]):
            prefix = _latents(encoder, x[:, :, : length * stride - encoder.lead])
            torch.testing.assert_close(prefix[:, :, :length], z[:, :, :length], atol=1e-4, rtol=1e-4)

    def test_the_context_is_the_receptive_field(self) -> None:
        """Of the first axis, away from its borders."""
        if not self.data.ordered:
            pytest.skip("its data has no gradient")
        with in_float64():
            encoder, x, stride, (lead, _) = self._in_context(8)
            field = receptive_field(encoder, x, (lead + 1,))
        assert field is not None, "z depends on nothing"
        own, read = range((lead + 1) * stride, (lead + 2) * stride), field[0]
        measured = max(0, own.start - read.start), max(0, read.stop - own.stop)
        assert measured == encoder.context, f"declares a context of {encoder.context}, but it is {measured}"

    @torch.no_grad()
    def test_chunks_with_context_give_the_whole(self) -> None:
        """However the data is cut: encoded as it arrives, up to rounding, and with the same codes."""
        with in_float64():
            encoder, x, stride, _ = self._in_context(2)
            whole = encoder(x)
            for pieces in cuttings(x, stride):
                z = self._arriving(encoder, pieces, stride)
                close_to(z, whole)
                assert torch.equal(_codes(z), _codes(whole))
        encoder, x = encoder.float(), x.float() if x.is_floating_point() else x
        for pieces in list(cuttings(x, stride))[-1:]:
            close_to(self._arriving(encoder, pieces, stride), encoder(x))

    @torch.no_grad()
    def test_any_cutting_gives_the_whole(self) -> None:
        """Twenty random ones, in either precision, and with the same codes."""
        with in_float64():
            encoder, x, stride, _ = self._in_context(2)
            whole = encoder(x)
            for seed in range(CUTTINGS):
                z = self._arriving(encoder, cutting(x, seed), stride)
                close_to(z, whole)
                assert torch.equal(_codes(z), _codes(whole))
        encoder, x = encoder.float(), x.float() if x.is_floating_point() else x
        whole = encoder(x)
        for seed in range(CUTTINGS):
            close_to(self._arriving(encoder, cutting(x, seed), stride), whole)

    @torch.no_grad()
    def test_a_stream_gives_the_whole(self) -> None:
        """However the data is cut, and whatever streams are beside: what an encoder gives that keeps a state."""
        if self.encoder().stream() is None:
            pytest.skip("has no stream")
        with in_float64():
            encoder, x, stride, _ = self._in_context(2)
            assert encoder.context is not None
            assert encoder.context[1] == 0, "has a stream, but its context is not all before"
            whole = encoder(x)
            for pieces in cuttings(x, stride):
                z = self._streamed(encoder, pieces, stride)
                close_to(z, whole)
                assert torch.equal(_codes(z), _codes(whole))
            close_to(self._streamed(encoder, [x[1:]], stride), whole[1:])
        encoder, x = encoder.float(), x.float() if x.is_floating_point() else x
        close_to(self._streamed(encoder, cutting(x, 0), stride), encoder(x))

    def test_examples_do_not_influence_one_another(self) -> None:
        encoder, x = self.encoder(), random_data(self.data, 3)
        alone = [_latents(encoder, one) for one in x.split(1)]
        torch.testing.assert_close(_latents(encoder, x), torch.cat(alone), atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    def test_an_example_in_padding_gives_what_it_does_alone(self) -> None:
        """However long it is, and whatever the padding holds."""
        if looks_ahead(self.encoder()) and not self.encoder().takes_padding:
            pytest.skip("does not take padding")
        with in_float64():
            encoder, x = randomized(self.encoder()), random_data(self.data, 2)
            x = x.double() if x.is_floating_point() else x
            whole = encoder(x)
            stride, rest = divmod(x.shape[2], whole.shape[2])
            if rest or encoder.lead:
                pytest.skip("its first latent has fewer positions than the others")
            for latents in range(1, whole.shape[2], max(1, whole.shape[2] // 3)):
                ends = Ends(mask_of(torch.tensor([latents, whole.shape[2]]) * stride, x.shape[2]), stride)
                with ends.in_zeros(encoder):
                    z = encoder(x)
                close_to(z[:1, :, :latents], encoder(x[:1, :, : latents * stride]))
                close_to(z[1:], whole[1:])

    def test_the_latents_depend_on_the_data(self) -> None:
        z = _latents(self.encoder(), random_data(self.data, 2))
        assert (z[0] - z[1]).abs().max() > 1e-6

    def test_the_gradient_reaches_every_parameter(self) -> None:
        encoder = self.encoder().train()
        if not list(encoder.parameters()):
            pytest.skip("has no parameters")
        encoder(random_data(self.data, 4)).square().mean().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            assert parameter.grad.any(), f"the gradient of {name} is zero"

    def test_eval_changes_no_state(self) -> None:
        encoder, x = self.encoder(), random_data(self.data, 3)
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        assert torch.equal(_latents(encoder, x), _latents(encoder, x))
        assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())

    def test_the_state_dict_is_the_whole_encoder(self) -> None:
        encoder, x = self.encoder(), random_data(self.data, 2)
        other = self.make(self.data, self.dim).eval()
        other.load_state_dict(encoder.state_dict())
        torch.testing.assert_close(_latents(other, x), _latents(encoder, x))

    def test_it_runs_in_half_precision(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            assert _latents(self.encoder(), random_data(self.data, 2)).isfinite().all()

    def test_it_computes_on_a_gpu(self) -> None:
        """Forward, backward and state lie there, and no step of training waits for it; on a stand-in for a GPU."""
        check_on_gpu(self.encoder(), lambda encoder, x: (encoder(x),), random_data(self.data, 2))

    def test_it_runs_on_fake_tensors(self) -> None:
        """Building a model runs it on them, to check that the parts fit."""
        encoder, expected = self.encoder(), self.encoder()(random_data(self.data, 2)).shape
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            dtype = torch.get_default_dtype() if self.data.levels is None else torch.int64
            assert encoder(torch.zeros(2, *self.data.shape, dtype=dtype)).shape == expected

    @exports
    def test_it_exports(self, strict: bool) -> None:
        """As a graph of any number of examples; where a stride is declared, of any length, too."""
        encoder = self.encoder()
        strides = dict(enumerate(encoder.stride or (), 2))
        lengths = dict(enumerate(self.data.axes, 2))
        free = {
            a: stride for a, stride in strides.items() if stride and lengths[a] in range(2 * stride, 1 << 30, stride)
        }
        longer = tuple(length + free.get(axis, 0) for axis, length in enumerate(self.data.axes, 2))
        graph = exported(encoder, (random_data(self.data, EXPORTED_AT),), strict, free)
        for n, axes in zip(RUN_AT, (self.data.axes, longer), strict=True):
            x = random_data(replace(self.data, axes=axes), n, seed=1)
            torch.testing.assert_close(_latents(graph, x), _latents(encoder, x))

    def _in_context(self, n: int) -> tuple[Encoder, Tensor, int, tuple[int, int]]:
        """In float64 an encoder, n examples long enough for its context, its stride, and its context in latents."""
        encoder = self.encoder()
        if encoder.context is None:
            pytest.skip("declares no context")
        stride = encoder.stride[0] if encoder.stride else None
        assert stride is not None, "declares a context, but no stride"
        before, after = encoder.context
        lead, lag = -(-before // stride), -(-after // stride)
        length = stride * (lead + lag + ROOM) - encoder.lead
        data = replace(self.data, axes=(length, *self.data.axes[1:]))
        x = random_data(data, n)
        return randomized(self.encoder(data)), x.double() if data.ordered else x, stride, (lead, lag)

    def _arriving(self, encoder: Encoder, pieces: list[Tensor], stride: int) -> Tensor:
        """Latents of data in pieces, each as soon as its context is there."""
        before, after = encoder.context or (0, 0)
        windows = through(Windows(stride, None, before, after, stride), pieces)
        z = [encoder(w.t)[:, :, w.own.start // stride : -(-w.own.stop // stride)] for w in windows]
        return torch.cat(z, 2)

    def _streamed(self, encoder: Encoder, pieces: list[Tensor], stride: int) -> Tensor:
        """Latents of data in pieces by a stream."""
        stream = encoder.stream()
        assert stream is not None
        return torch.cat([stream(window.t) for window in through(Windows(stride, None), pieces)], 2)

    def _sees_no_border(self, encoder: Encoder, x: Tensor, z: Tensor, axis: int, stride: int) -> Tensor:
        """Positions along an axis of the grid whose latents do not depend on the outermost stride of the data.

        Shifted by a stride, what such a position sees is still inside, and nothing of it comes from the other end.
        """
        other, length = x.clone(), self.data.axes[axis]
        border = torch.tensor([*range(stride), *range(length - stride, length)])
        other.index_copy_(2 + axis, border, random_data(self.data, 1, seed=1).index_select(2 + axis, border))
        same = (_latents(encoder, other) == z).movedim(2 + axis, 0).flatten(1).all(1)
        inner = same[:-1].nonzero().flatten()
        assert len(inner), f"along axis {axis} every position sees a border: give the suite longer axes"
        return inner


@torch.no_grad()
def _latents(encoder: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return encoder(x)


def _codes(z: Tensor) -> Tensor:
    """The nearest of some random directions."""
    entries = torch.randn(16, z.shape[1], generator=torch.Generator().manual_seed(2)).to(z)
    return (z.movedim(1, -1) @ entries.T).argmax(-1)
