"""The laws of quantizers, as tests that a plugin's tests inherit."""

from __future__ import annotations

from functools import partial
from math import log

import pytest
import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.errors import ToolkitError
from toolkit.fit import label
from toolkit.quantizer import Quantized, Quantizer
from toolkit.spec import DataSpec
from toolkit.testing.exporting import EXPORTED_AT, RUN_AT, exported, exports
from toolkit.testing.laws import as_assertion, assert_same
from toolkit.testing.on_gpu import check_on_gpu
from toolkit.testing.parts import PointDecoder, PointEncoder, plain_likelihood
from toolkit.testing.posterior import PosteriorLaws, assert_codes, code_spec_of
from toolkit.testing.ranks import as_ranks

GRIDS = ((1,), (7,), (3, 4), (2, 3, 2))

each_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


class QuantizerSuite(PosteriorLaws):
    """Subclass it as ``class TestMyQuantizer(QuantizerSuite)`` and build a small one in ``make``.

    It is checked after a forward pass in training mode, so that entries are initialized from the data.
    """

    @each_grid
    def test_the_output_has_the_declared_shape(self, grid: tuple[int, ...]) -> None:
        quantizer = self.quantizer()
        assert len(quantizer.codebook_sizes) == quantizer.depth
        z = self.latents(quantizer, self._once(grid))
        quantized = quantizer(z)
        assert quantized.z.shape == (5, quantizer.dim, *z.shape[2:])
        assert quantized.codes.shape == (5, *code_spec_of(quantizer, z).shape), "codes are not on the code_grid"
        assert quantized.codes.dtype == torch.int64
        for per_example in (quantized.loss, quantized.kl):
            assert per_example.shape == (5,)
            assert per_example.isfinite().all()
        assert all(value.dim() == 0 for value in quantized.metrics.values())
        assert_codes(quantized.codes, quantizer)

    def test_its_results_fit_a_model(self) -> None:
        """What ``toolkit check`` asks of shapes and types, of codes embedded, too."""
        quantizer = self.quantizer().float()
        label(quantizer, "quantizer=this")
        data = DataSpec(2, tuple(self.latents(quantizer, (3, 4)).shape[2:]), levels=3)
        decoder = PointDecoder(quantizer.dim, plain_likelihood(data))
        with as_assertion():
            Autoencoder(data, PointEncoder(data, quantizer.channels), quantizer, decoder)

    def test_it_computes_on_a_gpu(self) -> None:
        """Forward, backward and state lie there, and no step of training waits for it; on a stand-in for a GPU."""
        quantizer = self.quantizer().float()

        def forward(quantizer: Quantizer, z: Tensor) -> tuple[Tensor, ...]:
            quantized = quantizer(z)
            embedded = quantizer.embed(quantized.codes) if quantizer.depth else quantized.z
            return (*quantized[:4], *quantized.metrics.values(), embedded)

        check_on_gpu(quantizer, forward, self.latents(quantizer, (3, 4)).requires_grad_())

    @each_grid
    def test_embedding_the_codes_gives_the_latents(self, grid: tuple[int, ...]) -> None:
        quantizer = self.quantizer()
        quantized = quantizer(self.latents(quantizer, self._once(grid)))
        if not quantizer.depth:
            with pytest.raises(ToolkitError, match="no codes"):
                quantizer.embed(quantized.codes)
            return
        torch.testing.assert_close(quantizer.embed(quantized.codes), quantized.z)

    @pytest.mark.parametrize("training", [False, True])
    def test_one_example_is_a_batch(self, training: bool) -> None:
        quantizer = self.quantizer().train(training)
        z = self.latents(quantizer, (3, 4))[:1]
        quantized = quantizer(z)
        assert quantized.codes.shape == (1, *code_spec_of(quantizer, z).shape)
        assert quantized.z.isfinite().all()
        assert (quantized.loss + quantized.kl).isfinite().all()

    @pytest.mark.parametrize("training", [False, True])
    def test_double_precision_stays_double(self, training: bool) -> None:
        quantizer = self.quantizer().train(training)
        quantized = quantizer(self.latents(quantizer, (3, 4)))
        assert quantized.z.dtype == quantized.loss.dtype == quantized.kl.dtype == torch.float64

    @pytest.mark.parametrize("training", [False, True])
    def test_invalid_latents_are_rejected_by_name(self, training: bool) -> None:
        quantizer = self.quantizer().train(training)
        label(quantizer, "quantizer=this")
        z = self.latents(quantizer, (3, 4))
        nan, infinite = z.clone(), z.clone()
        nan.view(-1)[0], infinite.view(-1)[-1] = float("nan"), float("inf")
        for wrong in (torch.cat([z, z], 1), z[:, :, :0], z[:0], z.flatten(2)[:, :, 0], nan, infinite):
            with pytest.raises(ToolkitError, match="quantizer=this: latents"):
                quantizer(wrong)

    def test_the_first_depths_can_be_embedded_alone(self) -> None:
        quantizer = self.quantizer()
        z = self.latents(quantizer, (3, 4))
        codes = quantizer(z).codes
        for depth in range(1, quantizer.depth + 1):
            embedded = quantizer.embed(codes[:, :depth])
            assert embedded.shape == (5, quantizer.dim, *z.shape[2:])
            assert embedded.isfinite().all()

    def test_codes_of_a_local_quantizer_are_on_the_latents_grid(self) -> None:
        quantizer = self.quantizer()
        if not quantizer.local:
            pytest.skip("it is not local")
        for grid in (self.grid,) if self.grid else GRIDS:
            assert quantizer.code_grid(grid) == grid, "codes on another grid: set local = False"

    def test_positions_do_not_influence_one_another(self) -> None:
        quantizer = self.quantizer()
        if not quantizer.local:
            pytest.skip("it is not local")
        z = self.latents(quantizer, (12,))
        order = torch.randperm(z[0, 0].numel(), generator=torch.Generator().manual_seed(0))
        plain, shuffled = quantizer(z), quantizer(_reordered(z, order))
        assert torch.equal(shuffled.codes, _reordered(plain.codes, order))
        torch.testing.assert_close(shuffled.z, _reordered(plain.z, order))
        torch.testing.assert_close(shuffled.loss, plain.loss)

    def test_examples_do_not_influence_one_another(self) -> None:
        quantizer = self.quantizer()
        z = self.latents(quantizer, (3, 4))
        together, alone = quantizer(z), [quantizer(one) for one in z.split(1)]
        for name in ("z", "codes", "loss", "kl"):
            torch.testing.assert_close(getattr(together, name), torch.cat([getattr(one, name) for one in alone]))

    def test_eval_changes_no_state(self) -> None:
        quantizer = self.quantizer()
        before = _state(quantizer)
        with torch.no_grad():
            quantizer(10 * self.latents(quantizer, (3, 4)))
        _assert_same_state(quantizer, before)

    def test_the_decoders_gradient_reaches_every_channel(self) -> None:
        quantizer = self.quantizer()
        z = self.latents(quantizer, (3, 4)).requires_grad_()
        quantizer.train()(z).z.square().sum().backward()
        assert z.grad is not None
        assert z.grad.isfinite().all()
        assert (z.grad.movedim(1, 0).flatten(1).abs().amax(1) > 0).all()

    def test_training_reaches_every_depth(self) -> None:
        quantizer = self.quantizer()
        if not self.learns:
            pytest.skip("its codebooks are fixed")
        before = [self._table(quantizer, depth) for depth in range(quantizer.depth)]
        quantized = quantizer.train()(self.latents(quantizer, (3, 4), seed=1).requires_grad_())
        (quantized.loss.sum() + quantized.kl.sum() + quantized.z.square().sum()).backward()
        with torch.no_grad():
            for parameter in quantizer.parameters():
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=0.1)
        for depth, table in enumerate(before):
            assert not torch.allclose(self._table(quantizer, depth), table), f"depth {depth} does not learn"

    def test_the_kl_is_between_zero_and_the_rate(self) -> None:
        quantizer = self.quantizer()
        z = self.latents(quantizer, (3, 4))
        kl, rate = quantizer(z).kl, code_spec_of(quantizer, z).rate * log(2)
        assert (kl >= 0).all()
        assert quantizer.depth == 0 or (kl <= rate + 1e-6).all()

    def test_two_ranks_keep_the_same_statistics_as_one(self) -> None:
        """State that is not learned by gradient, such as moving averages, is over all ranks' latents, on every rank."""
        one, seen = self.quantizer(), self.latents(self.quantizer(), (4, 4))[:4]
        statistics = _state(one).keys() - dict(one.named_parameters()).keys()
        expected = _after(one.train(), seen)
        halves = [partial(_after, self.quantizer().train(), half) for half in seen.split(2)]
        first, second = as_ranks(halves)
        for name in statistics:
            assert_same(first[name], second[name], f"{name} of one rank and of another")
            if self._deterministic(seen):
                torch.testing.assert_close(first[name], expected[name])

    def _once(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The grid of a law that is checked on several: skips all but the first where the quantizer takes one only."""
        if self.grid and grid != GRIDS[0]:
            pytest.skip(f"it takes latents on {self.grid} only")
        return grid

    def _table(self, quantizer: Quantizer, depth: int) -> Tensor:
        """The latents of one depth's codes, those of other depths being 0; relative to its first code.

        A code that stands at every position where it has no latents alone.
        """
        size = quantizer.codebook_sizes[depth]
        grid = (1,) if quantizer.local else code_spec_of(quantizer, self.latents(quantizer, (1,))).grid
        codes = torch.zeros(size, quantizer.depth, *grid, dtype=torch.int64)
        codes[:, depth] = torch.arange(size).view(-1, *[1] * len(grid))
        z = quantizer.embed(codes).detach().clone()
        return z - z[:1]

    def _deterministic(self, z: Tensor) -> bool:
        """Whether training is deterministic, so that ranks can be compared with one process."""
        states = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                states.append(_after(self.quantizer().train(), z))
        return all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    @pytest.mark.parametrize("training", [False, True])
    def test_half_precision_does_not_change_the_codes(self, training: bool) -> None:
        quantizer = self.quantizer().float()
        z, state = self.latents(quantizer, (3, 4)).bfloat16(), _state(quantizer)
        quantized = []
        for x in (z, z.float()):
            quantizer.load_state_dict(state)
            torch.manual_seed(0)
            with torch.autocast("cpu", torch.bfloat16):
                quantized.append(quantizer.train(training)(x))
        assert torch.equal(quantized[0].codes, quantized[1].codes)
        assert quantized[0].loss.dtype == quantized[0].kl.dtype == torch.float32
        assert (quantized[0].loss + quantized[0].kl).isfinite().all()
        assert {t.dtype for t in quantizer.state_dict().values() if t.is_floating_point()} <= {torch.float32}

    @pytest.mark.filterwarnings("ignore:Guards may run slower")  # what torch says of Python 3.13.0
    @pytest.mark.parametrize("training", [False, True])
    def test_it_compiles_whole(self, training: bool) -> None:
        plain, compiled = self.quantizer().train(training), self.quantizer().train(training)
        torch._dynamo.reset()
        whole = torch.compile(compiled, fullgraph=True, backend="aot_eager")
        for seed in range(2):
            z = self.latents(plain, (3, 4), seed)
            quantized = []
            for forward in (plain, whole):
                torch.manual_seed(seed)
                with torch.set_grad_enabled(training):  # a graph of the backward pass takes as long again
                    quantized.append(forward(z))
            _assert_same(*quantized)
        _assert_same_state(compiled, _state(plain))

    @exports
    def test_it_exports(self, strict: bool) -> None:
        """As a graph of any number of examples and, where it is local, on any grid."""
        quantizer = self.quantizer()
        free = quantizer.local and not self.grid
        z, larger = self.latents(quantizer, (3, 4)), self.latents(quantizer, (5, 7) if free else (3, 4))
        graph = exported(quantizer, (z[:EXPORTED_AT],), strict, {2: 1, 3: 1} if free else None)
        for n, latents in zip(RUN_AT, (z, larger), strict=True):
            _assert_same(graph(latents[:n]), quantizer(latents[:n]))

    def test_the_state_dict_is_the_whole_quantizer(self) -> None:
        quantizer, other = self.quantizer(), self.make(self.dim).double().eval()
        other.load_state_dict(quantizer.state_dict())
        z = self.latents(quantizer, (3, 4))
        _assert_same(other(z), quantizer(z))
        for one in (quantizer, other):
            torch.manual_seed(0)
            one.train()(z)
        _assert_same_state(other, _state(quantizer))


def _reordered(t: Tensor, order: Tensor) -> Tensor:
    """``(batch, channels, *grid)`` with its positions in another order."""
    return t.flatten(2)[:, :, order].view_as(t)


def _after(quantizer: Quantizer, z: Tensor) -> dict[str, Tensor]:
    """The quantizer's state after a forward pass, and the codes."""
    codes = quantizer(z).codes
    return {**_state(quantizer), "codes": codes}


def _state(quantizer: Quantizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


def _assert_same_state(quantizer: Quantizer, expected: dict[str, Tensor]) -> None:
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, expected[name]), f"{name} differs"


def _assert_same(quantized: Quantized, expected: Quantized) -> None:
    assert torch.equal(quantized.codes, expected.codes)
    for name in ("z", "loss", "kl"):
        torch.testing.assert_close(getattr(quantized, name), getattr(expected, name))
