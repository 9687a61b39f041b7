"""Whether a split is kept on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch

from toolkit.dataset import Dataset, Examples, Tabled
from toolkit.device import free_memory
from toolkit.errors import ToolkitError
from toolkit.options import OnDevice
from toolkit.tables import Table

SHARE = 8
"""By default a split may take one part in so many of a GPU's free memory; the rest is for training."""


def table_on(
    device: torch.device,
    examples: Examples,
    split: str,
    on_device: OnDevice,
    *,
    reads: int,
    note: Callable[[str], None],
) -> Table | None:
    """The split on the device, if that is wanted; ``note`` then gets its size.

    ``auto``: on a GPU, where the examples have a table that takes at most a share of the free memory, and at least as
    many are read (``reads``) as the split has. ToolkitError where it is wanted, and there is no table.
    """
    auto = on_device == "auto"
    if not on_device or (auto and (device.type == "cpu" or reads < examples.size(split))):
        return None
    if auto and not (_has_table(examples) and _fits(device, examples, split, note)):
        return None
    if not isinstance(examples, Tabled) or (columns := examples.table(split)) is None:
        if auto:
            return None
        raise ToolkitError(
            f"data_on_device=true: {type(examples).__name__} has no table of its examples, which are read one by one:"
            " data_on_device=auto or false"
        )
    table = Table(examples, split, columns, device)
    note(f"{split}: all {examples.size(split)} examples lie on {device}, in {_mib(table.bytes)}")
    return table


def _has_table(examples: Examples) -> bool:
    """Whether it may have one: a dataset says so by a method of its own."""
    return getattr(type(examples), "table", Dataset.table) is not Dataset.table


def _fits(device: torch.device, examples: Examples, split: str, note: Callable[[str], None]) -> bool:
    """Whether a split takes no more than its share, judged by its first example."""
    size = examples.size(split) * sum(value.nbytes for value in examples.example(split, 0, None).values())
    free = free_memory(device)
    if size * SHARE <= free:
        return True
    note(
        f"{split}: its examples take {_mib(size)}, more than 1/{SHARE} of the {_mib(free)} that are free on {device}:"
        " they are loaded batch by batch; data_on_device=true keeps them there all the same"
    )
    return False


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
