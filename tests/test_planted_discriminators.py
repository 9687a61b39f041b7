"""The suite of discriminators catches what goes wrong in parts of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from random import random
from typing import ClassVar

import pytest
import torch
from planted import assert_catches
from torch import Tensor, nn

from toolkit.discriminator import Discriminator, Judgement
from toolkit.spec import Condition, DataSpec
from toolkit.testing.discriminator import DiscriminatorSuite


class Plain(Discriminator):
    """A sound part, to be broken."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        self.wide = nn.Conv1d(data.channels, 6, 3, padding=1)
        self.out = nn.Conv1d(6, 1, 3, padding=1)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        h = self.normed(nn.functional.softplus(self.wide(x)))
        return [Judgement(self.out(h), (h,))]

    def normed(self, h: Tensor) -> Tensor:
        return h


class DiscriminatorCase(DiscriminatorSuite):
    data: ClassVar[DataSpec] = DataSpec(2, (9,), levels=5, conditions=(Condition("label", 3),))

    def __init__(self, part: type[Plain] = Plain) -> None:
        self.of = part

    def make(self, data: DataSpec) -> Discriminator:
        return self.of(data)


class TestPlain(DiscriminatorSuite):
    data = DiscriminatorCase.data

    def make(self, data: DataSpec) -> Discriminator:
        return Plain(data)

    @pytest.mark.slow
    def test_it_compiles_whole(self) -> None:
        super().test_it_compiles_whole()


class Detached(Plain):
    def normed(self, h: Tensor) -> Tensor:
        return h.detach()


class DetachedFeatures(Plain):
    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        return [one._replace(features=(one.features[0].detach(),)) for one in super().forward(x, conditions)]


class Cropped(Plain):
    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        return super().forward(x[:, :, 2:], conditions)


class BatchNormed(Plain):
    """Each rank's own statistics."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.norm = nn.BatchNorm1d(6)

    def normed(self, h: Tensor) -> Tensor:
        normed: Tensor = self.norm(h)
        return normed


class OverTheBatch(Plain):
    def normed(self, h: Tensor) -> Tensor:
        return h - h.mean(0)


class Counting(Plain):
    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def normed(self, h: Tensor) -> Tensor:
        self.seen += len(h)
        return h


class Unsaved(Plain):
    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.shift = torch.randn(())

    def normed(self, h: Tensor) -> Tensor:
        return h + self.shift


class Unused(Plain):
    def __init__(self, data: DataSpec) -> None:
        super().__init__(data)
        self.other = nn.Linear(1, 1)


class Summed(Plain):
    """One logit of all examples."""

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        return [one._replace(logits=one.logits.sum().view(1, 1)) for one in super().forward(x, conditions)]


class Blind(Plain):
    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        return super().forward(0 * x, conditions)


class Noisy(Plain):
    def normed(self, h: Tensor) -> Tensor:
        return h + random()


class Piecewise(Plain):
    """Its gradient has none."""

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        slope = self.out.weight.detach().sum() + self.wide.weight.detach().sum()
        return [Judgement((slope * x).flatten(1) + self.out.bias.sum() + self.wide.bias.sum(), ())]


class Single(Plain):
    def normed(self, h: Tensor) -> Tensor:
        return h.float()

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        h = self.normed(self.wide(x))
        return [Judgement(self.out.float()(h), (h,))]


class NeedsLabels(Plain):
    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        conditions["label"]
        return super().forward(x, conditions)


class AsksOnce(Plain):
    def normed(self, h: Tensor) -> Tensor:
        return h * (1.0 if h.sum().item() > -1e9 else 2.0)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Detached, "the gradient reaches every number of x"),
        (DetachedFeatures, "the gradient reaches every number of x"),
        (Cropped, "the gradient reaches every number of x"),
        (BatchNormed, "statistics are those of all ranks"),
        (OverTheBatch, "examples are judged each by itself"),
        (Counting, "eval changes no state"),
        (Unsaved, "the state dict is the whole discriminator"),
        (Unused, "the gradient reaches every parameter"),
        (Summed, "it gives judgements of each example"),
        (Blind, "the logits depend on the data"),
        (Noisy, "a seed decides the outcome"),
        (Piecewise, "the gradient can be penalized"),
        (Single, "it runs in double precision"),
        (NeedsLabels, "it runs on fake tensors"),
        (AsksOnce, "it computes on a gpu"),
        pytest.param(AsksOnce, "it compiles whole", marks=pytest.mark.slow),
    ],
)
def test_a_broken_discriminator_is_caught(broken: type[Plain], law: str) -> None:
    assert_catches(DiscriminatorCase(), DiscriminatorCase(broken), law)
