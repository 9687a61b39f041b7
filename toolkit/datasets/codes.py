"""The codes of a finished run as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import Tensor

from toolkit.dataset import Dataset, SourceFile
from toolkit.lengths.known import lengths_of
from toolkit.spec import CodeSpec, DataSpec


class Source(Protocol):
    """What the dataset needs of an opened run."""

    spec: DataSpec
    code_spec: CodeSpec

    @property
    def dataset(self) -> Dataset: ...

    @property
    def files(self) -> type[Dataset]: ...

    def encode(self, x: Tensor) -> Tensor: ...

    def quantize(self, x: Tensor) -> Tensor: ...

    def decode(self, codes: Tensor, conditions: Mapping[str, Tensor] | None = None) -> Tensor: ...


@final
class CodesDataset(Dataset):
    """The codes of another run's dataset by its encoder and quantizer, ``x`` ``(depth, *grid)``.

    The levels have no order: networks embed them. Conditions are the other run's. Splits are those of its dataset,
    which must be on disk; examples are not random. Files are of the other run's data: codes are decoded before they are
    written or plotted.

    Args:
        run: the other run's folder.
    """

    path_options = ("run",)

    def __init__(self, source: Source, *, run: str) -> None:
        code_spec = source.code_spec
        if not code_spec.depth:
            raise ValueError(f"run={run}: this run has no codes: its bottleneck is continuous")
        if len(set(code_spec.codebook_sizes)) > 1:
            raise ValueError(
                f"run={run}: its codebooks have {code_spec.codebook_sizes} entries; as data they must have equal sizes"
            )
        if code_spec.parts:
            raise ValueError(
                f"run={run}: its codes lie flat, in parts of {code_spec.parts}; as data they must lie along its data"
            )
        self.source, self.suffix = source, source.files.suffix  # type: ignore[misc]
        data = source.spec
        shares = [size / axis for size, axis in zip(code_spec.grid, data.axes, strict=True)]
        rates = tuple(None if rate is None else rate * share for rate, share in zip(data.rates, shares, strict=False))
        self.spec = DataSpec(
            code_spec.depth,
            code_spec.grid,
            levels=code_spec.codebook_sizes[0],
            ordered=False,
            rates=rates,
            conditions=tuple(condition.resample(data.axes[0], code_spec.grid[0]) for condition in data.conditions),
        )

    def size(self, split: str) -> int:
        return self.source.dataset.size(split)

    def lengths(self, split: str) -> Sequence[int] | None:
        lengths, whole = lengths_of(self.source.dataset, split), self.source.spec.axes[0]
        return None if lengths is None else [length * self.spec.axes[0] // whole for length in lengths]

    @property
    def one_length(self) -> bool:  # type: ignore[override]
        return self.source.dataset.one_length

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        row = self.source.dataset.example(split, index, None)
        return {**row, "x": self.source.quantize(row["x"].unsqueeze(0))[0]}

    def source_files(self) -> Iterable[SourceFile]:
        return self.source.dataset.source_files()

    def read(self, path: Path, spec: DataSpec) -> Tensor:  # type: ignore[override]
        x = self.source.files.read(path, self.source.spec)
        return self.source.encode(x.unsqueeze(0))[0]

    def read_bytes(self, content: bytes, name: str, spec: DataSpec) -> Tensor:  # type: ignore[override]
        x = self.source.files.read_bytes(content, name, self.source.spec)
        return self.source.encode(x.unsqueeze(0))[0]

    def pieces(self, path: Path, spec: DataSpec) -> Iterator[Tensor]:  # type: ignore[override]
        yield self.read(path, spec)

    def length(self, path: Path, spec: DataSpec) -> int:  # type: ignore[override]
        return self.read(path, spec).shape[1]

    def write_pieces(self, pieces: Iterable[Tensor], spec: DataSpec, path: Path) -> None:  # type: ignore[override]
        self.write(torch.cat(list(pieces), 1), spec, path)

    def write(self, x: Tensor, spec: DataSpec, path: Path) -> None:  # type: ignore[override]
        self.source.files.write(self._decoded(x.unsqueeze(0))[0], self.source.spec, path)

    def plot(self, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:  # type: ignore[override]
        self.source.files.plot([self._decoded(row) for row in rows], self.source.spec, path)

    def _decoded(self, codes: Tensor) -> Tensor:
        x: Any = self.source.decode(codes)
        return x.cpu()  # type: ignore[no-any-return]
