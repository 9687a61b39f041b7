"""The adversarial objective: its laws, its terms' shares, its critic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from toolkit import DataSpec, Objective
from toolkit.discriminators.patch import PatchDiscriminator
from toolkit.objectives.adversarial import AdversarialObjective
from toolkit.testing import ObjectiveSuite

LEVELS = DataSpec(2, (6,), levels=5)
FLOATS = DataSpec(2, (6,))


def adversarial(data: DataSpec, **options: Any) -> AdversarialObjective:
    """With a small critic."""
    critic: Callable[[], Any] = partial(PatchDiscriminator, data, width=8, layers=1)
    return AdversarialObjective(data, discriminator=critic, **options)


class AdversarialSuite(ObjectiveSuite):
    options: ClassVar[dict[str, Any]] = {}

    def make(self, data: DataSpec) -> Objective:
        return adversarial(data, **self.options)


class TestShares(AdversarialSuite):
    data, options = FLOATS, {"feature_share": 0.2, "r1": 1.0, "lecam": 0.001, "ramp": 4}


class TestSharesOfLogits(AdversarialSuite):
    """The likelihood's mean is no part of its log_prob."""

    options: ClassVar = {"loss": "non_saturating"}


class TestAdaptive(AdversarialSuite):
    data, options = FLOATS, {"balance": "adaptive", "loss": "least_squares"}


class TestWeight(AdversarialSuite):
    options: ClassVar = {"balance": "weight", "weight": 0.1}
