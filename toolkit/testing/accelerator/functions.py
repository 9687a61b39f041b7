"""Every function of torch, called on tensors that lie on the device: they say so, and are asked."""

from __future__ import annotations

from contextlib import nullcontext
from types import MethodWrapperType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.overrides import TorchFunctionMode

from toolkit.testing.accelerator.device import StandIn
from toolkit.testing.accelerator.places import CPU, pin, pinned, place, place_of_first, put

_to_copy = torch.ops.aten._to_copy.default

QUESTIONS = {
    *(Tensor.item, Tensor.tolist, Tensor.nonzero, Tensor.__bool__, Tensor.__int__, Tensor.__float__),
    *(Tensor.__index__, Tensor.__complex__, Tensor.__contains__, Tensor.__repr__, Tensor.__format__),
}
"""What the host needs an answer to; in inference mode no operation tells of it."""


class Functions(TorchFunctionMode):
    """The device's side of every call: answers where a tensor lies, moves it, and counts questions."""

    def __init__(self, device: StandIn) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if isinstance(first, Tensor) and func in _OF_TENSORS:
            return _OF_TENSORS[func](self.device, *args, **kwargs)
        if func in _OF_VALUES:
            return self._made(func, args, kwargs)
        if type(func) is MethodWrapperType:  # what a tensor says of itself
            return func(*args, **kwargs)
        at = None if kwargs.get("device") is not None else place_of_first((args, kwargs))
        if func is Tensor.__setitem__ and not isinstance(args[2], Tensor):
            at = None  # a number stays on the host, where it is read without a question
        if func is one_hot:
            return self._one_hot(at, *args, **kwargs)
        before, self.device.inferred = self.device.inferred, at
        try:
            with self.device.asks(func.__name__) if at is not None and func in QUESTIONS else nullcontext():
                return func(*args, **kwargs)
        finally:
            self.device.inferred = before

    def _one_hot(self, at: torch.device | None, tensor: Tensor, num_classes: int = -1) -> Tensor:
        """On a device it does not look whether the numbers are small enough."""
        with self.device.makes_on(at), self.device.asks("one_hot") if at and num_classes < 0 else nullcontext():
            if at is None or num_classes < 0:
                return one_hot(tensor, num_classes)
            zeros = tensor.new_zeros((*tensor.shape, num_classes))
            return zeros.scatter_(-1, tensor.unsqueeze(-1), 1)

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A tensor of Python's numbers: it is made on the CPU, and copied."""
        asked = kwargs.get("device")
        if asked is None:
            at = place_of_first(args) or CPU
            at = at if func is Tensor.new_tensor or isinstance(args[0], Tensor) else CPU
        else:
            at = self.device.named(asked)
        if at.type != self.device.kind:
            return func(*args, **kwargs)
        if isinstance(args[0], Tensor) and func is not Tensor.new_tensor:
            return _moved(self.device, args[0], at, kwargs.get("dtype"), copy=func is torch.tensor)
        grad = kwargs.pop("requires_grad", False)
        made = _to_copy(func(*args, **{**kwargs, "device": CPU}), device=at)
        return made.requires_grad_() if grad else made


def _to(device: StandIn, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``Tensor.to``, in each of its forms."""
    at, dtype, flags = kwargs.get("device"), kwargs.get("dtype"), list[bool]()
    for value in (*args, kwargs.get("other")):
        if isinstance(value, Tensor):
            at, dtype = place(value), value.dtype
        elif isinstance(value, torch.dtype):
            dtype = value
        elif isinstance(value, bool):
            flags.append(value)
        elif value is not None:
            at = value
    given = dict(zip(("non_blocking", "copy"), flags, strict=False)) | kwargs
    non_blocking, copy = bool(given.get("non_blocking")), bool(given.get("copy"))
    memory_format = kwargs.get("memory_format", torch.preserve_format)
    return _moved(device, tensor, at, dtype, non_blocking, copy, memory_format)


def _moved(
    device: StandIn,
    tensor: Tensor,
    to: Any,
    dtype: torch.dtype | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Tensor:
    """The tensor there, itself where that changes nothing; ``to`` None: where it is."""
    here = place(tensor)
    there = here if to is None else device.named(to)
    dtype = dtype or tensor.dtype
    if there == here:
        with device.makes_on(None if here is CPU else here):
            return tensor.to(dtype, copy=copy, memory_format=memory_format)
    moved: Tensor = _to_copy(tensor, dtype=dtype, device=there, non_blocking=non_blocking, memory_format=memory_format)
    return moved


def _pinned_copy(device: StandIn, tensor: Tensor, *args: Any) -> Tensor:
    if place(tensor) is not CPU:
        raise RuntimeError(f"cannot pin a tensor of {place(tensor)}: only dense CPU tensors can be pinned")
    if pinned(tensor):
        return tensor
    copy = tensor.clone()
    pin(copy)
    return copy


def _numpy(device: StandIn, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    if place(tensor) is not CPU:
        raise TypeError(
            f"can't convert {place(tensor)} device type tensor to numpy: use Tensor.cpu() to copy it to the host first"
        )
    return tensor.numpy(*args, **kwargs)


def _array(device: StandIn, tensor: Tensor, *args: Any) -> Any:
    if place(tensor) is not CPU:
        return _numpy(device, tensor)
    return tensor.__array__(*args)


def _deep_copy(device: StandIn, tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """It copies the storage itself, by no operation."""
    at = place(tensor)
    with device.makes_on(None if at is CPU else at):
        copy: Tensor = tensor.__deepcopy__(memo)
    put(copy, at)
    return copy


_OF_TENSORS: dict[Any, Any] = {
    Tensor.device.__get__: lambda device, tensor: _device(tensor),  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__: lambda device, tensor: _device(tensor).type == "cuda",  # type: ignore[attr-defined]
    Tensor.is_mps.__get__: lambda device, tensor: _device(tensor).type == "mps",  # type: ignore[attr-defined]
    Tensor.is_xpu.__get__: lambda device, tensor: _device(tensor).type == "xpu",  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: lambda device, tensor: _device(tensor).type == "cpu",  # type: ignore[attr-defined]
    Tensor.get_device: lambda device, tensor: -1 if place(tensor) is CPU else place(tensor).index,
    Tensor.to: _to,
    Tensor.type_as: _to,
    Tensor.cpu: lambda device, tensor, *args, **kwargs: _moved(device, tensor, CPU),
    Tensor.cuda: lambda device, tensor, to=None, non_blocking=False, **kwargs: _moved(
        device, tensor, device.named(kwargs.get("device", to)), non_blocking=non_blocking
    ),
    Tensor.pin_memory: _pinned_copy,
    Tensor.is_pinned: lambda device, tensor, *args: pinned(tensor),
    Tensor.record_stream: lambda device, tensor, stream: None,
    Tensor.numpy: _numpy,
    Tensor.__array__: _array,
    Tensor.__deepcopy__: _deep_copy,
}
_OF_VALUES = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


def _device(tensor: Tensor) -> torch.device:
    """With the modes off, what torch itself says of a tensor that is no stand-in's, such as a fake one."""
    at = place(tensor)
    return tensor.device if at is CPU else at
