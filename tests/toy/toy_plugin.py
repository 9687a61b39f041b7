"""Tiny data of one, two and three axes, and an encoder and a decoder for any of them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, final

import torch
from matplotlib.image import imsave
from torch import Tensor, nn

from toolkit import Coded, Condition, Dataset, DataSpec, Decoder, Distribution, Encoder, FileCodec, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.nn.conv import conv, down, up


class ToyDataset(Dataset):
    """Examples drawn from (split, index), as JSON files of numbers."""

    suffix = ".json"
    examples: ClassVar = {"train": 48, "val": 8, "test": 8}

    def size(self, split: str) -> int:
        return self.examples[split]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        own = torch.Generator().manual_seed(1000 * list(self.examples).index(split) + index)
        noise = torch.rand(self.spec.shape, generator=generator or own)
        ramp = torch.linspace(0, 1, noise[0].numel()).view(self.spec.axes)
        values = (0.8 * (ramp * (1 + index % 3)).frac() + 0.2 * noise).clamp(0, 1)
        x = 2 * values - 1 if self.spec.levels is None else (values * (self.spec.levels - 1)).round().long()
        return {"x": x, "kind": torch.tensor(index % 3)}

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        dtype = torch.float32 if spec.levels is None else torch.long
        try:
            x = torch.tensor(json.loads(path.read_text()), dtype=dtype)
        except ValueError as e:
            raise ValueError(f"not a file of numbers: {e}") from e
        if tuple(x.shape) != spec.shape:
            raise ValueError(f"holds {tuple(x.shape)}, {spec.shape} is needed")
        return x

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        path.write_text(json.dumps(x.tolist()))

    @classmethod
    def codecs(cls, spec: DataSpec) -> Mapping[str, FileCodec]:
        """zlib of the numbers as text, after a letter, and in so many steps."""

        def through(x: Tensor, steps: float | None) -> Coded:
            y = x if steps is None else spec.unscale((spec.scale(x) * steps).round() / steps)
            return Coded(b"z" + zlib.compress(json.dumps(y.tolist()).encode()), 1, y)

        return {
            "zlib": FileCodec(through),
            "steps": FileCodec(through, (1, 2, 3), "{:g} steps"),
            "zstd": FileCodec(through, missing="no zstd here"),
        }

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        flat = torch.cat([row.flatten(1) for row in rows]).float()
        imsave(path, ((flat - flat.amin()) / (flat.amax() - flat.amin()).clamp(min=1e-6)).numpy())


KIND = Condition("kind", 3, ("a", "b", "한 글"))


@final
class WavesDataset(ToyDataset):
    """Real numbers along one axis."""

    def __init__(self, *, length: int = 16) -> None:
        self.spec = DataSpec(1, (length,), rates=(8.0,), variance=0.3, conditions=(KIND,))


@final
class TilesDataset(ToyDataset):
    """Eight levels over two axes."""

    def __init__(self, *, size: int = 8) -> None:
        self.spec = DataSpec(2, (size, size), 8, variance=0.3, conditions=(KIND,))


@final
class ClipsDataset(ToyDataset):
    """Eight levels over three axes."""

    def __init__(self, *, length: int = 4) -> None:
        self.spec = DataSpec(3, (length, 16, 16), 8, variance=0.3, conditions=(KIND,))


@final
class MovesDataset(ToyDataset):
    """Eight levels over two axes, with a move for each place of the first."""

    def __init__(self, *, length: int = 8) -> None:
        move = Condition("move", 3, ("left", "right", "stay"), per_step=True)
        self.spec = DataSpec(1, (length, 4), 8, variance=0.3, conditions=(move,))

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        x = super().example(split, index, generator)["x"]
        return {"x": x, "move": torch.arange(index, index + len(x[0])) % 3}


@final
class ConvEncoder(Encoder):
    """One strided convolution."""

    def __init__(self, data: DataSpec, dim: int, *, stride: int = 2) -> None:
        super().__init__()
        self.data, self.stride = data, (stride,) * data.rank
        self.down = down(data.rank, data.channels, 8, stride)
        self.out = conv(data.rank, 8, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.out(self.down(self.data.scale(x)).relu())
        return z


@final
class CausalEncoder(Encoder):
    """Two convolutions along one axis that see nothing later, 4-wide at stride 2 and 3-wide."""

    causal = True
    context = (2 + 2 * 2, 0)

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__()
        self.data, self.stride = data, (2,)
        self.down, self.out = nn.Conv1d(data.channels, 8, 4, stride=2), nn.Conv1d(8, dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(nn.functional.pad(self.data.scale(x), (2, 0))).relu()
        z: Tensor = self.out(nn.functional.pad(h, (2, 0)))
        return z


@final
class ConvDecoder(Decoder):
    """One transposed convolution."""

    def __init__(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
        *,
        stride: int = 2,
    ) -> None:
        super().__init__()
        self.likelihood, self.grid = likelihood, grid
        self.proj_in = conv(data.rank, dim, 8, 1)
        self.conditions = ConditionEmbedding(conditions, 8)
        self.up = nn.Sequential(nn.ReLU(), up(data.rank, 8, likelihood.channels, stride))

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return self.likelihood(
            self.up(self.proj_in(z) + over_grid(self.conditions(conditions, z.shape[0]), z.shape[2:]))
        )
