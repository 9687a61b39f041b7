"""The suite of decoders catches what goes wrong in parts of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from planted import CHUNKED, FIELD, Delegating, Overconfident, assert_catches
from torch import Tensor, nn

from toolkit.decoder import Decoder, MeanStream
from toolkit.decoders.conv import ConvDecoder
from toolkit.decoders.pixelcnn import PixelCNNDecoder
from toolkit.likelihood import Distribution, Likelihood
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.spec import Condition, DataSpec
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.parts import PointDecoder


class Conditioned(PointDecoder):
    def __init__(self, dim: int, likelihood: Likelihood, conditions: tuple[Condition, ...]) -> None:
        super().__init__(dim, likelihood)
        self.embedding = ConditionEmbedding(conditions, dim)

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(z + over_grid(self.embedding(conditions, z.shape[0]), z.shape[2:]), conditions)


class DecoderCase(DecoderSuite):
    data, grid = DataSpec(2, (3, 4)), (3, 4)

    def __init__(self, part: type[Conditioned] = Conditioned) -> None:
        self.of = part

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return self.of(dim, likelihood, conditions)


class Uncaring(Conditioned):
    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(z, {})


class FirstLabel(Conditioned):
    """Takes what is missing for label 0."""

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(z, {"kind": torch.zeros(len(z), dtype=torch.int64), **conditions})


class NoGradient(Conditioned):
    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(z.detach(), conditions)


class Latentless(Conditioned):
    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(0 * z, conditions)


class Shrinking(Conditioned):
    """As many layers of PyTorch's defaults do: little is left of the latents beside a bias."""

    def __init__(self, dim: int, likelihood: Likelihood, conditions: tuple[Condition, ...]) -> None:
        super().__init__(dim, likelihood, conditions)
        with torch.no_grad():
            self.linear.weight.mul_(0.05)


class Sideways(Conditioned):
    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(z.transpose(2, 3), conditions)


class Dropping(Conditioned):
    """Drops latents in eval mode, too."""

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(nn.functional.dropout(z, training=True), conditions)


class Normalized(Conditioned):
    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(z / z.std(0), conditions)


class OverTime(Conditioned):
    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(z - z.mean(2, keepdim=True), conditions)


class NeighboursDecoderCase(DecoderSuite):
    """A latent's two positions of x depend on the latents beside it, one each."""

    data, grid, conditional = DataSpec(1, (8,), levels=5), (4,), False

    def __init__(self, context: tuple[int, int] = (1, 1)) -> None:
        self.context = context

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        decoder = ConvDecoder(dim, grid, (), likelihood, hidden=4, residual_blocks=0, strides=(2,))
        decoder.proj_in = nn.Conv1d(dim, 4, 1)
        decoder.context = self.context
        return decoder


@pytest.mark.parametrize(
    ("context", "law"),
    [((0, 1), FIELD), ((1, 0), FIELD), ((0, 1), CHUNKED), ((1, 0), CHUNKED), ((2, 1), FIELD), ((1, 2), FIELD)],
)
def test_a_wrong_context_of_a_decoder_is_caught(context: tuple[int, int], law: str) -> None:
    assert_catches(NeighboursDecoderCase(), NeighboursDecoderCase(context), law)


class CountingDecoder(Conditioned):
    """Takes the number of examples for a constant."""

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return super().forward(z + z.new_zeros(len(z), 1, 1, 1), conditions)


def test_a_batch_that_a_graph_fixes_is_caught() -> None:
    """Not strict: a strict export reads ``len`` from the code, and leaves it free."""
    assert_catches(DecoderCase(), DecoderCase(CountingDecoder), "it exports", strict=False)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Uncaring, "the data depend on conditions"),
        (FirstLabel, "a missing condition means none"),
        (NoGradient, "the gradient reaches latents and every parameter"),
        (Latentless, "the data depend on the latents"),
        (Shrinking, "its mean is of the latents from the start"),
        (Sideways, "it gives a distribution over the data"),
        (Dropping, "eval changes no state"),
        (OverTime, "an example in padding gives what it does alone"),
        (Normalized, "examples do not influence one another"),
    ],
)
def test_a_broken_decoder_is_caught(broken: type[Conditioned], law: str) -> None:
    assert_catches(DecoderCase(), DecoderCase(broken), law)


class Backwards(Delegating):
    """Draws its numbers in one order and gives them back in another."""

    def sample(self, *args: Any, **words: Any) -> Tensor:
        return super().sample(*args, **words).flip(-1)


class LookingAhead(Delegating):
    """Is surer of a number the more often it comes, later ones included."""

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + (x == 0).flatten(1).double().mean(1)


class AutoregressiveCase(DecoderSuite):
    data, grid = DataSpec(1, (4,), 3), (2,)
    conditional = False
    tiny = ((DataSpec(1, (4,), 3), (2,)),)

    def __init__(self, distribution: type[Delegating] = Delegating) -> None:
        self.of = distribution

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        distribution = self.of

        class Broken(PixelCNNDecoder):  # type: ignore[misc]
            def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
                return distribution(super().forward(z, conditions))

        return Broken(data, dim, conditions, hidden=8, layers=2, head=8, kernel_size=3)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Backwards, "samples fit log prob"),
        (Overconfident, "probabilities of all data sum to one"),
        (LookingAhead, "probabilities of all data sum to one"),
    ],
)
def test_a_broken_autoregressive_decoder_is_caught(broken: type[Delegating], law: str) -> None:
    assert_catches(AutoregressiveCase(), AutoregressiveCase(broken), law)


class Remembering(Decoder):
    """Each latent's data depend on the one before, which its stream of means keeps."""

    rank, context = 1, (1, 0)

    def __init__(self, dim: int, likelihood: Likelihood, keep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.likelihood, self.keep = likelihood, keep
        self.conv = nn.Conv1d(dim, likelihood.channels, 2)

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return self.likelihood(self.conv(F.pad(z, (1, 0))).repeat_interleave(2, 2))

    def mean_stream(self) -> MeanStream:
        past: list[Tensor] = []

        def step(z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
            seen = torch.cat([*(past or [torch.zeros_like(z[:, :, :1])]), z], 2)
            past[:] = [self.keep(seen[:, :, -1:])]
            return self.likelihood(self.conv(seen).repeat_interleave(2, 2))

        return step


class RememberingCase(DecoderSuite):
    data, grid, conditional = DataSpec(2, (8,)), (4,), False

    def __init__(self, keep: Callable[[Tensor], Tensor] = lambda past: past) -> None:
        self.keep = keep

    def make(
        self,
        data: DataSpec,
        dim: int,
        grid: tuple[int, ...],
        conditions: tuple[Condition, ...],
        likelihood: Likelihood,
    ) -> Decoder:
        return Remembering(dim, likelihood, self.keep)


@pytest.mark.parametrize(
    "keep",
    [torch.zeros_like, lambda past: past.mean(0, keepdim=True).expand_as(past)],
    ids=["forgets", "mixes its streams"],
)
def test_a_wrong_memory_of_a_decoder_is_caught(keep: Callable[[Tensor], Tensor]) -> None:
    assert_catches(RememberingCase(), RememberingCase(keep), "a stream of means gives the whole")
