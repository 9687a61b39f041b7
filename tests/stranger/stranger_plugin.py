"""Parts that implement what an interface leaves to choice, as a stranger would write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, final

import torch
from matplotlib.image import imsave
from torch import Tensor, nn

from toolkit import CodeSpec, Condition, Dataset, DataSpec
from toolkit.causal.network import Trunk
from toolkit.priors.autoregressive import AutoregressivePrior


class SumsState(NamedTuple):
    total: Tensor
    """The sum of all inputs so far, ``(batch, channels)``."""
    context: Tensor | None
    """``(positions, batch, channels)``."""


@final
class Sums(Trunk):
    """A linear map of the sum of all earlier inputs; a prefix is a single sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.features = channels
        self.out = nn.Linear(channels, channels)

    def forward(self, embedded: Tensor, context: Tensor | None = None) -> Tensor:
        flat = embedded.flatten(2)
        before = (flat.cumsum(2) - flat).view_as(embedded)
        features: Tensor = self.out((before if context is None else before + context).movedim(1, -1))
        return features

    def init(self, batch: int, grid: Sequence[int], context: Tensor | None = None) -> SumsState:
        if context is not None:
            context = context.expand(*context.shape[:2], *grid).flatten(2).permute(2, 0, 1)
        return SumsState(self.out.weight.new_zeros(batch, self.channels), context)

    def step(self, state: SumsState, graph_id: int, position: Tensor) -> Tensor:
        x = state.total if state.context is None else state.total + state.context.index_select(0, position)[0]
        features: Tensor = self.out(x)
        return features

    def append(self, state: SumsState, position: Tensor, embedded: Tensor) -> None:
        state.total.add_(embedded)

    def prefill(self, state: SumsState, grid: Sequence[int], embedded: Tensor) -> None:
        state.total.add_(embedded.sum(2))


@final
class SumsPrior(AutoregressivePrior):
    """A code depends on how often each came before it.

    Args:
        hidden: channels.
    """

    def __init__(self, code_spec: CodeSpec, conditions: tuple[Condition, ...], *, hidden: int = 8) -> None:
        super().__init__(code_spec, conditions, Sums(hidden), head=8, condition_dropout=0.1)


@final
class SpecksDataset(Dataset):
    """Noise in one array, of which a batch is cut at once; in training, an example is turned half the time.

    Its table holds it in fewer bytes.

    Args:
        at_once: whether batches are cut at once.
    """

    suffix = ".json"
    sizes: ClassVar = {"train": 48, "val": 8, "test": 8}

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.spec = DataSpec(1, (8, 8), 8, variance=0.3)
        generator = torch.Generator().manual_seed(0)
        self.images = {split: torch.randint(8, (n, 1, 8, 8), generator=generator) for split, n in self.sizes.items()}

    def size(self, split: str) -> int:
        return self.sizes[split]

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        x = self.images[split][index]
        return {"x": x if generator is None or torch.rand((), generator=generator) < 0.5 else x.flip(-1)}

    def batch(
        self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator] | None
    ) -> dict[str, Tensor]:
        if not self.at_once:
            return super().batch(split, indices, generators)
        x = self.images[split][torch.tensor(indices)]
        if generators is None:
            return {"x": x}
        flipped = torch.stack([torch.rand((), generator=generator) for generator in generators]) >= 0.5
        return {"x": torch.where(flipped.view(-1, 1, 1, 1), x.flip(-1), x)}

    def table(self, split: str) -> dict[str, Tensor]:
        return {"half": self.images[split].byte()}

    def draws(self, split: str, indices: Sequence[int], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return {"turn": torch.stack([torch.rand((), generator=generator) for generator in generators])}

    def from_table(self, rows: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
        x = rows["half"].long()
        return {"x": torch.where(draws["turn"].view(-1, 1, 1, 1) < 0.5, x, x.flip(-1)) if draws else x}

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        return torch.tensor(json.loads(path.read_text()))

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        path.write_text(json.dumps(x.tolist()))

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        imsave(path, torch.cat([row.flatten(1) for row in rows]).float().numpy())
