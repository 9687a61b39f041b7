"""The codes of a run's data, encoded once: cached in the run, and encoded again when what they depend on changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit import interrupts
from toolkit.autoencoder import Autoencoder
from toolkit.batches import split_batches, stoppable, stretch
from toolkit.dataset import Examples
from toolkit.distributed import broadcast_object, on_rank0, raise_together, rank, ranks
from toolkit.errors import ToolkitError
from toolkit.lengths.known import by_length, cut_at, is_of_one_length, lengths_of
from toolkit.report import Report
from toolkit.runs.codes import (
    CachedCodes,
    cache_key,
    check_codes,
    encode_batches,
    is_as_written,
    read_codes,
    write_codes,
)
from toolkit.spec import CodeSpec

JOINED = 4096
"""Examples in memory at once when the ranks' codes are joined."""


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
        """From the files if they match these weights and data, else encoded now, by all ranks."""
        splits = {}
        for split in (split for split in ("train", "val") if examples.size(split)):
            path, size = self.folder / f"{split}.safetensors", examples.size(split)
            key = cache_key(*self.depends_on, [split, size])
            if not broadcast_object(on_rank0(partial(self._is_fresh, path, key, size))):
                with interrupts.deferred() if ranks() > 1 else nullcontext():
                    self._encode(path, {"key": key}, examples, split)
            splits[split] = read_codes(path)[0]
        return CachedCodes(splits, is_of_one_length(examples))

    def _encode(self, path: Path, metadata: dict[str, str], examples: Examples, split: str) -> None:
        """Every rank encodes a stretch of the batches into a file of its own, which rank 0 joins."""
        size, batch, number, count = examples.size(split), self.batch_size, rank(), ranks()
        self.report.begin(f"codes of {split}", 0, size)
        lengths = lengths_of(examples, split)
        places = None if lengths is None else by_length(lengths)
        order = cut_at(places or range(size), batch, lengths if is_of_one_length(examples) else None)
        share = stretch(len(order), number, count)
        own = sum(map(len, order[share.start : share.stop]))
        with raise_together():
            _part(path, number).unlink(missing_ok=True)
            batches = split_batches(
                examples,
                split,
                self.device,
                batch_size=batch,
                places=places,
                workers=self.workers,
                rank=number,
                ranks=count,
            )
            longest = None if lengths is None else self.code_spec.grid[0]
            codes = encode_batches(self.autoencoder, stoppable(batches), longest)
            if count == 1:
                write_codes(path, self.code_spec, codes, size, metadata, self.report.step, places)
            elif own:
                write_codes(_part(path, number), self.code_spec, codes, own, metadata, self._of_all(size))
            else:
                list(codes)  # none, but the others agree with this rank on stopping
        if count > 1:
            on_rank0(partial(self._join, path, metadata, size, places))

    def _of_all(self, size: int) -> Callable[[int], None]:
        """Reports rank 0's progress as that of all ranks."""
        return lambda done: self.report.step(min(size, done * ranks()))

    def _join(self, path: Path, metadata: dict[str, str], size: int, places: list[int] | None) -> None:
        parts = [part for number in range(ranks()) if (part := _part(path, number)).is_file()]
        rows = chain.from_iterable(map(_rows, parts))
        write_codes(path, self.code_spec, rows, size, metadata, places=places)
        for part in path.parent.glob(f"{path.stem}.rank-*"):  # also those of a run that was stopped
            part.unlink()

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
        if not is_as_written(path):
            self.report.note(f"{path} is not what was written: encoding again")
            return False
        try:
            check_codes(arrays, self.code_spec, size)
        except ValueError as e:
            self.report.note(f"{path}: {e}: encoding again")
            return False
        return True


def _part(path: Path, number: int) -> Path:
    """Where a rank writes its stretch."""
    return path.with_name(f"{path.stem}.rank-{number}{path.suffix}")


def _rows(path: Path) -> Iterator[dict[str, Tensor]]:
    """A file's codes and conditions, some examples at a time."""
    arrays, _ = read_codes(path)
    for start in range(0, len(arrays["codes"]), JOINED):
        yield {name: torch.from_numpy(np.array(values[start : start + JOINED])) for name, values in arrays.items()}
