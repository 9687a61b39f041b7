"""The codes of a run's data, encoded once: cached in the run, and encoded again when what they depend on changes.

A split's codes lie in files of some examples each, which the ranks encode and write by themselves. Which examples lie
in which file is a function of the split's size alone, so that a run that was killed goes on with the files that are
missing, with any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch

from toolkit import interrupts
from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch, chosen_batches
from toolkit.dataset import Examples
from toolkit.distributed import all_gather_object, broadcast_object, on_rank0, raise_together, rank, ranks
from toolkit.errors import Interrupted, ToolkitError
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
from toolkit.runs.joined import join
from toolkit.spec import CodeSpec

SHARD = 1 << 18
"""Codes in a file, about: as many are encoded again, at most, by each rank of a run that was killed."""
MOST = 4096
"""Files of a split: of more codes, each holds more. A process can have some ten thousand mapped."""


class Shard(NamedTuple):
    """A file of a split's codes."""

    path: Path
    key: str
    """Of what its codes depend on."""
    places: range
    """The examples in it, by number."""


@dataclass(frozen=True)
class CodeCache:
    """The codes of some splits in a folder.

    ``depends_on``: what the codes depend on besides split and size, as plain values. ``code_spec``: the codes of one
    example, which may be longer than the autoencoder's training examples. ``shard``: how many codes go
    into a file.
    """

    folder: Path
    autoencoder: Autoencoder
    code_spec: CodeSpec
    depends_on: tuple[Any, ...]
    device: torch.device
    batch_size: int
    workers: int | None
    report: Report
    shard: int = SHARD

    def read(self, examples: Examples, of: Sequence[str] = ("train", "val")) -> CachedCodes:
        """From the files if they match these weights and data; what does not is encoded now, by all ranks."""
        splits = {}
        for split in (split for split in of if examples.size(split)):
            found = on_rank0(partial(self._found, split, examples.size(split)))
            shards, missing = broadcast_object(found)
            if missing:
                with interrupts.deferred() if ranks() > 1 else nullcontext():
                    self._encode(examples, split, missing)
                on_rank0(partial(self._remove_others, split, shards))
            splits[split] = join([read_codes(shard.path)[0] for shard in shards])
        return CachedCodes(splits, is_of_one_length(examples))

    def _found(self, split: str, size: int) -> tuple[list[Shard], list[Shard]]:
        """A split's files, and those of them that are missing."""
        shards = self._shards(split, size)
        whole = Shard(self._path(split), self._key(split, size), range(size))
        if len(shards) > 1 and self._stale(whole) is None:  # as it was written by versions of before
            return [whole], []
        stale = {shard: why for shard in shards if (why := self._stale(shard)) is not None}
        if told := [why for why in stale.values() if why]:
            more = f" (and {len(told) - 1} files more)" if len(told) > 1 else ""
            self.report.note(f"{told[0]}: encoding again{more}")
        elif 0 < len(stale) < len(shards):
            self.report.note(f"codes of {split}: {len(shards) - len(stale)} of {len(shards)} files are there already")
        return shards, list(stale)

    def _shards(self, split: str, size: int) -> list[Shard]:
        rows = self._rows(size)
        count = -(-size // rows)
        if count == 1:
            return [Shard(self._path(split), self._key(split, size), range(size))]
        return [
            Shard(
                self._path(f"{split}-{number:05d}-of-{count:05d}"),
                self._key(split, size, number, count),
                range(number * rows, min(size, (number + 1) * rows)),
            )
            for number in range(count)
        ]

    def _rows(self, size: int) -> int:
        """The examples of a file, of which the last one may have fewer."""
        rows = 1  # a power of two, as batch sizes are: batches end where files do
        while 2 * rows * prod(self.code_spec.shape) <= self.shard or rows * MOST < size:
            rows *= 2
        return rows

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _key(self, *of: Any) -> str:
        return cache_key(*self.depends_on, list(of))

    def _encode(self, examples: Examples, split: str, missing: Sequence[Shard]) -> None:
        """Every rank encodes and writes some of the files that are missing."""
        size, own = examples.size(split), missing[rank() :: ranks()]
        done = size - sum(len(shard.places) for shard in missing)
        self.report.begin(f"codes of {split}", done, size)
        lengths = lengths_of(examples, split)
        one_length = lengths is not None and is_of_one_length(examples)
        orders = [self._order(shard.places, lengths, one_length) for shard in own]
        firsts = [self._first(shard.places, size, one_length) for shard in own]
        numbers = (first + i for first, order in zip(firsts, orders, strict=True) for i in range(len(order)))
        with raise_together():
            batches = chosen_batches(examples, split, self.device, [*chain(*orders)], self.workers)
            longest = None if lengths is None else self.code_spec.grid[0]
            codes = encode_batches(self.autoencoder, _until_asked(_renumbered(batches, numbers)), longest)
        for number in range(
            -(-len(missing) // ranks())
        ):  # file by file, so that no rank waits long for one that failed
            with raise_together(), suppress(Interrupted) if ranks() > 1 else nullcontext():
                if number < len(own):
                    shard, order = own[number], orders[number]
                    places = None if lengths is None else [i - shard.places.start for batch in order for i in batch]
                    rows, count = islice(codes, len(order)), len(shard.places)
                    step = partial(self._report, done, size)
                    write_codes(shard.path, self.code_spec, rows, count, {"key": shard.key}, step, places)
                    done += count * ranks()
            if ranks() > 1 and (stop := max(all_gather_object(interrupts.asked()))):
                raise Interrupted(stop)

    def _order(self, places: range, lengths: Sequence[int] | None, one_length: bool) -> list[Sequence[int]]:
        """The batches of a file, those of about one length together."""
        if lengths is None:
            return cut_at(places, self.batch_size, None)
        order = [places.start + i for i in by_length(lengths[places.start : places.stop])]
        return cut_at(order, self.batch_size, lengths if one_length else None)

    def _first(self, places: range, size: int, one_length: bool) -> int:
        """The number of a file's first batch: no file before has as many that one of them would have it, too."""
        rows = self._rows(size)
        return places.start // rows * (rows if one_length else -(-rows // self.batch_size))

    def _report(self, before: int, size: int, done: int) -> None:
        """Reports rank 0's progress as that of all ranks."""
        self.report.step(min(size, before + done * ranks()))

    def _remove_others(self, split: str, shards: Sequence[Shard]) -> None:
        """Removes a split's files of other sizes and of versions before."""
        kept = {shard.path for shard in shards}
        for path in self.folder.glob(f"{split}[.-]*safetensors"):
            if path not in kept:
                with suppress(OSError):
                    path.unlink()

    def _stale(self, shard: Shard) -> str | None:
        """Why a file does not hold exactly these codes, empty where it is not there; None: it does.

        A stale or damaged one is never used.
        """
        path = shard.path
        if not path.is_file():
            return ""
        try:
            arrays, metadata = read_codes(path)
        except ToolkitError as e:
            return str(e)
        if metadata.get("key") != shard.key:
            return f"{path} holds codes of other weights or data"
        if not is_as_written(path):
            return f"{path} is not what was written"
        try:
            check_codes(arrays, self.code_spec, len(shard.places))
        except ValueError as e:
            return f"{path}: {e}"
        return None


def _until_asked(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches; Interrupted once a signal has asked one of several ranks to stop: the others learn it from them."""
    for batch in batches:
        if ranks() > 1 and (stop := interrupts.asked()):
            raise Interrupted(stop)
        yield batch


def _renumbered(batches: Iterable[Batch], numbers: Iterable[int]) -> Iterator[Batch]:
    """Batches with other numbers, those in the split: what is random in their codes is then that of any run."""
    for batch, number in zip(batches, numbers, strict=False):
        batch.number = number
        yield batch
