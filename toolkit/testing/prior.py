"""The laws of priors, as tests that a plugin's tests inherit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.build import fit_prior
from toolkit.prior import Prior
from toolkit.spec import CodeSpec
from toolkit.testing.counting import every
from toolkit.testing.laws import as_assertion
from toolkit.testing.on_gpu import check_on_gpu
from toolkit.testing.prior_cases import CODE_SPECS as CODE_SPECS
from toolkit.testing.prior_cases import CODES, KIND, each_code_spec, log_prob, seeded, some_codes
from toolkit.testing.prior_cases import CONDITIONS as CONDITIONS
from toolkit.testing.prior_cases import LABELS as LABELS
from toolkit.testing.prior_cases import TEXTS as TEXTS
from toolkit.testing.prior_cases import TOLD as TOLD
from toolkit.testing.prior_samples import SampledPriorLaws
from toolkit.testing.tape import Tape


class PriorSuite(SampledPriorLaws):
    """Subclass it as ``class TestMyPrior(PriorSuite)`` and build a small one in ``make``.

    The laws hold at any weights, so they are checked at random ones, in float64 and eval mode. The laws about
    probabilities are skipped where ``log_prob`` raises NotImplementedError. A prior that works only on grids of certain
    ranks names them in ``ranks``, and one that takes labels alone, and neither values per step nor real ones, has
    ``conditions = LABELS``. One that has a conditioner has a second class, with ``conditions = TEXTS``.
    """

    def part(self) -> Prior:
        return self.prior(self._code_spec())

    def outcome(self, part: Prior) -> tuple[Tensor, ...]:
        loss = part(some_codes(self._code_spec(), 4), {}).detach()
        return loss, part.sample(4, {}, generator=seeded())

    def test_its_results_fit_a_model(self) -> None:
        """What ``toolkit check`` asks of shapes and types."""
        code_spec = self._code_spec()
        with as_assertion():
            fit_prior(self.prior(code_spec).float(), code_spec)

    @each_code_spec
    def test_probabilities_of_all_code_maps_sum_to_one(self, code_spec: CodeSpec) -> None:
        nats = log_prob(self.prior(code_spec), every(code_spec))
        torch.testing.assert_close(nats.exp().sum().item(), 1.0, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("kind", [0, 1, KIND.size, None])
    def test_probabilities_sum_to_one_under_any_condition(self, kind: int | None) -> None:
        codes = every(CODES)
        conditions = {} if kind is None else self._given(len(codes), kind)
        nats = log_prob(self.prior(CODES, self.conditions), codes, conditions)
        torch.testing.assert_close(nats.exp().sum().item(), 1.0, atol=1e-6, rtol=0)

    @each_code_spec
    def test_an_example_in_padding_costs_what_it_does_alone(self, code_spec: CodeSpec) -> None:
        prior, codes = self.prior(code_spec), some_codes(code_spec, 3)
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
        prior, codes = self.prior(CODES, self.conditions), some_codes(CODES, 5)
        conditions = self._given(5)
        together = log_prob(prior, codes, conditions)
        assert together.shape == (5,)
        alone = [log_prob(prior, codes[i : i + 1], {k: v[i : i + 1] for k, v in conditions.items()}) for i in range(5)]
        torch.testing.assert_close(together, torch.cat(alone))

    def test_probabilities_depend_on_conditions(self) -> None:
        if self.prior(CODES).state_dict().keys() == self.prior(CODES, self.conditions).state_dict().keys():
            pytest.skip("has no parameters for conditions")
        prior, codes, known = self.prior(CODES, self.conditions), some_codes(CODES, 1), self._given(1)
        for condition in self.conditions:
            other = {**known, condition.name: known[condition.name] + (1 if not condition.real else 0.5)}
            nats = [log_prob(prior, codes, conditions) for conditions in (known, other)]
            assert (nats[0] - nats[1]).abs() > 1e-9, f"{condition.name} has no effect"

    def test_a_missing_condition_means_none(self) -> None:
        prior, codes = self.prior(CODES, (KIND,)), some_codes(CODES, 5)
        none = torch.full((5,), KIND.size)
        torch.testing.assert_close(log_prob(prior, codes), log_prob(prior, codes, {KIND.name: none}))

    def test_its_blocks_are_called_in_order(self) -> None:
        """Each once in a pass of the loss: sharding gathers a block's weights when it is called."""
        code_spec, called = self._code_spec(), list[torch.nn.Module]()
        prior = self.prior(code_spec).train()
        blocks = list(prior.blocks_in_order())
        for block in blocks:
            block.register_forward_hook(lambda module, *_: called.append(module))
        prior.loss(some_codes(code_spec, 2), {})
        assert called == blocks, (
            f"blocks_in_order gives {len(blocks)} blocks, a pass calls {len(called)} of them, or in other order"
        )

    @each_code_spec
    def test_the_loss_is_finite_and_reaches_every_parameter(self, code_spec: CodeSpec) -> None:
        prior = self.prior(code_spec, self._of_any_grid).train()
        loss = prior(some_codes(code_spec, 16), self._given_on_any_grid(torch.arange(16) % (KIND.size + 1)))
        assert loss.shape == (16,)
        assert loss.isfinite().all()
        parameters = [parameter for parameter in prior.parameters() if parameter.requires_grad]
        if parameters:
            loss.mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)

    def test_log_prob_is_precise_under_autocast(self) -> None:
        prior, codes = self.prior(CODES).float(), some_codes(CODES, 5)
        with torch.autocast("cpu", torch.bfloat16):
            assert log_prob(prior, codes).dtype == torch.float32

    def test_the_state_dict_is_the_whole_prior(self) -> None:
        prior, codes = self.prior(CODES, self.conditions), some_codes(CODES, 5)
        other = self.make(CODES, self.conditions).double().eval()
        other.load_state_dict(prior.state_dict())
        conditions = self._given(5)
        torch.testing.assert_close(log_prob(other, codes, conditions), log_prob(prior, codes, conditions))

    def test_it_computes_on_a_gpu(self) -> None:
        """Forward, backward and state lie there, and no step of training waits for it; on a stand-in for a GPU."""
        code_spec = self._code_spec()
        prior, known = self.prior(code_spec, self._of_any_grid), self._given_on_any_grid(torch.arange(4) % KIND.size)

        def forward(prior: Prior, codes: Tensor, known: dict[str, Tensor]) -> tuple[Tensor, ...]:
            return (prior.loss(codes, known),)

        check_on_gpu(prior, forward, some_codes(code_spec, 4), known)

    @each_code_spec
    def test_entropy_coding_gives_the_codes_back_and_costs_their_log_prob(self, code_spec: CodeSpec) -> None:
        prior, codes, tape = self.prior(code_spec), some_codes(code_spec, 3), Tape()
        _entropy_code(prior, tape, codes)
        torch.testing.assert_close(tape.nats(), -log_prob(prior, codes).double(), atol=1e-3, rtol=1e-3)
        back = _entropy_code(prior, tape.rewound(), None)
        assert torch.equal(back, codes.flatten(2))

    def test_codes_after_a_prefix_cost_what_they_do_among_all(self) -> None:
        prior, codes = self.prior(CODES, self.conditions), some_codes(CODES, 3)
        whole, first, rest = Tape(), Tape(), Tape()
        _entropy_code(prior, whole, codes, conditions=self._given(3))
        _entropy_code(prior, first, codes, conditions=self._given(3), positions=1)
        prefix = codes.flatten(2)[:, :, :1]
        assert torch.equal(
            _entropy_code(prior, rest, codes, conditions=self._given(3), prefix=prefix), codes.flatten(2)
        )
        torch.testing.assert_close(first.nats() + rest.nats(), whole.nats(), atol=1e-6, rtol=1e-6)


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
