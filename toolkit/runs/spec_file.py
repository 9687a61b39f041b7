"""``spec.json``: the shapes and labels of a run's data and codes, checked for what no data can have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite, prod
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

from toolkit import schema
from toolkit.errors import ToolkitError
from toolkit.runs.formats import FORMAT, current_spec
from toolkit.runs.plain import read_json
from toolkit.runs.signature import with_hash, without_hash
from toolkit.spec import CodeSpec, Condition, DataSpec, plain
from toolkit.writing import write_text

LARGEST_EXAMPLE = 1 << 26
"""Numbers, and codes, of an example: 256 MiB in float32."""

Record = TypeVar("Record")


def write(path: Path, data: DataSpec, code_spec: CodeSpec) -> None:
    """Writes data and codes, unless they are there as they were written."""
    if damage(path):
        values = with_hash({"format": FORMAT, "data": plain(data), "codes": _plain_codes(code_spec)})
        write_text(path, json.dumps(values, indent=1))


def _plain_codes(code_spec: CodeSpec) -> dict[str, Any]:
    values = asdict(code_spec)
    if not code_spec.parts:
        del values["parts"]  # likewise
    return values


def damage(path: Path) -> str:
    """Why the file is not what was written, or is not there; training writes it again. Empty: it is whole."""
    try:
        without_hash(read_json(path))
    except (OSError, ValueError) as e:
        return str(e)
    return ""


def read(path: Path) -> tuple[DataSpec, CodeSpec]:
    """Data and codes. ToolkitError where the file is missing or invalid."""
    try:
        written = current_spec(without_hash(read_json(path)), path)
        conditions = [_record(Condition, condition) for condition in written["data"].pop("conditions")]
        data = _record(DataSpec, {**written["data"], "conditions": ()}, conditions=tuple(conditions))
        code_spec = _record(CodeSpec, written["codes"])
        check(data, code_spec)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        again = f"\ntoolkit train run={quote(str(path.parent))} writes it again" if damage(path) else ""
        raise ToolkitError(f"{path} cannot be read: {e}{again}") from e
    return data, code_spec


def check_codes(built: CodeSpec, data: DataSpec, code_spec: CodeSpec, below: CodeSpec | None, run: Path) -> None:
    """ToolkitError where the codes that a run's parts give, or those of its base ``below``, are not in its file."""
    if built != code_spec:
        raise ToolkitError(f"{run} says its codes are {code_spec}; its parts give {built}")
    if below is not None and (data.shape, {data.levels}) != (below.shape, set(below.codebook_sizes)):
        raise ToolkitError(
            f"{run} is over codes {data.shape} of {data.levels} entries; those of its base are {below.shape} of"
            f" {below.codebook_sizes}"
        )


def _record(cls: type[Record], saved: Mapping[str, Any], **given: Any) -> Record:
    """A dataclass of plain numbers from JSON; ValueError where a value has another type."""
    types = {option.name: option for option in schema.fields(cls) if option.name not in given}
    values = {name: schema.convert(types[name].type, saved[name]) for name in saved if name not in given}
    return cls(**values, **given)


def check(data: DataSpec, code_spec: CodeSpec) -> None:
    """ValueError for numbers that no data can have."""
    counts = (data.channels, *data.axes, *code_spec.grid, *code_spec.codebook_sizes)
    sizes = [n for c in data.conditions for n in (c.size, c.stride)]
    if min(*counts, *sizes, 1 if data.levels is None else data.levels) < 1 or not data.axes:
        raise ValueError("a size is below 1")
    if max(data.dims, prod(code_spec.shape), *code_spec.codebook_sizes, *sizes, data.levels or 1) > LARGEST_EXAMPLE:
        raise ValueError(f"a size is above {LARGEST_EXAMPLE}")
    aligned = code_spec.parts or len(code_spec.grid) == data.rank
    if not aligned or not {len(data.varying), len(data.rates)} <= {0, data.rank}:
        raise ValueError(f"{data.rank} axes do not match a grid of {code_spec.grid}, or the other values per axis")
    if not all(isfinite(number) for number in (data.variance or 0.0, *(rate or 0.0 for rate in data.rates))):
        raise ValueError("a number is not finite")
    if any(c.labels and len(c.labels) != c.size for c in data.conditions):
        raise ValueError("a condition has more or fewer labels than its size")
