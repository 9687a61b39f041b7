"""The laws of objectives, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from math import log, prod
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.build import fit_objective
from toolkit.decoder import Decoder
from toolkit.likelihood import Distribution, Likelihood
from toolkit.objective import Loss, Objective
from toolkit.objectives.shares import trace_gradients
from toolkit.quantizer import Quantizer
from toolkit.spec import CodeSpec, Condition, DataSpec
from toolkit.testing.laws import PartLaws, as_assertion
from toolkit.testing.on_gpu import check_on_gpu
from toolkit.testing.parts import PointEncoder, plain_likelihood, point_autoencoder, random_data
from toolkit.training import Stage

TINY = DataSpec(1, (2,), levels=3)
LABEL = Condition("label", 3)
SAMPLES = 4096


class ObjectiveSuite(PartLaws):
    """Subclass it as ``class TestMyObjective(ObjectiveSuite)`` and build one in ``make``.

    It gets minimal autoencoders; override ``quantizer`` where it needs a certain kind.
    """

    data: ClassVar[DataSpec] = DataSpec(2, (6,), levels=5)

    @abstractmethod
    def make(self, data: DataSpec) -> Objective:
        """An objective over this data."""

    def quantizer(self) -> Quantizer | None:
        """A quantizer that works with the objective, with codebooks small enough to enumerate the codes of two
        positions; None: a plain codebook."""
        return None

    def autoencoder(self, data: DataSpec | None = None) -> Autoencoder:
        """An autoencoder in eval mode, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            autoencoder: Autoencoder = point_autoencoder(data or self.data, quantizer=self.quantizer()).eval()
        return autoencoder

    def part(self) -> Objective:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make(self.data).eval()

    def outcome(self, part: Objective) -> tuple[Tensor, ...]:
        autoencoder = self.autoencoder().train(part.training)
        return (part(autoencoder, random_data(self.data, 4), {}).loss.detach(),)

    def test_the_loss_is_finite_and_trains_every_parameter(self) -> None:
        autoencoder, objective = self.autoencoder().train(), self.make(self.data).train()
        output = objective(autoencoder, random_data(self.data, 64), {})
        assert output.loss.shape == ()
        assert output.loss.isfinite()
        output.loss.backward()
        for part in (autoencoder, objective):
            for name, parameter in part.named_parameters():
                if part is objective and name.startswith("critic."):
                    continue  # its loss is its own
                assert parameter.grad is not None, f"{name} has no gradient"
                assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"

    def test_the_critics_loss_trains_the_critic_alone(self) -> None:
        autoencoder, objective = self.autoencoder().train(), self.make(self.data).train()
        if objective.critic is None:
            pytest.skip("has no critic")
        x = random_data(self.data, 64)
        output = objective(autoencoder, x, {})
        output.loss.backward(retain_graph=True)
        loss = objective.critic_loss(autoencoder, x, {}, output).loss
        assert loss.shape == ()
        assert loss.isfinite()
        critic = dict(objective.critic.named_parameters())
        others = {
            f"{title}.{n}": p
            for title, part in (("autoencoder", autoencoder), ("objective", objective))
            for n, p in part.named_parameters()
            if not (part is objective and n.startswith("critic."))
        }
        gradients = torch.autograd.grad(loss, [*critic.values(), *others.values()], allow_unused=True)
        for name, gradient in zip([*critic, *others], gradients, strict=True):
            if name in others:
                assert gradient is None, f"the critic's loss has a gradient for {name}: detach what it is given"
            else:
                assert gradient is not None, f"critic.{name} has no gradient"
                assert gradient.isfinite().all(), f"the gradient of critic.{name} is not finite"

    def test_the_loss_is_a_mean_over_the_batch(self) -> None:
        """For an example repeated n times it does not depend on n, except for sampling noise."""
        autoencoder, objective, x = self.autoencoder(), self.make(self.data).eval(), random_data(self.data, 1)
        with torch.no_grad():
            losses = [objective(autoencoder, x.expand(n, *x.shape[1:]), {}).loss.item() for n in (256, 512)]
        assert losses[1] == pytest.approx(losses[0], rel=0.2)

    def test_its_results_fit_a_model(self) -> None:
        """What ``toolkit check`` asks of the loss's and the bound's shapes and types."""
        with as_assertion():
            fit_objective(self.make(self.data), self.autoencoder())

    def test_terms_are_finite_scalars(self) -> None:
        output = self.make(self.data)(self.autoencoder(), random_data(self.data, 4), {})
        assert output.terms
        assert all(term.shape == () and term.isfinite() for term in output.terms.values())
        assert output.likelihood.shape == self.data.shape
        assert output.quantized.codes.shape[0] == 4

    def test_one_example_is_a_batch(self) -> None:
        autoencoder, objective = self.autoencoder().train(), self.make(self.data).train()
        for _ in range(3):
            output = objective(autoencoder, random_data(self.data, 1), {})
            output.loss.backward()
            assert output.loss.isfinite()
        assert objective.eval().bound(autoencoder.eval(), random_data(self.data, 1), {}).data_nats.isfinite().all()

    def test_the_bound_has_a_number_per_example(self) -> None:
        bound = self.make(self.data).eval().bound(self.autoencoder(), random_data(self.data, 4), {})
        for nats in (bound.data_nats, bound.code_nats):
            assert nats.shape == (4,)
            assert nats.isfinite().all()
        assert bound.likelihood.shape == self.data.shape
        assert bound.quantized.codes.shape[0] == 4

    def test_the_bound_is_a_bound(self) -> None:
        """Over many samples its mean is not below -log p(x), computed as a sum over all code maps."""
        autoencoder = self.autoencoder(TINY).double()
        if not autoencoder.code_spec.depth:
            pytest.skip("a continuous bottleneck has no code maps to sum over")
        for one in random_data(TINY, 4).split(1):
            exact = -_evidence(autoencoder, one)
            nats = _sampled_bounds(self.make(TINY).double().eval(), autoencoder, one)
            slack = 5 * nats.std() / SAMPLES**0.5
            assert nats.mean() >= exact - slack - 1e-9

    def test_examples_keep_their_conditions(self) -> None:
        """With a decoder that depends on the label only, the data's cost is known for any codes."""
        autoencoder, objective = self._labeled(), self.make(self.data).eval()
        x = random_data(self.data, 5)
        label = torch.tensor([0, 1, 2, 1, 0])
        z = autoencoder.quantize(x).z
        expected = -autoencoder.decode(z, {"label": label}).log_prob(x)
        assert len(expected.unique()) == 5
        bound = objective.bound(autoencoder, x, {"label": label})
        torch.testing.assert_close(bound.data_nats, expected)
        torch.testing.assert_close(-bound.likelihood.log_prob(x), expected)
        torch.testing.assert_close(-objective(autoencoder, x, {"label": label}).likelihood.log_prob(x), expected)

    def test_the_bound_changes_no_state(self) -> None:
        autoencoder, objective = self.autoencoder(), self.make(self.data).eval()
        before = _state(autoencoder, objective)
        with torch.no_grad():
            objective.bound(autoencoder, random_data(self.data, 4), {})
            objective(autoencoder, random_data(self.data, 4), {})
        for name, value in _state(autoencoder, objective).items():
            assert torch.equal(value, before[name]), f"{name} changed in eval mode"

    def test_the_loss_is_precise_under_autocast(self) -> None:
        autoencoder, objective, x = self.autoencoder(), self.make(self.data), random_data(self.data, 4)
        with torch.autocast("cpu", torch.bfloat16):
            output, bound = objective(autoencoder, x, {}), objective.eval().bound(autoencoder, x, {})
        assert output.loss.dtype == bound.data_nats.dtype == bound.code_nats.dtype == torch.float32
        assert {term.dtype for term in output.terms.values()} == {torch.float32}

    def test_it_computes_on_a_gpu(self) -> None:
        """Forward, backward and state lie there, and no step of training waits for it; on a stand-in for a GPU."""

        def forward(stage: Stage, x: Tensor) -> list[Tensor]:
            if not stage.training:
                bound = stage.objective.bound(stage.model, x, {})
                return [bound.data_nats, bound.code_nats]
            output = stage(x, {})
            adverse = [] if stage.objective.critic is None else [self._critic_loss(stage, x, output)]
            return [output.loss, *adverse, *(term.detach() for term in output.terms.values())]

        check_on_gpu(Stage(self.make(self.data), self.autoencoder()), forward, random_data(self.data, 4))

    @pytest.mark.filterwarnings("ignore:Guards may run slower")  # what torch says of Python 3.13.0
    def test_it_compiles_whole(self) -> None:
        x = random_data(self.data, 4)
        stages = [Stage(self.make(self.data), self.autoencoder()).double().train() for _ in range(2)]
        stages[1].load_state_dict(stages[0].state_dict())
        torch._dynamo.reset()
        trace_gradients(stages[1])
        losses = []
        for stage in (stages[0], torch.compile(stages[1], fullgraph=True, backend="aot_eager")):
            torch.manual_seed(0)
            output: Loss = stage(x, {})
            output.loss.backward()
            losses.append(output.loss)
        torch.testing.assert_close(losses[1], losses[0])
        for plain, compiled in zip(stages[0].parameters(), stages[1].parameters(), strict=True):
            torch.testing.assert_close(compiled.grad, plain.grad)

    def _critic_loss(self, stage: Stage, x: Tensor, output: Loss) -> Tensor:
        return stage.objective.critic_loss(stage.model, x, {}, output).loss

    def _labeled(self) -> Autoencoder:
        data = replace(self.data, conditions=(LABEL,))
        whole = self.autoencoder()
        encoder, quantizer = PointEncoder(data, whole.quantizer.channels), whole.quantizer
        decoder = _LabelDecoder(plain_likelihood(data))
        return Autoencoder(data, encoder, quantizer, decoder, decoder_conditions=("label",)).eval()


class _LabelDecoder(Decoder):
    """Depends on the label only; the latents just give the grid."""

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.table = nn.Embedding(LABEL.size + 1, likelihood.channels)

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        rows: Tensor = self.table(conditions["label"]).unsqueeze(-1)
        return self.likelihood(rows + 0 * z.sum(1, keepdim=True))


def code_maps(code_spec: CodeSpec) -> Tensor:
    """Every code map of an example, ``(maps, depth, *grid)``; for tiny grids."""
    choices = [range(size) for size in code_spec.codebook_sizes for _ in range(prod(code_spec.grid))]
    maps: Tensor = torch.tensor(list(product(*choices))).unflatten(1, code_spec.shape)
    return maps


@torch.no_grad()
def _evidence(autoencoder: Autoencoder, x: Tensor) -> float:
    """log p(x) of one example at the uniform prior, as a sum over all code maps."""
    maps = code_maps(autoencoder.code_spec)
    log_px = autoencoder.decode(autoencoder.embed(maps), {}).log_prob(x.expand(len(maps), *x.shape[1:]))
    return log_px.logsumexp(0).item() - autoencoder.code_spec.rate * log(2)


@torch.no_grad()
def _sampled_bounds(objective: Objective, autoencoder: Autoencoder, x: Tensor) -> Tensor:
    """The bound of one example, sampled many times ``(samples,)``."""
    torch.manual_seed(0)
    bound = objective.bound(autoencoder, x.expand(SAMPLES, *x.shape[1:]), {})
    return bound.data_nats + bound.code_nats


def _state(*parts: nn.Module) -> dict[str, Tensor]:
    named = [
        (f"{i}.{name}", value.clone()) for i, part in enumerate(parts) for name, value in part.state_dict().items()
    ]
    return dict(named)
