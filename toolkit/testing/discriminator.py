"""The laws of discriminators, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from toolkit.discriminator import Discriminator, Judgement
from toolkit.spec import DataSpec
from toolkit.testing.laws import PartLaws, assert_same
from toolkit.testing.on_gpu import check_on_gpu
from toolkit.testing.parts import random_conditions, random_data
from toolkit.testing.ranks import as_ranks


class DiscriminatorSuite(PartLaws):
    """Subclass it as ``class TestMyDiscriminator(DiscriminatorSuite)``, set the data, and build a small one in
    ``make``."""

    data: ClassVar[DataSpec]
    """Argument of ``make``; ordered."""

    @abstractmethod
    def make(self, data: DataSpec) -> Discriminator:
        """A discriminator with few parameters."""

    def part(self) -> Discriminator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make(self.data).eval()

    def outcome(self, part: Discriminator) -> tuple[Tensor, ...]:
        return tuple(tensor.detach() for tensor in _tensors(self._judge(part, self._x(2))))

    def test_it_gives_judgements_of_each_example(self) -> None:
        judgements = self._judge(self.part(), self._x(3))
        assert judgements, "gives no judgement"
        for judgement in judgements:
            assert isinstance(judgement, Judgement), f"gives {type(judgement).__name__}, not a Judgement"
            assert isinstance(judgement.features, tuple), "gives features that are no tuple"
            for tensor in _tensors([judgement]):
                assert tensor.dim() > 1, f"gives a tensor of shape {tuple(tensor.shape)}: (batch, …) is expected"
                assert len(tensor) == 3
                assert tensor.numel(), f"gives an empty tensor, {tuple(tensor.shape)}"
                assert tensor.isfinite().all()

    def test_the_gradient_reaches_every_number_of_x(self) -> None:
        """Of at least one among several examples, where a rectifier is closed to some."""
        part, x = self.part().double(), self._x(8).double().requires_grad_()
        judgements = self._judge(part, x)
        (gradient,) = torch.autograd.grad(_logits(judgements), x, retain_graph=True)
        assert gradient.isfinite().all()
        unseen = int((gradient == 0).all(0).sum())
        assert not unseen, f"no logit depends on {unseen} of the {self.data.dims} numbers of x"
        if features := [feature for judgement in judgements for feature in judgement.features]:
            squares = torch.stack([feature.square().sum() for feature in features])
            (gradient,) = torch.autograd.grad(squares.sum(), x)
            assert gradient.any(), "the features have no gradient for x: do not detach them"

    def test_the_gradient_reaches_every_parameter(self) -> None:
        part = self.part().train()
        _logits(self._judge(part, self._x(4)), squared=True).backward()
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            assert parameter.grad.any(), f"the gradient of {name} is zero"

    def test_the_gradient_can_be_penalized(self) -> None:
        """It has a gradient itself, for the parameters."""
        part, x = self.part().double().train(), self._x(2).double().requires_grad_()
        (gradient,) = torch.autograd.grad(_logits(self._judge(part, x)), x, create_graph=True)
        gradient.square().sum().backward()
        of_parameters = [p.grad for p in part.parameters() if p.grad is not None]
        assert any(of_one.any() for of_one in of_parameters), "a penalty on the gradient trains no parameter"
        assert all(of_one.isfinite().all() for of_one in of_parameters)

    def test_examples_are_judged_each_by_itself(self) -> None:
        """In eval mode."""
        part, x, conditions = self.part(), self._x(3), random_conditions(self.data, 3)
        whole = _tensors(part(x, conditions))
        for i in range(3):
            alone = part(x[i : i + 1], {name: value[i : i + 1] for name, value in conditions.items()})
            for one, of_all in zip(_tensors(alone), whole, strict=True):
                torch.testing.assert_close(one, of_all[i : i + 1], atol=1e-4, rtol=1e-4)

    def test_statistics_are_those_of_all_ranks(self) -> None:
        """Two ranks in training judge as one does that has both their batches, and come to the same state."""
        x, conditions = self._x(4).double(), random_conditions(self.data, 4)

        def judged(rows: slice) -> tuple[list[Tensor], dict[str, Tensor]]:
            part = self.part().double().train()
            given = {name: value[rows] for name, value in conditions.items()}
            for _ in range(2):
                tensors = [tensor.detach() for tensor in _tensors(part(x[rows], given))]
            return tensors, part.state_dict()

        whole, state = judged(slice(4))
        halves = as_ranks([partial(judged, slice(2)), partial(judged, slice(2, 4))])
        for parts in zip(whole, *(tensors for tensors, _ in halves), strict=True):
            torch.testing.assert_close(torch.cat(parts[1:]), parts[0])
        for name, value in state.items():
            for _, own in halves:
                torch.testing.assert_close({name: own[name]}, {name: value})

    def test_the_logits_depend_on_the_data(self) -> None:
        for judgement in self._judge(self.part(), self._x(2)):
            assert (judgement.logits[0] - judgement.logits[1]).abs().max() > 1e-6

    def test_eval_changes_no_state(self) -> None:
        part, x = self.part(), self._x(3)
        before = {name: value.clone() for name, value in part.state_dict().items()}
        for one, again in zip(_tensors(self._judge(part, x)), _tensors(self._judge(part, x)), strict=True):
            assert_same(one, again, "two judgements of one batch")
        for name, value in part.state_dict().items():
            assert_same(value, before[name], f"{name} before and after")

    def test_the_state_dict_is_the_whole_discriminator(self) -> None:
        part, x = self.part(), self._x(2)
        self._judge(part.train(), x)
        other = self.make(self.data).eval()
        other.load_state_dict(part.eval().state_dict())
        for one, two in zip(_tensors(self._judge(part, x)), _tensors(self._judge(other, x)), strict=True):
            torch.testing.assert_close(two, one)

    def test_it_runs_in_half_precision(self) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            assert all(tensor.isfinite().all() for tensor in _tensors(self._judge(self.part(), self._x(2))))

    def test_it_runs_in_double_precision(self) -> None:
        tensors = _tensors(self._judge(self.part().double(), self._x(2).double()))
        assert {tensor.dtype for tensor in tensors} == {torch.float64}

    def test_it_computes_on_a_gpu(self) -> None:
        """Forward, backward and state lie there, and no step of training waits for it; on a stand-in for a GPU."""
        conditions = random_conditions(self.data, 2)
        check_on_gpu(self.part(), lambda part, x, given: _tensors(part(x, given)), self._x(2), conditions)

    def test_it_runs_on_fake_tensors(self) -> None:
        """Building a model runs it on them, to check that the parts fit."""
        part = self.part()
        expected = [tensor.shape for tensor in _tensors(self._judge(part, self._x(2)))]
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            judgements = part(torch.zeros(2, *self.data.shape), {})
        assert [tensor.shape for tensor in _tensors(judgements)] == expected

    @pytest.mark.filterwarnings("ignore:Guards may run slower")  # what torch says of Python 3.13.0
    def test_it_compiles_whole(self) -> None:
        parts, x = [self.part().double().train() for _ in range(2)], self._x(4).double()
        torch._dynamo.reset()
        logits = []
        for part in (parts[0], torch.compile(parts[1], fullgraph=True, backend="aot_eager")):
            logits.append(_logits(part(x, {}), squared=True))
            logits[-1].backward()
        torch.testing.assert_close(logits[1], logits[0])
        for plain, compiled in zip(parts[0].parameters(), parts[1].parameters(), strict=True):
            torch.testing.assert_close(compiled.grad, plain.grad)

    def _x(self, n: int) -> Tensor:
        """n examples on the scale on which they are judged."""
        return self.data.scale(random_data(self.data, n))

    def _judge(self, part: Discriminator, x: Tensor) -> list[Judgement]:
        return part(x, random_conditions(self.data, len(x)))


def _tensors(judgements: list[Judgement]) -> list[Tensor]:
    return [tensor for judgement in judgements for tensor in (judgement.logits, *judgement.features)]


def _logits(judgements: list[Judgement], squared: bool = False) -> Tensor:
    """The sum over all networks of the sums of the logits, or of their squares, 0-d."""
    sums = [(one.logits.square() if squared else one.logits).sum() for one in judgements]
    return torch.stack(sums).sum()
