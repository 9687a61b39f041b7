"""The conditioners of the core."""

from __future__ import annotations

import pytest
from byt5 import encoder

from toolkit import registry
from toolkit.conditioner import Conditioner
from toolkit.conditioners.byt5 import ByT5Conditioner
from toolkit.conditioners.bytes import BytesConditioner
from toolkit.registry import CORE
from toolkit.spec import Condition
from toolkit.testing.conditioner import ConditionerSuite


class BytesSuite(ConditionerSuite):
    def make(self, condition: Condition) -> Conditioner:
        return BytesConditioner(condition, hidden=8, layers=1, heads=2)


class TestBytes(BytesSuite):
    pass


class ByT5Suite(ConditionerSuite):
    @pytest.fixture(autouse=True)
    def _encoder(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """A small one, with weights of nobody's."""
        self.root = str(encoder(tmp_path_factory))

    def make(self, condition: Condition) -> Conditioner:
        return ByT5Conditioner(condition, root=self.root)


class TestByT5(ByT5Suite):
    pass


ROWS = {BytesConditioner: BytesSuite, ByT5Conditioner: ByT5Suite}


def test_every_conditioner_of_the_core_has_a_suite() -> None:
    own = [one for one in registry.registrations("conditioner") if one.distribution == CORE]
    assert {registry.load("conditioner", one.name) for one in own} == set(ROWS)


def test_odd_heads_are_refused_in_words_of_its_options() -> None:
    with pytest.raises(ValueError, match="hidden=6 heads=2: a head needs an even number of channels"):
        BytesConditioner(Condition("said", 4, text=True), hidden=6, heads=2)
