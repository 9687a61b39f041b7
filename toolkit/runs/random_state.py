"""The states of the random number generators of all ranks, as a checkpoint holds them."""

from __future__ import annotations

from torch import Tensor

from toolkit import device
from toolkit.distributed import all_gather, rank

LARGEST_RANDOM = 1 << 16
"""Bytes of a generator's state."""


def random_state() -> dict[str, Tensor]:
    """States of the generators of every rank; all take part. Rank 0's are named without a number."""
    own = device.random_state()
    return {_random(number, name): t for name, state in own.items() for number, t in enumerate(all_gather(state))}


def set_random_state(state: dict[str, Tensor]) -> None:
    """Restores this rank's generators; a rank that was not saved keeps its own."""
    prefix = _random(rank(), "")
    own = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    device.set_random_state(own)


def _random(number: int, name: str) -> str:
    return f"random.{number}.{name}" if number else f"random.{name}"
