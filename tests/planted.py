"""Planted faults: a suite is shown a part that is broken in a known way, and must name the law that it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.likelihood import Distribution
from toolkit.testing.laws import BROKEN, Laws

FIELD = "the context is the receptive field"
CHUNKED = "chunks with context give the whole"
"""Laws of the context of encoders and decoders."""


def assert_catches(sound: Laws, broken: Laws, law: str, **words: Any) -> None:
    """The law, as a suite's test, holds of the sound part and fails of the broken one."""
    law = law.replace(" ", "_")
    _checked(sound, law, **words)
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        _checked(broken, law, **words)
    if caught.type is AssertionError:
        name = type(broken).__name__
        assert str(caught.value).startswith(f"{name} {BROKEN} {law.replace('_', ' ')}\n"), caught.value


def _checked(suite: Laws, law: str, **words: Any) -> None:
    try:
        getattr(suite, f"test_{law}")(**words)
    except pytest.skip.Exception as skipped:
        raise RuntimeError(f"{law}: it skips: {skipped}") from skipped


class Delegating(Distribution):
    """A distribution to be broken."""

    def __init__(self, inner: Distribution) -> None:
        self.inner, self.shape = inner, inner.shape

    @property
    def mean(self) -> Tensor | None:
        return self.inner.mean

    def log_prob(self, x: Tensor) -> Tensor:
        return self.inner.log_prob(x)

    def log_prob_by_position(self, x: Tensor) -> Tensor:
        return self.inner.log_prob_by_position(x)

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        return self.inner.sample(generator, temperature, progress)


class Overconfident(Delegating):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + 0.01
