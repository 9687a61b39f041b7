"""The laws of conditioners, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from toolkit.conditioner import Conditioner, Tokens
from toolkit.spec import Condition
from toolkit.testing.laws import PartLaws
from toolkit.testing.on_gpu import check_on_gpu

TEXTS = ("a red star", "a star, red", "eine grüne Fläche", "x", "")
"""What is read; the last is none."""


class ConditionerSuite(PartLaws):
    """Subclass it as ``class TestMyConditioner(ConditionerSuite)`` and build a small one in ``make``."""

    condition: Condition = Condition("caption", 24, text=True)
    """Argument of ``make``."""

    @abstractmethod
    def make(self, condition: Condition) -> Conditioner:
        """A conditioner with few parameters."""

    def part(self) -> Conditioner:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make(self.condition).eval()

    def outcome(self, part: Conditioner) -> tuple[Tensor, ...]:
        tokens = part(self._texts())
        return tokens.vectors.detach(), tokens.mask

    def test_every_text_has_tokens_and_an_empty_one_too(self) -> None:
        part = self.part()
        tokens = part(self._texts())
        assert isinstance(tokens, Tokens), f"gives {type(tokens).__name__}, not Tokens"
        batch, count, dim = tokens.vectors.shape
        assert (batch, dim) == (len(TEXTS), part.dim), (
            f"gives vectors {tuple(tokens.vectors.shape)}, and dim={part.dim}"
        )
        assert tokens.vectors.isfinite().all()
        assert tokens.mask.dtype == torch.bool, f"the mask is {tokens.mask.dtype}, not bool"
        assert tokens.mask.shape == (batch, count), f"the mask is {tuple(tokens.mask.shape)}, not {(batch, count)}"
        assert tokens.mask.any(1).all(), "a text has no token: attention to nothing is not a number"

    def test_texts_are_read_each_by_itself(self) -> None:
        """In eval mode."""
        part, texts = self.part().double(), self._texts()
        whole = part(texts)
        for i in range(len(texts)):
            _assert_same(part(texts[i : i + 1]), Tokens(whole.vectors[i : i + 1], whole.mask[i : i + 1]))

    def test_zeros_after_the_end_change_nothing(self) -> None:
        part, texts = self.part().double(), self._texts()
        longest = int((texts != 0).sum(1).max())
        assert longest < texts.shape[1], "the suite's texts fill the condition: give it a larger size"
        _assert_same(part(texts[:, :longest]), part(texts))

    def test_the_order_of_words_matters(self) -> None:
        part = self.part()
        one, other = part(self._encoded("red star")), part(self._encoded("star red"))
        assert (one.vectors - other.vectors).abs().max() > 1e-6

    def test_no_two_texts_are_alike(self) -> None:
        tokens = self.part()(self._texts())
        seen = tokens.vectors * tokens.mask.unsqueeze(2)
        for i in range(len(TEXTS)):
            for j in range(i):
                assert (seen[i] - seen[j]).abs().max() > 1e-6, f"{TEXTS[i]!r} is read as {TEXTS[j]!r}"

    def test_the_gradient_reaches_every_parameter(self) -> None:
        """Of those that are trained."""
        part = self.part().train()
        tokens = part(self._texts())
        trained = [(name, parameter) for name, parameter in part.named_parameters() if parameter.requires_grad]
        if trained:
            (tokens.vectors * tokens.mask.unsqueeze(2)).square().mul(torch.arange(1, part.dim + 1)).sum().backward()
        for name, parameter in trained:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            assert parameter.grad.any(), f"the gradient of {name} is zero"

    def test_the_state_dict_is_the_whole_conditioner(self) -> None:
        part, other = self.part(), self.make(self.condition).eval()
        other.load_state_dict(part.state_dict())
        _assert_same(other(self._texts()), part(self._texts()))

    def test_it_computes_on_a_gpu(self) -> None:
        """Forward, backward and state lie there, and no step of training waits for it; on a stand-in for a GPU."""
        check_on_gpu(self.part(), lambda part, texts: tuple(part(texts)), self._texts())

    def test_it_runs_on_fake_tensors(self) -> None:
        """Building a model runs it on them, to check that the parts fit."""
        part = self.part()
        expected = part(self._texts()).vectors.shape
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            given = part(torch.zeros(len(TEXTS), self.condition.size, dtype=torch.uint8)).vectors.shape
        assert given == expected

    def _texts(self) -> Tensor:
        return torch.stack([self.condition.encoded(text) for text in TEXTS])

    def _encoded(self, text: str) -> Tensor:
        return self.condition.encoded(text).unsqueeze(0)


def _assert_same(one: Tokens, other: Tokens) -> None:
    """The same vectors where there are tokens, of which one text may have fewer places than the other."""
    count = min(one.mask.shape[1], other.mask.shape[1])
    assert not one.mask[:, count:].any()
    assert not other.mask[:, count:].any()
    assert torch.equal(one.mask[:, :count], other.mask[:, :count])
    seen = one.mask[:, :count].unsqueeze(2)
    torch.testing.assert_close(one.vectors[:, :count] * seen, other.vectors[:, :count] * seen)
