"""An example from the bytes of its members."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.dataset import Dataset
from toolkit.datasets.tars.layout import Index
from toolkit.datasets.tars.members import members, split_key
from toolkit.datasets.tars.tensors import ARRAY, from_member


class Rows:
    """Reads the examples of packed shards, ``files`` being the class that reads x where that is no array."""

    def __init__(self, index: Index, files: type[Dataset] | None) -> None:
        self.index, self.files = index, files

    def example(self, content: bytes, key: str | None = None) -> dict[str, Tensor]:
        """``{"x": …, condition: …}``; ValueError where the bytes are none, or of an example of another key."""
        found: dict[str, bytes] = {}
        for name, data in members(content):
            own, rest = split_key(name)
            if key is not None and own != key:
                raise ValueError(f"example {own} is where {key} should be")
            found[rest] = data
        row = {}
        for name, (member, dtype) in self.index.members.items():
            if member not in found:
                raise ValueError(f"it has no {member}")
            row[name] = self._tensor(member, found[member], dtype)
        if tuple(row["x"].shape) != self.index.spec.shape:
            raise ValueError(f"x is {tuple(row['x'].shape)}, the index says {self.index.spec.shape}")
        return row

    def drawn(self, content: bytes, generator: torch.Generator | None) -> dict[str, Tensor]:
        """The same; nothing is random in it."""
        return self.example(content)

    def _tensor(self, member: str, content: bytes, dtype: str) -> Tensor:
        if self.files is None or not member.startswith("x.") or member.endswith(f".{ARRAY}"):
            return from_member(member, content, dtype)
        x = self.files.read_bytes(content, member, self.index.spec)
        return x if _name(x.dtype) == dtype else x.to(getattr(torch, dtype))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
