"""``index.json`` and ``SPLIT.npy`` beside shards: what is in them, and where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from io import BytesIO
from math import isfinite
from typing import Any, NamedTuple, TypeVar

import numpy as np

from toolkit.dataset import SPLITS
from toolkit.datasets.tars.store import Store
from toolkit.errors import ToolkitError
from toolkit.spec import Condition, DataSpec, plain

NAME = "index.json"
FORMAT = 1
"""Of the index. One that is written otherwise has a higher number."""
LARGEST = 1 << 26
"""Numbers of an example."""

Record = TypeVar("Record", Condition, DataSpec)


class Shard(NamedTuple):
    """A tar file."""

    name: str
    size: int
    """In bytes."""
    examples: int


@dataclass(frozen=True)
class Index:
    """What shards hold.

    ``files``: the dataset whose files x is kept as, or whose data it is; empty: none. ``members``: by tensor the name
    of its member, behind the key, and its NumPy type.
    """

    spec: DataSpec
    files: str
    members: Mapping[str, tuple[str, str]]
    shards: Mapping[str, tuple[Shard, ...]]
    """By split."""

    def size(self, split: str) -> int:
        return sum(shard.examples for shard in self.shards.get(split, ()))

    def text(self) -> str:
        values = {
            "format": FORMAT,
            "spec": plain(self.spec),
            "files": self.files,
            "members": self.members,
            "shards": {split: [list(shard) for shard in shards] for split, shards in self.shards.items()},
        }
        return json.dumps({**values, "sha256": _digest(values)}, indent=1)


def places_name(split: str) -> str:
    """The file with the places of a split's examples: int64 ``(examples, 3)``, of each its shard, the first byte there
    and how many bytes it takes."""
    return f"{split}.npy"


def read_index(store: Store) -> Index | None:
    """The index of a folder of shards; None where there is none. ToolkitError where it is damaged or cannot be read."""
    try:
        values = json.loads(store.read(NAME))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as e:
        raise ToolkitError(f"{store.path(NAME)} cannot be read: {e}") from e
    try:
        return _index(values)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ToolkitError(f"{store.path(NAME)} is no index of shards, or is damaged: {e}") from e


def read_places(store: Store, index: Index, split: str) -> np.ndarray:
    """The places of a split's examples. ToolkitError where they are not those of the index."""
    path = store.path(places_name(split))
    try:
        places: np.ndarray = np.load(BytesIO(store.read(places_name(split))), allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise ToolkitError(f"{path} cannot be read: {e}") from e
    shards = index.shards[split]
    if places.shape != (index.size(split), 3) or places.dtype != np.int64:
        raise ToolkitError(f"{path} is damaged: it holds {places.dtype} {places.shape}, not {index.size(split)} places")
    if len(places):
        sizes = np.array([shard.size for shard in shards])
        if places.min() < 0 or places[:, 0].max() >= len(shards):
            raise ToolkitError(f"{path} is damaged: a place is in none of the {len(shards)} shards")
        if (places[:, 1] + places[:, 2] > sizes[places[:, 0]]).any():
            raise ToolkitError(f"{path} is damaged: a place is behind the end of its shard")
    return places


def _index(values: Any) -> Index:
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']} is not {FORMAT}: a newer toolkit wrote it")
    if values.pop("sha256") != _digest(values):
        raise ValueError("it is not what was written")
    conditions = tuple(_record(Condition, condition) for condition in values["spec"].pop("conditions"))
    spec = _record(DataSpec, {**values["spec"], "conditions": conditions})
    _check(spec)
    members = {str(name): (str(member), np.dtype(dtype).name) for name, (member, dtype) in values["members"].items()}
    shards = {
        split: tuple(Shard(_plain(name), int(size), int(examples)) for name, size, examples in rows)
        for split, rows in values["shards"].items()
        if split in SPLITS
    }
    if set(members) != {"x", *(condition.name for condition in spec.conditions)}:
        raise ValueError(f"its members are {', '.join(members)}")
    return Index(spec, str(values["files"]), members, shards)


def _plain(name: Any) -> str:
    """A file's name; ValueError where it leads out of the folder."""
    if not isinstance(name, str) or "/" in name or "\\" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no name of a shard")
    return name


def _record(cls: type[Record], values: Mapping[str, Any]) -> Record:
    known = {field.name for field in fields(cls)}
    return cls(**{name: _tuples(value) for name, value in values.items() if name in known})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check(spec: DataSpec) -> None:
    """ValueError for numbers that no data can have."""
    counts = (spec.channels, *spec.axes, *(n for c in spec.conditions for n in (c.size, c.stride)))
    if not spec.axes or not all(isinstance(n, int) and 0 < n <= LARGEST for n in counts) or spec.dims > LARGEST:
        raise ValueError("a size is below 1, or too large")
    if spec.levels is not None and not (isinstance(spec.levels, int) and 1 <= spec.levels <= LARGEST):
        raise ValueError(f"levels are {spec.levels}")
    if not all(isfinite(number or 0.0) for number in (spec.variance, *spec.rates)):
        raise ValueError("a number is not finite")


def _digest(values: Mapping[str, Any]) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
