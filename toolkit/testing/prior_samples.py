"""The laws of samples from a prior, which the priors' suite inherits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.causal.context import Context
from toolkit.causal.network import Trunk
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.spec import CodeSpec, Condition
from toolkit.testing.causal import check_prefill
from toolkit.testing.counting import every, goodness_of_fit, histogram
from toolkit.testing.laws import PartLaws
from toolkit.testing.on_gpu import on_gpu
from toolkit.testing.prior_cases import (
    CODE_SPECS,
    CODES,
    CONDITIONS,
    KIND,
    PARTS,
    TOLD,
    each_code_spec,
    log_prob,
    seeded,
    some_codes,
    some_values,
)


class SampledPriorLaws(PartLaws):
    """Builds the prior under test; laws of ``sample``."""

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
        return {name: value for name, value in some_values(n, kind).items() if name in names}

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

    def _code_spec(self) -> CodeSpec:
        return next(code_spec for code_spec in CODE_SPECS if len(code_spec.grid) in self.ranks)

    def test_a_seed_decides_the_codes_on_a_gpu_too(self) -> None:
        """Up to rounding, of which a stand-in for a GPU has none; the steps of sampling are captured and replayed."""
        code_spec = self._code_spec()
        conditions = tuple(condition for condition in self._of_any_grid if condition.text)
        known = {condition.name: self._given(4)[condition.name] for condition in conditions}
        expected = self.prior(code_spec, conditions).sample(4, known, generator=seeded())
        with on_gpu():
            known = {name: value.to("cuda") for name, value in known.items()}
            codes = self.prior(code_spec, conditions).to("cuda").sample(4, known, generator=seeded())
            assert codes.is_cuda, "samples lie on the CPU"
            assert torch.equal(codes.cpu(), expected)

    @each_code_spec
    def test_samples_are_codes(self, code_spec: CodeSpec) -> None:
        codes = self.prior(code_spec).sample(200, {}, generator=seeded())
        assert codes.shape == (200, *code_spec.shape)
        assert codes.dtype == torch.int64
        for depth, size in enumerate(code_spec.codebook_sizes):
            assert set(codes[:, depth].unique().tolist()) <= set(range(size))

    @each_code_spec
    def test_samples_fit_log_prob(self, code_spec: CodeSpec) -> None:
        prior, n = self.prior(code_spec), 20_000
        outcomes = every(code_spec)
        expected = log_prob(prior, outcomes).exp() * n
        codes = prior.sample(n, {}, generator=seeded())
        assert goodness_of_fit(histogram(codes, outcomes), expected) > 1e-4

    def test_samples_fit_log_prob_under_a_condition(self) -> None:
        prior, n = self.prior(CODES, self.conditions), 20_000
        outcomes = every(CODES)
        expected = log_prob(prior, outcomes, self._given(len(outcomes), 1)).exp() * n
        codes = _sample(prior, n, self._given(n, 1), generator=seeded())
        assert goodness_of_fit(histogram(codes, outcomes), expected) > 1e-4

    @pytest.mark.parametrize(
        ("code_spec", "positions"),
        [(CODES, 1), (PARTS, 1), (PARTS, 3)],
        ids=["of a grid", "of a whole part", "that ends within a part"],
    )
    def test_samples_after_a_prefix_fit_log_prob_given_the_prefix(self, code_spec: CodeSpec, positions: int) -> None:
        prior, n = self.prior(code_spec), 20_000
        outcomes = every(code_spec)
        flat = outcomes.flatten(2)
        prefix = flat[-1:, :, :positions]
        matches = (flat[:, :, :positions] == prefix).flatten(1).all(1)
        likelihood = torch.where(matches, log_prob(prior, outcomes).exp(), 0)
        codes = prior.sample(n, {}, prefix=prefix.expand(n, -1, -1), generator=seeded())
        expected = n * likelihood / likelihood.sum()
        assert goodness_of_fit(histogram(codes, outcomes), expected) > 1e-4

    @pytest.mark.parametrize("positions", range(5))
    def test_the_prefix_is_kept(self, positions: int) -> None:
        prefix = some_codes(CODES, 8).flatten(2)[:, :, :positions]
        codes = self.prior(CODES).sample(8, {}, prefix=prefix, generator=seeded())
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
                prior.sample(3, self._given_on_any_grid(torch.arange(3)), generator=seeded())
            for batch, grid, context in started[-1:]:
                check_prefill(trunk, batch, grid, context)

    def test_a_seed_decides_the_codes(self) -> None:
        prior = self.prior(CODES, self.conditions)
        codes = [_sample(prior, 32, self._given(32), generator=seeded(seed)) for seed in (1, 1, 2)]
        assert torch.equal(codes[0], codes[1])
        assert not torch.equal(codes[0], codes[2])

    def test_guidance_of_one_changes_nothing(self) -> None:
        prior = self.prior(CODES, self.conditions)
        plain = _sample(prior, 32, self._given(32), generator=seeded())
        guided = _sample(prior, 32, self._given(32), SamplingOptions(guidance=1.0), generator=seeded())
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


def _sample(
    prior: Prior, n: int, conditions: dict[str, Tensor], options: SamplingOptions = PLAIN, *, generator: torch.Generator
) -> Tensor:
    try:
        return prior.sample(n, conditions, options, generator=generator)
    except Exception as error:
        if conditions and len(conditions) == len(CONDITIONS):
            raise AssertionError(f"{type(prior).__name__}: {type(error).__name__}: {error}\n{TOLD}") from error
        raise
