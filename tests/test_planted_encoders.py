"""The suite of encoders catches what goes wrong in parts of its kind."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from planted import CHUNKED, FIELD, assert_catches
from torch import Tensor, nn

from toolkit.encoder import Encoder, EncoderStream
from toolkit.spec import DataSpec
from toolkit.testing.encoder import EncoderSuite
from toolkit.testing.parts import PointEncoder


class EncoderCase(EncoderSuite):
    data: ClassVar[DataSpec] = DataSpec(2, (3, 4), levels=5)

    def __init__(self, part: type[PointEncoder] = PointEncoder) -> None:
        self.of = part

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return self.of(data, dim)


class Transposing(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).transpose(2, 3)


class NoisyEncoder(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + random()


class Tracking(PointEncoder):
    """Goes on averaging in eval mode."""

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__(data, dim)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        self.mean.lerp_(z.detach().mean(), 0.1)
        return z


class OverTheBatch(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z - z.mean(0)


class OverTime(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z - z.mean(2, keepdim=True)


class CutOff(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach() + self.linear.bias.view(-1, 1, 1)


class Blind(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(x))


class Unsaved(PointEncoder):
    """Draws a shift that no checkpoint keeps."""

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__(data, dim)
        self.shift = torch.randn(())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shift


class BranchingOnData(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.float().mean() > 0 else -x)


class FlatEncoder(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(2)


class Neighbours(Encoder):
    """Sees two positions before its own stride of two, and one after it."""

    context = (2, 1)

    def __init__(self, data: DataSpec, dim: int) -> None:
        super().__init__()
        self.data, self.stride = data, (2,)
        self.conv = nn.Conv1d(data.channels, dim, 5, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.conv(nn.functional.pad(self.data.scale(x), (2, 1)))
        return z


class NeighboursCase(EncoderSuite):
    data = DataSpec(1, (16,), levels=5)

    def __init__(self, context: tuple[int, int] = Neighbours.context, spread: bool = False) -> None:
        self.context, self.spread = context, spread

    def make(self, data: DataSpec, dim: int) -> Encoder:
        encoder = Neighbours(data, dim)
        if self.spread:
            encoder.conv = nn.Sequential(encoder.conv, nn.GroupNorm(1, dim))  # type: ignore[assignment]
        encoder.context = self.context
        return encoder


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (NeighboursCase((1, 1)), FIELD),
        (NeighboursCase((2, 0)), FIELD),
        (NeighboursCase((2, 0)), CHUNKED),
        (NeighboursCase((0, 1)), CHUNKED),
        (NeighboursCase((3, 1)), FIELD),
        (NeighboursCase((2, 2)), FIELD),
        (NeighboursCase(spread=True), FIELD),
        (NeighboursCase(spread=True), CHUNKED),
    ],
)
def test_a_wrong_context_of_an_encoder_is_caught(broken: NeighboursCase, law: str) -> None:
    """Too small, too large, or declared although every position sees all others."""
    assert_catches(NeighboursCase(), broken, law)


class Remembering(Encoder):
    """Each position sees the two before its own stride, which its stream keeps."""

    rank, causal, context = 1, True, (2, 0)

    def __init__(self, data: DataSpec, dim: int, keep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.data, self.stride, self.keep = data, (2,), keep
        self.conv = nn.Conv1d(data.channels, dim, 4, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.conv(F.pad(self.data.scale(x), (2, 0)))
        return z

    def stream(self) -> EncoderStream:
        past: list[Tensor] = []

        def step(x: Tensor) -> Tensor:
            own = self.data.scale(x)
            seen = torch.cat([*(past or [torch.zeros_like(own[:, :, :2])]), own], 2)
            past[:] = [self.keep(seen[:, :, -2:])]
            z: Tensor = self.conv(seen)
            return z

        return step


class RememberingCase(EncoderSuite):
    data: ClassVar[DataSpec] = DataSpec(2, (12,))

    def __init__(self, keep: Callable[[Tensor], Tensor] = lambda past: past) -> None:
        self.keep = keep

    def make(self, data: DataSpec, dim: int) -> Encoder:
        return Remembering(data, dim, self.keep)


@pytest.mark.parametrize(
    "keep",
    [torch.zeros_like, lambda past: past.flip(2), lambda past: past.mean(0, keepdim=True).expand_as(past)],
    ids=["forgets", "mistakes", "mixes its streams"],
)
def test_a_wrong_memory_of_an_encoder_is_caught(keep: Callable[[Tensor], Tensor]) -> None:
    assert_catches(RememberingCase(), RememberingCase(keep), "a stream gives the whole")


class Counting(PointEncoder):
    """Takes the number of examples for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z + z.new_zeros(len(x), 1, 1, 1)


def test_a_batch_that_a_graph_fixes_is_caught() -> None:
    """Not strict: a strict export reads ``len`` from the code, and leaves it free."""
    assert_catches(EncoderCase(), EncoderCase(Counting), "it exports", strict=False)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Transposing, "the stride divides the axes"),
        (NoisyEncoder, "a seed decides the outcome"),
        (Tracking, "eval changes no state"),
        (OverTheBatch, "examples do not influence one another"),
        (OverTime, "an example in padding gives what it does alone"),
        (CutOff, "the gradient reaches every parameter"),
        (Blind, "the latents depend on the data"),
        (Unsaved, "the state dict is the whole encoder"),
        (BranchingOnData, "it runs on fake tensors"),
        (FlatEncoder, "latents have dim channels and the rank of the data"),
    ],
)
def test_a_broken_encoder_is_caught(broken: type[PointEncoder], law: str) -> None:
    assert_catches(EncoderCase(), EncoderCase(broken), law)
