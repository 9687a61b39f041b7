"""The codes of a run's data, encoded once: cached in the run, and encoded again when what they depend on changes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from toolkit.autoencoder import Autoencoder
from toolkit.batches import split_batches
from toolkit.dataset import Examples
from toolkit.distributed import on_rank0
from toolkit.errors import ToolkitError
from toolkit.report import Report
from toolkit.runs.codes import CachedCodes, cache_key, check_codes, encode_batches, read_codes, write_codes
from toolkit.spec import CodeSpec


@dataclass(frozen=True)
class CodeCache:
    """The codes of the training and validation splits in a folder.

    ``depends_on``: what the codes depend on besides split and size, as plain values. ``code_spec``: the codes of one
    example, which may be longer than the autoencoder's training examples.
    """

    folder: Path
    autoencoder: Autoencoder
    code_spec: CodeSpec
    depends_on: tuple[Any, ...]
    device: torch.device
    batch_size: int
    workers: int | None
    report: Report

    def read(self, examples: Examples) -> CachedCodes:
        """From the files if they match these weights and data, else encoded now. All ranks take part."""
        splits = {}
        for split in (split for split in ("train", "val") if examples.size(split)):
            on_rank0(partial(self._fill, split, examples))
            splits[split] = read_codes(self._path(split))[0]
        return CachedCodes(splits)

    def _path(self, split: str) -> Path:
        return self.folder / f"{split}.safetensors"

    def _fill(self, split: str, examples: Examples) -> None:
        path, size = self._path(split), examples.size(split)
        key = cache_key(*self.depends_on, [split, size])
        if self._is_fresh(path, key, size):
            return
        batches = split_batches(examples, split, self.device, batch_size=self.batch_size, workers=self.workers)
        self.report.begin(f"codes of {split}", 0, size)
        codes = encode_batches(self.autoencoder, batches)
        write_codes(path, self.code_spec, codes, size, {"key": key}, self.report.step)

    def _is_fresh(self, path: Path, key: str, size: int) -> bool:
        """Whether a file holds exactly these codes; a stale or damaged one is never used."""
        if not path.is_file():
            return False
        try:
            arrays, metadata = read_codes(path)
        except ToolkitError as e:
            self.report.note(f"{e}: encoding again")
            return False
        if metadata.get("key") != key:
            self.report.note(f"{path} holds codes of other weights or data: encoding again")
            return False
        try:
            check_codes(arrays, self.code_spec, size)
        except ValueError as e:
            self.report.note(f"{path}: {e}: encoding again")
            return False
        return True
