"""How parts are checked to fit: by a fake example, which needs neither memory nor data."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)

from toolkit.errors import ToolkitError
from toolkit.spec import DataSpec


class MisfitError(ToolkitError):
    """Two parts do not fit; the message has both, with their sizes, and what to change."""


class BrokenPartError(MisfitError):
    """A part violates its interface; the message has the part, its package, and what it does instead."""

    def __init__(self, part: nn.Module, text: str) -> None:
        super().__init__(f"{title(part)} {text}{_home(part)}")


_LABELS: WeakKeyDictionary[nn.Module, tuple[str, str]] = WeakKeyDictionary()
"""Title and package of parts built by name; not attributes, since those belong to the parts."""


def label(part: nn.Module, title: str, package: str = "") -> None:
    """Records what messages call a part, and its package where that is not the core."""
    _LABELS[part] = title, package


def title(part: nn.Module) -> str:
    """What messages call a part: ``encoder=image_conv`` where it was built by name, else its class."""
    return _LABELS[part][0] if part in _LABELS else type(part).__name__


@contextmanager
def fakes(*parts: nn.Module) -> Iterator[None]:
    """Fake tensors, eval mode, no gradients, and no log lines of torch's own when a part fails."""
    training = [(module, module.training) for part in parts for module in part.modules()]
    log = logging.getLogger("torch._subclasses.fake_tensor")
    silent, log.disabled = log.disabled, True
    for part in parts:
        part.eval()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        log.disabled = silent
        for module, was in training:
            module.training = was


@contextmanager
def as_misfit(part: nn.Module, doing: str) -> Iterator[None]:
    """Turns what a part raises into a MisfitError that names the part, its package, and the failing line."""
    try:
        yield
    except ToolkitError:
        raise
    except Exception as e:
        text = str(e).strip() or type(e).__name__
        raise MisfitError(f"{title(part)} {doing}: {text.splitlines()[0]}{_home(part, e)}") from e


@contextmanager
def where_provable(part: nn.Module, doing: str) -> Iterator[None]:
    """The same, but for what fake tensors cannot show, as it depends on values, or is not offered: it passes."""
    try:
        with as_misfit(part, doing):
            yield
    except MisfitError as error:
        if not isinstance(error.__cause__, _BY_VALUE):
            raise


_BY_VALUE = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    NotImplementedError,
    UnsupportedFakeTensorException,
)


def check_returned(part: nn.Module, what: str, value: Any, shape: tuple[int, ...], per: str = "") -> None:
    """BrokenPartError unless a part's result is floats of this shape; ``per`` says what the shape stands for."""
    if not isinstance(value, Tensor):
        raise BrokenPartError(part, f"gives {type(value).__name__} as {what}, not a tensor")
    if tuple(value.shape) != shape:
        raise BrokenPartError(part, f"gives {what} of shape {tuple(value.shape)}, not {shape}{per and f': {per}'}")
    if not value.is_floating_point():
        raise BrokenPartError(part, f"gives {what} of type {value.dtype}, not floats")


def check_numbers(part: nn.Module, what: str, values: Any) -> None:
    """BrokenPartError unless it is a dict of 0-d tensors."""
    if not isinstance(values, Mapping):
        raise BrokenPartError(part, f"gives {type(values).__name__} as {what}, not a dict of 0-d tensors")
    for name, value in values.items():
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if shape != ():
            raise BrokenPartError(part, f"gives {what} with {name} of shape {shape}, not a 0-d tensor")


def check_declared(part: nn.Module, kind: str, attributes: Mapping[str, str]) -> None:
    """BrokenPartError unless a part has positive ints of these names; they come with their meanings."""
    for name, meaning in attributes.items():
        try:
            value = getattr(part, name)
        except AttributeError:
            raise BrokenPartError(part, f"has no {name}: a {kind} must set {name}, {meaning}") from None
        if type(value) is not int or value < 1:
            raise BrokenPartError(part, f"has {name}={value!r}: a {kind} must set {name}, {meaning}, as a positive int")


def _home(part: nn.Module, error: Exception | None = None) -> str:
    """A part's package, file, and the last of its lines in a traceback; empty for the core's parts."""
    _, package = _LABELS.get(part, ("", ""))
    if not package:
        return ""
    file = getattr(sys.modules.get(type(part).__module__), "__file__", None) or ""
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f" ({package}, {file}{f':{lines[-1]}' if lines else ''})"


def example(data: DataSpec, part: nn.Module) -> Tensor:
    """Two examples of the data, on the part's device."""
    dtype = torch.get_default_dtype() if data.levels is None else torch.long
    return torch.zeros(2, *data.shape, dtype=dtype, device=device_of(part))


def device_of(part: nn.Module) -> torch.device:
    """The device of a module's first tensor; the CPU where it has none."""
    first = next(chain(part.parameters(), part.buffers()), None)
    return torch.device("cpu") if first is None else first.device
