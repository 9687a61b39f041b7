"""The parts, in their order: what takes how long at most, and in which half."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """A module beside this one, whose ``run`` measures."""

    name: str
    seconds: int
    half: int
    what: str


PARTS = (
    Part("card", 25, 1, "the rates of matrix products by precision, of memory, and of launches"),
    Part("waits", 75, 1, "steps of every quantizer and prior that never wait for the GPU"),
    Part("samples", 60, 1, "captured samples = eager ones = the CPU's; what captures leave in memory"),
    Part("codes", 30, 1, "codes of the GPU and of the CPU; the look-up against float64"),
    Part("repeats", 45, 1, "two equal runs, plain and with deterministic operations"),
    Part("race", 45, 1, "captures beside a loader's thread that pins memory"),
    Part("speed", 190, 2, "images per second of the paper's CIFAR-10 model, switch by switch, and of a peer"),
    Part("kernels", 30, 2, "where a step's time goes on the GPU, and the share in which it works"),
    Part("whole", 200, 2, "both stages trained, evaluated, sampled from, and resumed"),
)
BUDGETS = {1: 300, 2: 420}
"""Seconds of each half."""
