"""What is given to a model in Python, checked against what its data, codes and conditions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from toolkit import labels
from toolkit.errors import ToolkitError
from toolkit.registry import did_you_mean
from toolkit.spec import CodeSpec, DataSpec

Given: TypeAlias = Tensor | str | Sequence[str]
"""A condition of some examples: a tensor with a value for each, its labels as the commands take them, or texts."""


def described(data: DataSpec, codes: CodeSpec) -> str:
    """Data, codes and rate in a line."""
    of = "floats in [-1, 1]" if data.levels is None else f"{data.levels} levels"
    sizes = ", ".join(map(str, dict.fromkeys(codes.codebook_sizes)))
    coded = f"codes {codes.shape} of {sizes} entries, {codes.rate:g} bits per example" if sizes else "no codes"
    return f"data {data.shape} of {of}; {coded}"


def check_data(x: Tensor, spec: DataSpec) -> None:
    """ValueError where x is no batch ``(n, channels, *axes)`` in the data's own form; its axes may be other ones."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x is a {type(x).__name__}: a tensor (n, *{spec.shape}) is needed")
    if x.dim() != 1 + len(spec.shape) or x.shape[1] != spec.channels or not x.numel():
        raise ValueError(f"x of shape {tuple(x.shape)}: a batch (n, *{spec.shape}) is needed")
    if x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"x of {_name(x)}: {_form(spec)} are needed")
    if spec.levels is None:
        _check_values(x, spec)
    else:
        _check_levels(x, spec, spec.levels)


def as_given(x: Tensor, spec: DataSpec) -> Tensor:
    """Checked data as parts take it: levels as ``int64``."""
    return x if spec.levels is None else x.long()


def codes_of(codes: Tensor, spec: CodeSpec) -> Tensor:
    """Codes ``(n, depth or fewer, *grid)`` of any integer type as ``int64``.

    ValueError for other types and shapes, and for codes that are no entries.
    """
    wanted = f"integers (n, *{spec.shape}), {_ranges(spec)}"
    if not isinstance(codes, Tensor):
        raise ValueError(f"codes are a {type(codes).__name__}: this run's are a tensor of {wanted}")
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise ValueError(f"codes of {_name(codes)}: this run's are {wanted}")
    if codes.dim() != 2 + len(spec.grid) or not 0 < codes.shape[1] <= spec.depth or not codes.numel():
        raise ValueError(f"codes of shape {tuple(codes.shape)}: this run's are {wanted}")
    if spec.parts and tuple(codes.shape[2:]) != spec.grid:
        raise ValueError(f"codes on {tuple(codes.shape[2:])}: this run's lie on {spec.parts}, flat")
    codes = codes.long()
    for depth, size in enumerate(spec.codebook_sizes[: codes.shape[1]]):
        low, high = int(codes[:, depth].min()), int(codes[:, depth].max())
        if low < 0 or high >= size:
            raise ValueError(f"codes at depth {depth} range over {low}..{high}: this run's are 0..{size - 1}")
    return codes


def known_conditions(
    given: Mapping[str, Given], spec: DataSpec, seen: set[str], n: int, length: int | None = None
) -> dict[str, Tensor]:
    """Conditions of n examples; those given as a string are read as the commands read them, see ``toolkit.labels``.

    ToolkitError for an unknown condition or label, for too few or too many labels or steps, and for one by label that
    nothing of ``seen`` sees.
    """
    length = spec.axes[0] if length is None else length
    known = {condition.name: condition for condition in spec.conditions}
    conditions = {}
    for name, value in given.items():
        if name not in known:
            have = ", ".join(known) or "none"
            raise ToolkitError(f"condition.{name}: no such condition{did_you_mean(name, known)} (this run's: {have})")
        if isinstance(value, Tensor):
            known[name].check_steps(value, length)
            conditions[name] = value
            continue
        listed = known[name].text and isinstance(value, list | tuple)
        if not isinstance(value, str) and not listed:
            raise ToolkitError(f"condition.{name}={value!r}: give its label as text, or a tensor with one per example")
        if name not in seen:
            raise ToolkitError(
                f"condition.{name}: nothing here was trained to see it; train with conditions.prior=[{name}] or"
                f" conditions.decoder=[{name}]"
            )
        conditions[name] = (
            labels.values(known[name], value, n, length)
            if isinstance(value, str)
            else labels.texts(known[name], value, n)
        )
    return conditions


def _check_values(x: Tensor, spec: DataSpec) -> None:
    if not x.is_floating_point():
        raise ValueError(f"x of {_name(x)}: {_form(spec)} are needed")
    low, high = _range(x)
    if not (low >= -SLACK and high <= SLACK):
        raise ValueError(f"x ranges over {low:g}..{high:g}: {_form(spec)} are needed")


SLACK = 1.5
"""How far from 0 data without levels may be: rounding and filters go beyond 1, another scale goes much further."""


def _check_levels(x: Tensor, spec: DataSpec, levels: int) -> None:
    low, high = _range(x)
    if x.is_floating_point() and not (x == x.round()).all():
        scaled = f" these look scaled to [{'-1' if low < 0 else '0'}, 1]:" if low >= -1 and high <= 1 else ""
        raise ValueError(
            f"x of {_name(x)} ranges over {low:g}..{high:g}, not in whole numbers:{scaled} {_form(spec)} are needed"
        )
    if low < 0 or high >= levels:
        raise ValueError(f"x ranges over {low:g}..{high:g}: {_form(spec)} are needed")


def _range(x: Tensor) -> tuple[float, float]:
    """Its least and largest value, NaN where it has one."""
    values = x.detach()
    return float(values.min()), float(values.max())


def _form(spec: DataSpec) -> str:
    """What the data is."""
    return "floats in [-1, 1]" if spec.levels is None else f"levels, integers 0..{spec.levels - 1},"


def _ranges(spec: CodeSpec) -> str:
    sizes = dict.fromkeys(spec.codebook_sizes)
    return (
        f"0..{next(iter(sizes)) - 1}"
        if len(sizes) == 1
        else f"below {', '.join(map(str, spec.codebook_sizes))} by depth"
    )


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
