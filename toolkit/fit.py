"""How parts are proved to fit: by a fake example, which costs neither memory nor data."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from toolkit.errors import ToolkitError
from toolkit.spec import DataSpec


class MisfitError(ToolkitError):
    """Two parts that do not fit: which, with both numbers, and what to change."""


class BrokenPartError(MisfitError):
    """A part that does not keep its interface: which, of which package, and what it does instead."""

    def __init__(self, part: nn.Module, text: str) -> None:
        super().__init__(f"{title(part)} {text}{_home(part)}")


_LABELS: WeakKeyDictionary[nn.Module, tuple[str, str]] = WeakKeyDictionary()
"""Title and package of the parts that were made by name; not attributes, as those are the parts' own."""


def label(part: nn.Module, title: str, package: str = "") -> None:
    """Notes how a part is called in messages, and which package brings it, where that is not the core."""
    _LABELS[part] = title, package


def title(part: nn.Module) -> str:
    """How a part is called in a message: ``encoder=image_conv`` where it was made by name, else its class."""
    return _LABELS[part][0] if part in _LABELS else type(part).__name__


@contextmanager
def fakes(*parts: nn.Module) -> Iterator[None]:
    """Tensors without memory, in eval mode, without gradients and without torch's own log lines on a misfit."""
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
    """What a part raises on a fake example becomes a Misfit: which part, of whom, doing what, on which line."""
    try:
        yield
    except ToolkitError:
        raise
    except Exception as e:
        text = str(e).strip() or type(e).__name__
        raise MisfitError(f"{title(part)} {doing}: {text.splitlines()[0]}{_home(part, e)}") from e


def _home(part: nn.Module, error: Exception | None = None) -> str:
    """Who brings a part, and the last of its own lines that an error went through; nothing of the core's."""
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
    """Where a module's first tensor lies; the CPU where it has none."""
    first = next(chain(part.parameters(), part.buffers()), None)
    return torch.device("cpu") if first is None else first.device
