"""Arrays that lie in several files as one, without being copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Joined:
    """Arrays ``(rows, …)`` one after the other, as one; all but the last have equally many rows.

    It is read as an array is, by a row, by a stretch of rows or by an array of their numbers, and a copy of what is
    asked for comes back.
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self._arrays, self._rows = arrays, len(arrays[0])
        self.shape: tuple[int, ...] = (sum(map(len, arrays)), *arrays[0].shape[1:])
        self.dtype = arrays[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(key, slice):
            return self[np.arange(*key.indices(len(self)))]
        numbers, rows = np.divmod(np.asarray(key), self._rows)
        if not numbers.ndim:
            row: np.ndarray = self._arrays[int(numbers)][int(rows)]
            return row
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for number in np.unique(numbers):
            chosen = numbers == number
            values[chosen] = self._arrays[number][rows[chosen]]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self._arrays).astype(dtype or self.dtype, copy=False)


def join(files: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray | Joined]:
    """The arrays of several files by name, as one each."""
    if len(files) == 1:
        return dict(files[0])
    return {name: Joined([arrays[name] for arrays in files]) for name in files[0]}
