"""The suite of objectives catches what goes wrong in parts of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from random import random

import pytest
import torch
from planted import assert_catches
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.objective import Bound, Loss, Objective
from toolkit.objectives.elbo import ELBO
from toolkit.quantizer import Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.spec import DataSpec
from toolkit.testing.objective import ObjectiveSuite


class Plain(Objective):
    """An ELBO to be broken."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ELBO()

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        return self.inner(autoencoder, x, conditions)

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        return self.inner.bound(autoencoder, x, conditions)


class ObjectiveCase(ObjectiveSuite):
    def __init__(self, part: type[Plain] = Plain) -> None:
        self.of = part

    def make(self, data: DataSpec) -> Objective:
        return self.of()

    def quantizer(self) -> Quantizer:
        return CategoricalQuantizer(4, codebook_size=3)


class SummedOverTheBatch(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(loss=made.loss * len(x))


class FrozenDecoder(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(loss=made.terms["kl"] + made.terms["quantizer"])


class FreeCodes(Plain):
    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        made = super().bound(autoencoder, x, conditions)
        return made._replace(code_nats=0 * made.code_nats)


class OthersConditions(Plain):
    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        return super().bound(autoencoder, x, {name: value.roll(1, 0) for name, value in conditions.items()})


class Pooled(Plain):
    """The batch's mean for each of its examples."""

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        made = super().bound(autoencoder, x, conditions)
        return made._replace(data_nats=made.data_nats.mean().expand(len(x)))


class CountingBounds(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        self.seen += len(x)
        return super().bound(autoencoder, x, conditions)


class HalfPrecision(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(loss=made.loss.bfloat16())


class PerExample(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(terms={"nll": -made.likelihood.log_prob(x)})


class Jittered(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(loss=made.loss * (1 + random()))


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (SummedOverTheBatch, "the loss is a mean over the batch"),
        (FrozenDecoder, "the loss is finite and trains every parameter"),
        (FreeCodes, "the bound is a bound"),
        (OthersConditions, "examples keep their conditions"),
        (Pooled, "examples keep their conditions"),
        (CountingBounds, "the bound changes no state"),
        (HalfPrecision, "the loss is precise under autocast"),
        (PerExample, "terms are finite scalars"),
        (Jittered, "a seed decides the outcome"),
    ],
)
def test_a_broken_objective_is_caught(broken: type[Plain], law: str) -> None:
    assert_catches(ObjectiveCase(), ObjectiveCase(broken), law)
