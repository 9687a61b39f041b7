"""What was proved of parts in this process, so that parts built again from the same options are not proved again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import FunctionType, MethodType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

Given = TypeVar("Given")

MOST = 512
"""Proofs that are remembered; a process that builds more models proves them again."""

_PROVED: dict[Hashable, Any] = {}
_SOURCES: WeakKeyDictionary[nn.Module, Hashable] = WeakKeyDictionary()
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def proved(what: Hashable, parts: tuple[nn.Module, ...], prove: Callable[[], Given]) -> Given:
    """What ``prove`` gives, or gave for parts of the same sources; what it raises is not remembered.

    ``what`` is all that the proof depends on besides the parts, its own name among it. Parts that were not built by
    name are proved every time.
    """
    sources = tuple(_source(part) for part in parts)
    if None in sources:
        return prove()
    key = (what, sources, torch.get_default_dtype())
    try:
        known = key in _PROVED
    except TypeError:  # a part, or the data, has what cannot be compared
        return prove()
    if not known:
        if len(_PROVED) >= MOST:
            _PROVED.clear()
        _PROVED[key] = prove()
    given: Given = _PROVED[key]
    return given


def built_from(part: nn.Module, name: str, options: Mapping[str, Any], offered: Mapping[str, Any]) -> None:
    """Records what a part was built from: its name with its kind, the options as chosen, and what it was offered."""
    values = {key: _source(value) if isinstance(value, nn.Module) else value for key, value in offered.items()}
    _SOURCES[part] = name, repr(options), tuple(values.items())


def _source(part: nn.Module) -> Any:
    """All that decides what a part does with shapes, the code and the attributes that it has now included; hashable.

    None where it was not built by name.
    """
    if part not in _SOURCES:
        return None
    modules = list(part.modules())
    classes = {cls for module in modules for cls in type(module).__mro__ if issubclass(cls, nn.Module)}
    ours = [cls for cls in classes if not cls.__module__.startswith("torch.")]
    code = frozenset((cls, tuple(_state(vars(cls)))) for cls in ours)
    return _SOURCES[part], code, tuple((type(module), *_state(vars(module)), *_tensors(module)) for module in modules)


def _state(attributes: Mapping[str, Any]) -> list[Any]:
    return [(name, _plain(value)) for name, value in attributes.items() if name not in _OF_EVERY_MODULE]


def _plain(value: Any) -> Any:
    """A number or text by its value, a function by its code, anything else by its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return type(value), value
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    return value.__code__ if isinstance(value, FunctionType | MethodType) else type(value)


def _tensors(module: nn.Module) -> list[Any]:
    """Names, shapes, types and devices of what a module itself has."""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [(name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in own]
