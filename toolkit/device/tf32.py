"""TensorFloat-32: a GPU's matrix units round what they multiply, of float32 numbers, to 10 bits, where that is allowed.

torch allows it for convolutions by default. It has two interfaces for it. The older one, ``allow_tf32``, keeps both
right, whereas the older one raises once the newer one, ``fp32_precision``, has been set, which torch.compile does not
survive. So here the newer one is asked and the older one is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch


class _Allowed(NamedTuple):
    """Where TF32 is allowed."""

    products: bool
    convolutions: bool


def matmuls(device: torch.device) -> AbstractContextManager[None]:
    """Allows TF32 for matrix products and convolutions: for training, on a GPU."""
    return _allowing(_Allowed(True, True)) if device.type == "cuda" else nullcontext()


def exact(device: torch.device) -> AbstractContextManager[None]:
    """True float32 for all that defines codes or figures, whatever surrounds it.

    Not where the block is itself being compiled: a compiled graph cannot change it, and has to leave the block out.
    """
    if device.type != "cuda" or torch.compiler.is_compiling() or not any(_allowed()):
        return nullcontext()
    return _allowing(_Allowed(False, False))


def _allowed() -> _Allowed:
    return _Allowed(
        torch.backends.cuda.matmul.fp32_precision == "tf32", torch.backends.cudnn.conv.fp32_precision == "tf32"
    )


@contextmanager
def _allowing(wanted: _Allowed) -> Iterator[None]:
    before = _allowed()
    _set(before, wanted)
    try:
        yield
    finally:
        _set(wanted, before)


def _set(now: _Allowed, then: _Allowed) -> None:
    backends = torch.backends
    if now.products != then.products:
        backends.cuda.matmul.allow_tf32 = then.products
    if now.convolutions != then.convolutions:
        backends.cudnn.allow_tf32 = then.convolutions
        if _allowed().convolutions != then.convolutions:  # where ``torch.backends.fp32_precision`` is set for all
            backends.cudnn.conv.fp32_precision = "tf32" if then.convolutions else "ieee"
