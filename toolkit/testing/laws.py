"""What all suites share: a failure names the broken law, and shows its numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import ToolkitError

BROKEN = "breaks the law:"


def _naming_law(test: Callable[..., None]) -> Callable[..., None]:
    """The test, with the law at the start of its AssertionError."""
    law = test.__name__.removeprefix("test_").replace("_", " ")

    @wraps(test)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        try:
            test(self, *args, **kwargs)
        except AssertionError as error:
            if BROKEN not in str(error):  # a law may be run by another test
                error.args = (f"{type(self).__name__} {BROKEN} {law}\n{error}".rstrip(),)
            raise

    return wrapped


class Laws:
    """A class of tests, each a law stated by its name."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, test in list(vars(cls).items()):
            if name.startswith("test_") and callable(test):
                setattr(cls, name, _naming_law(test))


class PartLaws(Laws, ABC):
    """Laws of every part that is a module. A kind's suite defines how to build and to run it."""

    @abstractmethod
    def part(self) -> Any:
        """A new part to check, in eval mode, the same at every call."""

    @abstractmethod
    def outcome(self, part: Any) -> tuple[Tensor, ...]:
        """Its output for the suite's data."""

    def test_a_seed_decides_the_initial_state(self) -> None:
        """Only torch's generator may decide it, so that a run can be repeated."""
        one, other = self.part().state_dict(), self.part().state_dict()
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            assert_same(tensor, other[name], f"{name} of two built after the same torch.manual_seed")

    def test_a_seed_decides_the_outcome(self) -> None:
        for training in (False, True):
            outcomes = [self._seeded(self.part().train(training)) for _ in range(2)]
            mode = "training" if training else "eval"
            for one, other in zip(*outcomes, strict=True):
                assert_same(one, other, f"two runs after the same torch.manual_seed, in {mode} mode,")

    def test_a_copy_does_the_same_and_shares_no_tensor(self) -> None:
        """deepcopy: averages of weights are kept in a copy."""
        part = self.part()
        copy = deepcopy(part)
        for one, other in zip(self._seeded(copy), self._seeded(part), strict=True):
            assert_same(one, other, "the outputs of the part and its copy")
        originals = {tensor.data_ptr() for tensor in part.state_dict().values() if tensor.numel()}
        for name, tensor in copy.state_dict().items():
            assert not tensor.numel() or tensor.data_ptr() not in originals, f"a copy shares {name} with the original"

    def test_the_step_alone_decides_what_it_changes(self) -> None:
        """Not how often ``at_step`` is called, nor with which steps before: a run may continue anywhere."""
        part, other = self.part(), self.part()
        if not hasattr(part, "at_step"):
            return
        for step in (0, 1, 7):
            part.at_step(step)
        other.at_step(7)
        other.at_step(7)
        for name, tensor in part.state_dict().items():
            assert_same(tensor, other.state_dict()[name], f"{name} after at_step(7)")
        for one, two in zip(self._seeded(part.train()), self._seeded(other.train()), strict=True):
            assert_same(one, two, "the outputs after at_step(7)")

    def _seeded(self, part: Any) -> tuple[Tensor, ...]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.outcome(part)


@contextmanager
def as_assertion() -> Iterator[None]:
    """A ToolkitError as the failure of a law."""
    try:
        yield
    except ToolkitError as error:
        raise AssertionError(str(error)) from error


def assert_same(actual: Tensor, expected: Tensor, what: str) -> None:
    """Bit for bit."""
    torch.testing.assert_close(actual, expected, atol=0, rtol=0, equal_nan=True, msg=lambda m: f"{what} differ: {m}")
