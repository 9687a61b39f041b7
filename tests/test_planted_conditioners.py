"""The suite of conditioners catches what goes wrong in parts of its kind."""

from __future__ import annotations

import pytest
import torch
from planted import assert_catches
from torch import Tensor, nn

from toolkit.conditioner import Conditioner, Tokens
from toolkit.spec import Condition
from toolkit.testing.conditioner import ConditionerSuite


class Plain(Conditioner):
    """A sound part, to be broken: running means of embedded bytes, after a token for the start."""

    def __init__(self, condition: Condition) -> None:
        super().__init__()
        self.dim = 6
        self.table = nn.Embedding(256, self.dim)
        self.start = nn.Parameter(torch.randn(self.dim))

    def forward(self, text: Tensor) -> Tokens:
        embedded = self.table(text.long())
        x = torch.cat((self.start.expand(len(text), 1, -1), embedded), 1)
        mask = torch.cat((torch.ones_like(text[:, :1], dtype=torch.bool), text != 0), 1)
        return Tokens(self.mixed(x, mask), mask)

    def mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.cumsum(1) / mask.cumsum(1).unsqueeze(2)


class ConditionerCase(ConditionerSuite):
    def __init__(self, part: type[Plain] = Plain) -> None:
        self.of = part

    def make(self, condition: Condition) -> Conditioner:
        return self.of(condition)


class TestPlain(ConditionerSuite):
    def make(self, condition: Condition) -> Conditioner:
        return Plain(condition)


class NothingOfNothing(Plain):
    """An empty text has no token."""

    def forward(self, text: Tensor) -> Tokens:
        tokens = super().forward(text)
        return Tokens(tokens.vectors[:, 1:], tokens.mask[:, 1:])


class Padded(Plain):
    """Zeros are averaged, too."""

    def mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + x.mean(1, keepdim=True)


class OverTheBatch(Plain):
    def mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().mixed(x, mask) - x.mean(0)


class Bag(Plain):
    """The same for every order of bytes."""

    def mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        whole = (x * mask.unsqueeze(2)).sum(1, keepdim=True) / mask.sum(1)[:, None, None]
        return whole.expand_as(x)


class Deaf(Plain):
    def mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().mixed(0 * x, mask)


class Unused(Plain):
    def __init__(self, condition: Condition) -> None:
        super().__init__(condition)
        self.other = nn.Linear(1, 1)


class Unsaved(Plain):
    def __init__(self, condition: Condition) -> None:
        super().__init__(condition)
        self.shift = torch.randn(())

    def mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().mixed(x, mask) + self.shift


class AsksOnce(Plain):
    def mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().mixed(x, mask) * (1.0 if mask.sum().item() else 2.0)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (NothingOfNothing, "every text has tokens and an empty one too"),
        (Padded, "zeros after the end change nothing"),
        (OverTheBatch, "texts are read each by itself"),
        (Bag, "the order of words matters"),
        (Deaf, "no two texts are alike"),
        (Unused, "the gradient reaches every parameter"),
        (Unsaved, "the state dict is the whole conditioner"),
        (AsksOnce, "it computes on a gpu"),
    ],
)
def test_a_broken_conditioner_is_caught(broken: type[Plain], law: str) -> None:
    assert_catches(ConditionerCase(), ConditionerCase(broken), law)
