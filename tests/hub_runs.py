"""Names and words of the tests of the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import toolkit
from toolkit.errors import ToolkitError

NAME = "hub:ann/tiles"


def codes(run: str | Path) -> torch.Tensor:
    return toolkit.load(run, "cpu").sample(4, seed=3).codes


def refusal(word: str) -> str:
    with pytest.raises(ToolkitError) as caught:
        toolkit.load(word)
    assert "\n" not in str(caught.value).strip(), caught.value
    return str(caught.value)
