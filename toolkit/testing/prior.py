"""The laws of priors, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.build import fit_prior
from toolkit.causal.context import Context
from toolkit.causal.network import Trunk
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.spec import CodeSpec, Condition
from toolkit.testing.causal import check_prefill
from toolkit.testing.counting import every, goodness_of_fit, histogram
from toolkit.testing.laws import PartLaws, as_assertion
from toolkit.testing.on_gpu import check_on_gpu, on_gpu
from toolkit.testing.parts import random_texts
from toolkit.testing.tape import Tape

CODES = CodeSpec((2, 2), (3, 2))
CODE_SPECS = (
    CodeSpec((4,), (3,)),
    CodeSpec((3,), (2, 4)),
    CodeSpec((2, 3), (3,)),
    CODES,
    CodeSpec((2, 2, 2), (2,)),
    CodeSpec((2, 1, 2), (3, 2)),
    CodeSpec((5,), (2,), ((1, 1), (2, 2))),
)
KIND = Condition("kind", 3)
CONDITIONS = (KIND, Condition("move", 2, per_step=True), Condition("force", 2, per_step=True, real=True))

LABELS = (KIND,)
TEXTS = (KIND, Condition("caption", 6, text=True))
TOLD = (
    "the prior was given a label for each example (n,), one for each step (n, steps) and a real vector for each step"
    " (n, steps, size), where a step is a position of the grid's first axis: toolkit.nn.conditioning embeds all three."
    " A prior that takes labels alone says so in its test: conditions = LABELS, of toolkit.testing.prior"
)
"""Where a prior fails with conditions."""

each_code_spec = pytest.mark.parametrize(
    "code_spec", CODE_SPECS, ids=lambda code_spec: f"{code_spec.grid}x{code_spec.depth}"
)


class PriorSuite(PartLaws):
    """Subclass it as ``class TestMyPrior(PriorSuite)`` and build a small one in ``make``.

    The laws hold at any weights, so they are checked at random ones, in float64 and eval mode. The laws about
    probabilities are skipped where ``log_prob`` raises NotImplementedError. A prior that works only on grids of certain
    ranks names them in ``ranks``, and one that takes labels alone, and neither values per step nor real ones, has
    ``conditions = LABELS``. One that has a conditioner has a second class, with ``conditions = TEXTS``.
    """

    ranks: tuple[int, ...] = (1, 2, 3)
    conditions: tuple[Condition, ...] = CONDITIONS
    """What it is given, together: a label for each example, one for each step, and a real vector for each step, where a
    step is a position of the grid's first axis. ``toolkit.testing.prior.LABELS`` is the first alone, and ``TEXTS`` is
    that and a text."""

    @abstractmethod
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        """A prior with few parameters."""

    def prior(self, code_spec: CodeSpec, conditions: tuple[Condition, ...] = ()) -> Prior:
        """The prior to check, at random weights, the same at every call."""
        if len(code_spec.grid) not in self.ranks:
            pytest.skip(f"works on grids of ranks {self.ranks}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            prior = self.make(code_spec, conditions).double().eval()
            with torch.no_grad():
                for parameter in prior.parameters():
                    parameter.add_(0.3 * torch.randn_like(parameter))
        return prior

    def _given(self, n: int, kind: int | None = None) -> dict[str, Tensor]:
        """Values of n examples for those conditions that it takes; the same for all where the kind is given."""
        names = {condition.name for condition in self.conditions}
        return {name: value for name, value in _conditions(n, kind).items() if name in names}

    @property
    def _of_any_grid(self) -> tuple[Condition, ...]:
        """Those that have no value per step."""
        return tuple(condition for condition in self.conditions if not condition.per_step)

    def _given_on_any_grid(self, kinds: Tensor) -> dict[str, Tensor]:
        """Values for them, of which those of the kind are given."""
        return {
            KIND.name: kinds,
            **{c.name: self._given(len(kinds))[c.name] for c in self._of_any_grid if c.name != KIND.name},
        }

    def part(self) -> Prior:
        return self.prior(self._code_spec())

    def outcome(self, part: Prior) -> tuple[Tensor, ...]:
        loss = part(_some_codes(self._code_spec(), 4), {}).detach()
        return loss, part.sample(4, {}, generator=_generator())

    def _code_spec(self) -> CodeSpec:
        return next(code_spec for code_spec in CODE_SPECS if len(code_spec.grid) in self.ranks)

    def test_its_results_fit_a_model(self) -> None:
        """What ``toolkit check`` asks of shapes and types."""
        code_spec = self._code_spec()
        with as_assertion():
            fit_prior(self.prior(code_spec).float(), code_spec)

    @each_code_spec
    def test_probabilities_of_all_code_maps_sum_to_one(self, code_spec: CodeSpec) -> None:
        nats = _log_prob(self.prior(code_spec), every(code_spec))
        torch.testing.assert_close(nats.exp().sum().item(), 1.0, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("kind", [0, 1, KIND.size, None])
    def test_probabilities_sum_to_one_under_any_condition(self, kind: int | None) -> None:
        codes = every(CODES)
        conditions = {} if kind is None else self._given(len(codes), kind)
        nats = _log_prob(self.prior(CODES, self.conditions), codes, conditions)
        torch.testing.assert_close(nats.exp().sum().item(), 1.0, atol=1e-6, rtol=0)

    @each_code_spec
    def test_an_example_in_padding_costs_what_it_does_alone(self, code_spec: CodeSpec) -> None:
        prior, codes = self.prior(code_spec), _some_codes(code_spec, 3)
        if not prior.takes_padding:
            pytest.skip("does not take padding")
        with torch.no_grad():
            nats = prior.nats_by_position(codes, {})
            assert nats.shape == codes.shape
            torch.testing.assert_close(nats.flatten(1).sum(1), -prior.log_prob(codes, {}))
            torch.testing.assert_close(prior.loss_by_position(codes, {}).flatten(1).sum(1), prior.loss(codes, {}))
            for positions in range(1, code_spec.grid[0]):
                alone = prior.nats_by_position(codes[:, :, :positions], {})
                torch.testing.assert_close(nats[:, :, :positions], alone)

    def test_examples_do_not_influence_one_another(self) -> None:
        prior, codes = self.prior(CODES, self.conditions), _some_codes(CODES, 5)
        conditions = self._given(5)
        together = _log_prob(prior, codes, conditions)
        assert together.shape == (5,)
        alone = [_log_prob(prior, codes[i : i + 1], {k: v[i : i + 1] for k, v in conditions.items()}) for i in range(5)]
        torch.testing.assert_close(together, torch.cat(alone))

    def test_probabilities_depend_on_conditions(self) -> None:
        if self.prior(CODES).state_dict().keys() == self.prior(CODES, self.conditions).state_dict().keys():
            pytest.skip("has no parameters for conditions")
        prior, codes, known = self.prior(CODES, self.conditions), _some_codes(CODES, 1), self._given(1)
        for condition in self.conditions:
            other = {**known, condition.name: known[condition.name] + (1 if not condition.real else 0.5)}
            nats = [_log_prob(prior, codes, conditions) for conditions in (known, other)]
            assert (nats[0] - nats[1]).abs() > 1e-9, f"{condition.name} has no effect"

    def test_a_missing_condition_means_none(self) -> None:
        prior, codes = self.prior(CODES, (KIND,)), _some_codes(CODES, 5)
        none = torch.full((5,), KIND.size)
        torch.testing.assert_close(_log_prob(prior, codes), _log_prob(prior, codes, {KIND.name: none}))

    def test_its_blocks_are_called_in_order(self) -> None:
        """Each once in a pass of the loss: sharding gathers a block's weights when it is called."""
        code_spec, called = self._code_spec(), list[torch.nn.Module]()
        prior = self.prior(code_spec).train()
        blocks = list(prior.blocks_in_order())
        for block in blocks:
            block.register_forward_hook(lambda module, *_: called.append(module))
        prior.loss(_some_codes(code_spec, 2), {})
        assert called == blocks, (
            f"blocks_in_order gives {len(blocks)} blocks, a pass calls {len(called)} of them, or in other order"
        )

    @each_code_spec
    def test_the_loss_is_finite_and_reaches_every_parameter(self, code_spec: CodeSpec) -> None:
        prior = self.prior(code_spec, self._of_any_grid).train()
        loss = prior(_some_codes(code_spec, 16), self._given_on_any_grid(torch.arange(16) % (KIND.size + 1)))
        assert loss.shape == (16,)
        assert loss.isfinite().all()
        parameters = [parameter for parameter in prior.parameters() if parameter.requires_grad]
        if parameters:
            loss.mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)

    def test_log_prob_is_precise_under_autocast(self) -> None:
        prior, codes = self.prior(CODES).float(), _some_codes(CODES, 5)
        with torch.autocast("cpu", torch.bfloat16):
            assert _log_prob(prior, codes).dtype == torch.float32

    def test_the_state_dict_is_the_whole_prior(self) -> None:
        prior, codes = self.prior(CODES, self.conditions), _some_codes(CODES, 5)
        other = self.make(CODES, self.conditions).double().eval()
        other.load_state_dict(prior.state_dict())
        conditions = self._given(5)
        torch.testing.assert_close(_log_prob(other, codes, conditions), _log_prob(prior, codes, conditions))

    def test_it_computes_on_a_gpu(self) -> None:
        """Forward, backward and state lie there, and no step of training waits for it; on a stand-in for a GPU."""
        code_spec = self._code_spec()
        prior, known = self.prior(code_spec, self._of_any_grid), self._given_on_any_grid(torch.arange(4) % KIND.size)

        def forward(prior: Prior, codes: Tensor, known: dict[str, Tensor]) -> tuple[Tensor, ...]:
            return (prior.loss(codes, known),)

        check_on_gpu(prior, forward, _some_codes(code_spec, 4), known)

    def test_a_seed_decides_the_codes_on_a_gpu_too(self) -> None:
        """Up to rounding, of which a stand-in for a GPU has none; the steps of sampling are captured and replayed."""
        code_spec = self._code_spec()
        conditions = tuple(condition for condition in self._of_any_grid if condition.text)
        known = {condition.name: self._given(4)[condition.name] for condition in conditions}
        expected = self.prior(code_spec, conditions).sample(4, known, generator=_generator())
        with on_gpu():
            known = {name: value.to("cuda") for name, value in known.items()}
            codes = self.prior(code_spec, conditions).to("cuda").sample(4, known, generator=_generator())
            assert codes.is_cuda, "samples lie on the CPU"
            assert torch.equal(codes.cpu(), expected)

    @each_code_spec
    def test_samples_are_codes(self, code_spec: CodeSpec) -> None:
        codes = self.prior(code_spec).sample(200, {}, generator=_generator())
        assert codes.shape == (200, *code_spec.shape)
        assert codes.dtype == torch.int64
        for depth, size in enumerate(code_spec.codebook_sizes):
            assert set(codes[:, depth].unique().tolist()) <= set(range(size))

    @each_code_spec
    def test_samples_fit_log_prob(self, code_spec: CodeSpec) -> None:
        prior, n = self.prior(code_spec), 20_000
        outcomes = every(code_spec)
        expected = _log_prob(prior, outcomes).exp() * n
        codes = prior.sample(n, {}, generator=_generator())
        assert goodness_of_fit(histogram(codes, outcomes), expected) > 1e-4

    def test_samples_fit_log_prob_under_a_condition(self) -> None:
        prior, n = self.prior(CODES, self.conditions), 20_000
        outcomes = every(CODES)
        expected = _log_prob(prior, outcomes, self._given(len(outcomes), 1)).exp() * n
        codes = _sample(prior, n, self._given(n, 1), generator=_generator())
        assert goodness_of_fit(histogram(codes, outcomes), expected) > 1e-4

    def test_samples_after_a_prefix_fit_log_prob_given_the_prefix(self) -> None:
        prior, n = self.prior(CODES), 20_000
        outcomes = every(CODES)
        first = torch.tensor([2, 1])
        matches = (outcomes[:, :, 0, 0] == first).all(1)
        likelihood = torch.where(matches, _log_prob(prior, outcomes).exp(), 0)
        codes = prior.sample(n, {}, prefix=first.expand(n, 2)[:, :, None], generator=_generator())
        expected = n * likelihood / likelihood.sum()
        assert goodness_of_fit(histogram(codes, outcomes), expected) > 1e-4

    @pytest.mark.parametrize("positions", range(5))
    def test_the_prefix_is_kept(self, positions: int) -> None:
        prefix = _some_codes(CODES, 8).flatten(2)[:, :, :positions]
        codes = self.prior(CODES).sample(8, {}, prefix=prefix, generator=_generator())
        assert torch.equal(codes.flatten(2)[:, :, :positions], prefix)

    @each_code_spec
    def test_a_prefix_in_one_pass_equals_its_positions_one_by_one(self, code_spec: CodeSpec) -> None:
        prior = self.prior(code_spec, self._of_any_grid)
        trunks = [module for module in prior.modules() if isinstance(module, Trunk)]
        if not trunks:
            pytest.skip("has no causal trunk")
        for trunk in trunks:
            started: list[tuple[int, tuple[int, ...], Context | None]] = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(trunk), "init", _recorded(trunk, started))
                prior.sample(3, self._given_on_any_grid(torch.arange(3)), generator=_generator())
            for batch, grid, context in started[-1:]:
                check_prefill(trunk, batch, grid, context)

    def test_a_seed_decides_the_codes(self) -> None:
        prior = self.prior(CODES, self.conditions)
        codes = [_sample(prior, 32, self._given(32), generator=_generator(seed)) for seed in (1, 1, 2)]
        assert torch.equal(codes[0], codes[1])
        assert not torch.equal(codes[0], codes[2])

    @each_code_spec
    def test_entropy_coding_gives_the_codes_back_and_costs_their_log_prob(self, code_spec: CodeSpec) -> None:
        prior, codes, tape = self.prior(code_spec), _some_codes(code_spec, 3), Tape()
        _entropy_code(prior, tape, codes)
        torch.testing.assert_close(tape.nats(), -_log_prob(prior, codes).double(), atol=1e-3, rtol=1e-3)
        back = _entropy_code(prior, tape.rewound(), None)
        assert torch.equal(back, codes.flatten(2))

    def test_codes_after_a_prefix_cost_what_they_do_among_all(self) -> None:
        prior, codes = self.prior(CODES, self.conditions), _some_codes(CODES, 3)
        whole, first, rest = Tape(), Tape(), Tape()
        _entropy_code(prior, whole, codes, conditions=self._given(3))
        _entropy_code(prior, first, codes, conditions=self._given(3), positions=1)
        prefix = codes.flatten(2)[:, :, :1]
        assert torch.equal(
            _entropy_code(prior, rest, codes, conditions=self._given(3), prefix=prefix), codes.flatten(2)
        )
        torch.testing.assert_close(first.nats() + rest.nats(), whole.nats(), atol=1e-6, rtol=1e-6)

    def test_guidance_of_one_changes_nothing(self) -> None:
        prior = self.prior(CODES, self.conditions)
        plain = _sample(prior, 32, self._given(32), generator=_generator())
        guided = _sample(prior, 32, self._given(32), SamplingOptions(guidance=1.0), generator=_generator())
        assert torch.equal(guided, plain)

    def test_progress_ends_at_the_number_of_positions(self) -> None:
        done: list[int] = []
        self.prior(CODES).sample(2, {}, progress=done.append)
        assert done == sorted(done)
        assert done[-1] == prod(CODES.grid)


def _recorded(of: Trunk, started: list[tuple[int, tuple[int, ...], Context | None]]) -> Callable[..., Any]:
    """The ``init`` of a trunk's class, which keeps what that one was called with."""
    init = type(of).init

    def recorded(trunk: Trunk, batch: int, grid: Sequence[int], context: Context | None = None) -> Any:
        if trunk is of:
            started.append((batch, tuple(grid), context))
        return init(trunk, batch, grid, context)

    return recorded


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _log_prob(prior: Prior, codes: Tensor, conditions: dict[str, Tensor] | None = None) -> Tensor:
    try:
        with torch.no_grad():
            return prior.log_prob(codes, conditions or {})
    except NotImplementedError:
        pytest.skip("log_prob is not tractable")
    except Exception as error:
        if conditions and len(conditions) == len(CONDITIONS):
            raise AssertionError(f"{type(prior).__name__}: {type(error).__name__}: {error}\n{TOLD}") from error
        raise


def _sample(
    prior: Prior, n: int, conditions: dict[str, Tensor], options: SamplingOptions = PLAIN, *, generator: torch.Generator
) -> Tensor:
    try:
        return prior.sample(n, conditions, options, generator=generator)
    except Exception as error:
        if conditions and len(conditions) == len(CONDITIONS):
            raise AssertionError(f"{type(prior).__name__}: {type(error).__name__}: {error}\n{TOLD}") from error
        raise


def _entropy_code(
    prior: Prior,
    tape: Tape,
    codes: Tensor | None,
    *,
    conditions: dict[str, Tensor] | None = None,
    positions: int | None = None,
    prefix: Tensor | None = None,
) -> Tensor:
    """Of three examples."""
    given = None if codes is None else codes.flatten(2)[:, :, :positions]
    try:
        return prior.entropy_code(tape, 3, conditions or {}, given, positions=positions, prefix=prefix)
    except NotImplementedError:
        pytest.skip("it gives no probabilities code by code")


def _conditions(n: int, kind: int | None = None) -> dict[str, Tensor]:
    """Conditions of n examples, on the grid of CODES; the same for all where the kind is given."""
    generator, steps = _generator(), CODES.grid[0]
    if kind is not None:
        one = _conditions(1)
        return {name: value.expand(n, *value.shape[1:]) for name, value in one.items()} | {
            KIND.name: torch.full((n,), kind)
        }
    return {
        KIND.name: torch.arange(n) % KIND.size,
        "move": torch.randint(2, (n, steps), generator=generator),
        "force": torch.randn(n, steps, 2, generator=generator, dtype=torch.float64),
        "caption": random_texts(TEXTS[1], n, generator),
    }


def _some_codes(code_spec: CodeSpec, n: int) -> Tensor:
    parts = [
        torch.randint(size, (n, *code_spec.grid), generator=_generator(d))
        for d, size in enumerate(code_spec.codebook_sizes)
    ]
    return torch.stack(parts, 1)
