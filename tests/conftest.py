from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

torch.set_num_threads(1)

LONGEST = (
    "tests/test_hostile_runs.py",
    "tests/test_docs.py",
    "tests/test_resume.py",
    "tests/test_train.py",
    "tests/test_causal.py",
    "tests/test_quantizers.py",
)
"""Files whose tests start first, so that of several processes none is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.numel = max(self.numel, made.numel())
        return made


@pytest.fixture
def largest() -> Largest:
    """``with largest:`` notes, in ``largest.numel``, the largest tensor that was made."""
    return Largest()
