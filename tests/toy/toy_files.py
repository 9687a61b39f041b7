"""Data that lies in files: ``root/SPLIT/CLASS/*.json``, as the toy's datasets write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from toy_plugin import ToyDataset

from toolkit import Condition, DataSpec
from toolkit.dataset import SPLITS, SourceFile
from toolkit.datasets.files import find_files, require_folder


@final
class FilesDataset(ToyDataset):
    """Eight levels over two axes; the class is a condition."""

    def __init__(self, *, root: str) -> None:
        self.root = require_folder(root, "the files are")
        paths = find_files(self.root, (".json",))
        self.paths = {split: [path for path in paths if path.startswith(f"{split}/")] for split in SPLITS}
        labels = tuple(sorted({path.split("/")[1] for path in paths}))
        self.spec = DataSpec(2, (8, 8), 8, variance=0.3, conditions=(Condition("kind", len(labels), labels),))

    def size(self, split: str) -> int:
        return len(self.paths[split])

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        path = self.paths[split][index]
        label = self.spec.conditions[0].labels.index(path.split("/")[1])
        return {"x": self.read(self.root / path, self.spec), "kind": torch.tensor(label)}

    def source_files(self) -> Iterable[SourceFile]:
        for split, paths in self.paths.items():
            for path in paths:
                yield SourceFile(path, str(Path(self.root) / path), split, path.split("/")[1])
