"""The random number generators that torch draws from where it is given none: the CPU's and the accelerator's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from toolkit.device.choice import accelerator


def random_state() -> dict[str, Tensor]:
    """The state of each generator by its kind of device: ``cpu``, and that of the current accelerator."""
    states = {"cpu": torch.get_rng_state()}
    if there := accelerator():
        kind, module = there
        states[kind] = module.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Restores those generators that are there; the others keep their state."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if (there := accelerator()) and there[0] in states:
        kind, module = there
        module.set_rng_state(states[kind])


@contextmanager
def random_kept() -> Iterator[None]:
    """Whatever the block draws or seeds, on the CPU or the accelerator: behind it all is as before."""
    states = random_state()
    try:
        yield
    finally:
        set_random_state(states)
