"""Tensors that are computed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

Given = ParamSpec("Given")


def constant(compute: Callable[Given, Tensor]) -> Callable[Given, Tensor]:
    """``functools.cache`` for functions that return tensors, which are real ones also in a pass on fake tensors.

    Such a pass fits parts, or tells what a step takes. A fake one, kept and used later beside real ones, would make
    results of zeros without a word.
    """
    kept = cache(compute)

    @wraps(compute)
    def known(*args: Given.args, **options: Given.kwargs) -> Tensor:
        if torch.compiler.is_compiling():
            return kept(*args, **options)  # type: ignore[arg-type]
        with unset_fake_temporarily():
            return kept(*args, **options)  # type: ignore[arg-type]

    return known
