"""TensorFloat-32: a GPU's matrix units round what they multiply, of float32 numbers, to 10 bits, where that is allowed.

torch allows it for convolutions by default. It has two interfaces for it. The older one, ``allow_tf32``, keeps both
right, whereas the older one raises once the newer one, ``fp32_precision``, has been set, which torch.compile does not
survive. So here the newer one is asked and the older one is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

_cudnn: Any = torch.backends.cudnn  # whose attributes are set when it is imported


class _Allowed(NamedTuple):
    """Where TF32 is allowed."""

    products: bool
    convolutions: bool


def matmuls(device: torch.device, products: bool = True) -> AbstractContextManager[None]:
    """Allows TF32 for matrix products, if so wanted, and convolutions: for training, on a GPU.

    Not for the products of a compiled step, in which nothing can be excepted from it.
    """
    return _allowing(_Allowed(products, True)) if has_tf32(device) else nullcontext()


def has_tf32(device: torch.device) -> bool:
    return device.type == "cuda"


def exact(device: torch.device) -> AbstractContextManager[None]:
    """True float32 for all that defines codes or figures, whatever surrounds it.

    A compiled graph cannot change what is allowed; ``matmuls`` is told of it.
    """
    if not has_tf32(device) or torch.compiler.is_compiling() or not any(_allowed()):
        return nullcontext()
    return _allowing(_Allowed(False, False))


def in_float32(device: torch.device) -> AbstractContextManager[object]:
    """``exact``, and out of autocast: for tables, norms, and what is found by comparing numbers."""
    plain, true = torch.autocast(device.type, enabled=False), exact(device)
    return plain if isinstance(true, nullcontext) else _both(plain, true)


def _allowed() -> _Allowed:
    return _Allowed(torch.backends.cuda.matmul.fp32_precision == "tf32", _cudnn.conv.fp32_precision == "tf32")


@contextmanager
def _both(one: AbstractContextManager[object], other: AbstractContextManager[object]) -> Iterator[None]:
    with one, other:
        yield


@contextmanager
def _allowing(wanted: _Allowed) -> Iterator[None]:
    before = _allowed()
    _set(before, wanted)
    try:
        yield
    finally:
        _set(wanted, before)


def _set(now: _Allowed, then: _Allowed) -> None:
    if now.products != then.products:
        torch.backends.cuda.matmul.allow_tf32 = then.products
    if now.convolutions != then.convolutions:
        _cudnn.allow_tf32 = then.convolutions
        if _allowed().convolutions != then.convolutions:  # where ``torch.backends.fp32_precision`` is set for all
            _cudnn.conv.fp32_precision = "tf32" if then.convolutions else "ieee"
