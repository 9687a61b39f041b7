"""The states of the random number generators of all ranks, as a checkpoint holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.distributed import all_gather, rank

LARGEST_RANDOM = 1 << 16
"""Bytes of a generator's state."""


def random_state() -> dict[str, Tensor]:
    """States of the generators of every rank; all take part. Rank 0's are named without a number."""
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    return {_random(number, name): t for name, state in own.items() for number, t in enumerate(all_gather(state))}


def set_random_state(state: dict[str, Tensor]) -> None:
    """Restores this rank's generators; a rank that was not saved keeps its own."""
    setters = {"cpu": torch.set_rng_state}
    if torch.cuda.is_available():
        setters["cuda"] = torch.cuda.set_rng_state
    for name, setter in setters.items():
        if _random(rank(), name) in state:
            setter(state[_random(rank(), name)])


def _random(number: int, name: str) -> str:
    return f"random.{number}.{name}" if number else f"random.{name}"
