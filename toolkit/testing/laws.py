"""What all suites share: a failure says which law is broken, and by which numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from functools import wraps
from typing import Any

import torch
from torch import Tensor

BROKEN = "breaks the law:"


def _told(test: Callable[..., None]) -> Callable[..., None]:
    """The test; its AssertionError begins with the law."""
    law = test.__name__.removeprefix("test_").replace("_", " ")

    @wraps(test)
    def told(self: Any, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        try:
            test(self, *args, **kwargs)
        except AssertionError as error:
            if BROKEN not in str(error):  # a law may have been asked for by another
                error.args = (f"{type(self).__name__} {BROKEN} {law}\n{error}".rstrip(),)
            raise

    return told


class Laws:
    """A class of tests, each a law whose sentence is the test's name."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, test in list(vars(cls).items()):
            if name.startswith("test_") and callable(test):
                setattr(cls, name, _told(test))


class PartLaws(Laws, ABC):
    """Laws of every part that is a module, whatever it does. A kind's suite says how to get one and to run it."""

    @abstractmethod
    def part(self) -> Any:
        """One to check, made anew, in eval mode, and the same from call to call."""

    @abstractmethod
    def outcome(self, part: Any) -> tuple[Tensor, ...]:
        """What it makes of the suite's data."""

    def test_a_seed_says_what_it_begins_with(self) -> None:
        """Nothing but torch's generator does: a run that is started again starts the same."""
        one, other = self.part().state_dict(), self.part().state_dict()
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            assert_same(tensor, other[name], f"{name} of two that were made after the same torch.manual_seed")

    def test_a_seed_says_what_it_does(self) -> None:
        for training in (False, True):
            made = [self._seeded(self.part().train(training)) for _ in range(2)]
            mode = "training" if training else "eval"
            for one, other in zip(*made, strict=True):
                assert_same(one, other, f"two runs after the same torch.manual_seed, in {mode} mode,")

    def test_a_copy_is_one_of_its_own(self) -> None:
        """deepcopy gives what does the same, and shares no tensor: averages of weights are kept in one."""
        part = self.part()
        copy = deepcopy(part)
        for one, other in zip(self._seeded(copy), self._seeded(part), strict=True):
            assert_same(one, other, "what the part and its copy make")
        theirs = {tensor.data_ptr() for tensor in part.state_dict().values() if tensor.numel()}
        for name, tensor in copy.state_dict().items():
            assert not tensor.numel() or tensor.data_ptr() not in theirs, f"{name} of a copy is the original's"

    def _seeded(self, part: Any) -> tuple[Tensor, ...]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.outcome(part)


def assert_same(made: Tensor, expected: Tensor, what: str) -> None:
    """Bit for bit."""
    torch.testing.assert_close(made, expected, atol=0, rtol=0, equal_nan=True, msg=lambda m: f"{what} differ: {m}")
