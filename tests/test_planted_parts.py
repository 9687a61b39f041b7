"""Every kind's suite catches what goes wrong in parts of its kind; quantizers' faults are in test_suites.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import nan
from pathlib import Path
from random import random, shuffle
from typing import Any, ClassVar

import pytest
import torch
from planted import assert_catches
from torch import Tensor, nn
from toy.toy_plugin import TilesDataset, WavesDataset

from toolkit.autoencoder import Autoencoder
from toolkit.causal.transformer import Transformer, TransformerState
from toolkit.dataset import Dataset, collate
from toolkit.decoder import Decoder
from toolkit.decoders.conv import ConvDecoder
from toolkit.decoders.pixelcnn import PixelCNNDecoder
from toolkit.encoder import Encoder
from toolkit.likelihood import Distribution, Likelihood
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.logger import Logger, Status
from toolkit.metric import Metric
from toolkit.nn.conditioning import ConditionEmbedding, over_grid
from toolkit.objective import Bound, Loss, Objective
from toolkit.objectives.elbo import ELBO
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.priors.categorical import CategoricalPrior
from toolkit.priors.transformer import TransformerPrior
from toolkit.quantizer import Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.spec import CodeSpec, Condition, DataSpec
from toolkit.testing.dataset import DatasetSuite
from toolkit.testing.decoder import DecoderSuite
from toolkit.testing.encoder import EncoderSuite
from toolkit.testing.laws import Laws
from toolkit.testing.likelihood import LikelihoodSuite
from toolkit.testing.logger import CALLS, METRICS, LoggerSuite
from toolkit.testing.metric import MetricSuite
from toolkit.testing.objective import ObjectiveSuite
from toolkit.testing.parts import PointDecoder, PointEncoder
from toolkit.testing.prior import PriorSuite

# -- encoders


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


FIELD = "the context is the receptive field"
CHUNKED = "chunks with context give the whole"


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


class Counting(PointEncoder):
    """Takes the number of examples for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z + z.new_zeros(len(x), 1, 1, 1)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Transposing, "the stride divides the axes"),
        (NoisyEncoder, "a seed decides the outcome"),
        (Tracking, "eval changes no state"),
        (OverTheBatch, "examples do not influence one another"),
        (CutOff, "the gradient reaches every parameter"),
        (Blind, "the latents depend on the data"),
        (Unsaved, "the state dict is the whole encoder"),
        (BranchingOnData, "it runs on fake tensors"),
        (FlatEncoder, "latents have dim channels and the rank of the data"),
    ],
)
def test_a_broken_encoder_is_caught(broken: type[PointEncoder], law: str) -> None:
    assert_catches(EncoderCase(), EncoderCase(broken), law)


# -- decoders


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


@pytest.mark.parametrize(
    ("sound", "broken"),
    [(EncoderCase(), EncoderCase(Counting)), (DecoderCase(), DecoderCase(CountingDecoder))],
    ids=["encoder", "decoder"],
)
def test_a_batch_that_a_graph_fixes_is_caught(sound: Laws, broken: Laws) -> None:
    """Not strict: a strict export reads ``len`` from the code, and leaves it free."""
    assert_catches(sound, broken, "it exports", strict=False)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Uncaring, "the data depend on conditions"),
        (FirstLabel, "a missing condition means none"),
        (NoGradient, "the gradient reaches latents and every parameter"),
        (Latentless, "the data depend on the latents"),
        (Sideways, "it gives a distribution over the data"),
        (Dropping, "eval changes no state"),
        (Normalized, "examples do not influence one another"),
    ],
)
def test_a_broken_decoder_is_caught(broken: type[Conditioned], law: str) -> None:
    assert_catches(DecoderCase(), DecoderCase(broken), law)


class Delegating(Distribution):
    """A distribution to be broken."""

    def __init__(self, inner: Distribution) -> None:
        self.inner, self.shape = inner, inner.shape

    @property
    def mean(self) -> Tensor | None:
        return self.inner.mean

    def log_prob(self, x: Tensor) -> Tensor:
        return self.inner.log_prob(x)

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        return self.inner.sample(generator, temperature, progress)


class Backwards(Delegating):
    """Draws its numbers in one order and gives them back in another."""

    def sample(self, *args: Any, **words: Any) -> Tensor:
        return super().sample(*args, **words).flip(-1)


class Overconfident(Delegating):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) + 0.01


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


# -- likelihoods


class LikelihoodCase(LikelihoodSuite):
    def __init__(self, distribution: type[Delegating] = Delegating) -> None:
        self.of = distribution

    def make(self, data: DataSpec) -> Likelihood:
        distribution = self.of

        class Broken(CategoricalLikelihood):  # type: ignore[misc]
            def forward(self, parameters: Tensor) -> Distribution:
                made = distribution(super().forward(parameters))
                made.data = data  # type: ignore[attr-defined]
                return made

        return Broken(data)


class MeanOverDims(Delegating):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) / x[0].numel()


class AmongTheBatch(Delegating):
    def log_prob(self, x: Tensor) -> Tensor:
        nats = super().log_prob(x)
        return nats - nats.mean() + nats.mean().detach().round()


class OwnNoise(Delegating):
    def sample(
        self, generator: torch.Generator | None = None, temperature: float = 1.0, progress: Any = None
    ) -> Tensor:
        return super().sample(None, temperature)


class OneLevelUp(Delegating):
    def sample(self, *args: Any, **words: Any) -> Tensor:
        return (super().sample(*args, **words) + 1).clamp(max=6)


class AlwaysWarm(Delegating):
    def sample(
        self, generator: torch.Generator | None = None, temperature: float = 1.0, progress: Any = None
    ) -> Tensor:
        return super().sample(generator, 1.0)


class Scaled(Delegating):
    """Samples on the scale of [-1, 1], not in levels."""

    def sample(self, *args: Any, **words: Any) -> Tensor:
        return super().sample(*args, **words) / 3 - 1


class InLevels(Delegating):
    """A mean in levels, not on the scale of [-1, 1]."""

    @property
    def mean(self) -> Tensor | None:
        mean = super().mean
        return None if mean is None else (mean + 1) * 3


class Rounded(Delegating):
    """As precise as the parameters that it is given."""

    def log_prob(self, x: Tensor) -> Tensor:
        assert hasattr(self.inner, "logits")
        with torch.autocast("cpu", enabled=False):
            return self.inner.logits.log_softmax(1).gather(1, x.unsqueeze(1)).flatten(1).sum(1)


class LogOfShares(Delegating):
    def log_prob(self, x: Tensor) -> Tensor:
        assert hasattr(self.inner, "logits")
        return self.inner.logits.softmax(1).gather(1, x.unsqueeze(1)).log().flatten(1).sum(1)


@pytest.mark.parametrize(
    ("broken", "law", "words"),
    [
        (Overconfident, "probabilities sum to one", {"scale": 1.0}),
        (MeanOverDims, "an example is the sum of its numbers", {}),
        (AmongTheBatch, "examples do not influence one another", {}),
        (OwnNoise, "a seed decides the sample", {}),
        (OneLevelUp, "samples fit log prob", {}),
        (AlwaysWarm, "a low temperature gives the likeliest", {}),
        (Scaled, "samples are data", {}),
        (InLevels, "the mean is on the scale of the data", {}),
        (Rounded, "log prob is precise under autocast", {}),
        (LogOfShares, "gradients are finite at extreme parameters", {"scale": 1e4}),
    ],
)
def test_a_broken_likelihood_is_caught(broken: type[Delegating], law: str, words: dict[str, Any]) -> None:
    assert_catches(LikelihoodCase(), LikelihoodCase(broken), law, **words)


# -- objectives


class Plain(Objective):
    """An ELBO to be broken."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ELBO()

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        return self.inner(autoencoder, x, conditions)

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        return self.inner.bound(autoencoder, x, conditions)


class ObjectiveCase(ObjectiveSuite):
    def __init__(self, part: type[Plain] = Plain) -> None:
        self.of = part

    def make(self, data: DataSpec) -> Objective:
        return self.of()

    def quantizer(self) -> Quantizer:
        return CategoricalQuantizer(4, codebook_size=3)


class SummedOverTheBatch(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(loss=made.loss * len(x))


class FrozenDecoder(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(loss=made.terms["kl"] + made.terms["quantizer"])


class FreeCodes(Plain):
    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        made = super().bound(autoencoder, x, conditions)
        return made._replace(code_nats=0 * made.code_nats)


class OthersConditions(Plain):
    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        return super().bound(autoencoder, x, {name: value.roll(1, 0) for name, value in conditions.items()})


class Pooled(Plain):
    """The batch's mean for each of its examples."""

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        made = super().bound(autoencoder, x, conditions)
        return made._replace(data_nats=made.data_nats.mean().expand(len(x)))


class CountingBounds(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        self.seen += len(x)
        return super().bound(autoencoder, x, conditions)


class HalfPrecision(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(loss=made.loss.bfloat16())


class PerExample(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(terms={"nll": -made.likelihood.log_prob(x)})


class Jittered(Plain):
    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        made = super().forward(autoencoder, x, conditions)
        return made._replace(loss=made.loss * (1 + random()))


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (SummedOverTheBatch, "the loss is a mean over the batch"),
        (FrozenDecoder, "the loss is finite and trains every parameter"),
        (FreeCodes, "the bound is a bound"),
        (OthersConditions, "examples keep their conditions"),
        (Pooled, "examples keep their conditions"),
        (CountingBounds, "the bound changes no state"),
        (HalfPrecision, "the loss is precise under autocast"),
        (PerExample, "terms are finite scalars"),
        (Jittered, "a seed decides the outcome"),
    ],
)
def test_a_broken_objective_is_caught(broken: type[Plain], law: str) -> None:
    assert_catches(ObjectiveCase(), ObjectiveCase(broken), law)


# -- priors


class Table(CategoricalPrior):  # type: ignore[misc]
    """A table of probabilities to be broken."""


class PriorCase(PriorSuite):
    def __init__(self, part: type[Table] = Table) -> None:
        self.of = part

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return self.of(code_spec, conditions)


Codes = Tensor
Known = Mapping[str, Tensor]


class Unnormalized(Table):
    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        return super().log_prob(codes, conditions) + 0.01


class Peeking(Table):
    """Is surer of a code the more often it comes, later ones included."""

    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        return super().log_prob(codes, conditions) + (codes == 0).flatten(1).double().mean(1)


class MeanOverPositions(Table):
    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        return super().log_prob(codes, conditions) / codes[0].numel()


class Grouping(Table):
    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        nats = super().log_prob(codes, conditions)
        return nats.mean().expand(len(codes))


class LabelZero(Table):
    def log_prob(self, codes: Codes, conditions: Known) -> Tensor:
        return super().log_prob(codes, {"kind": torch.zeros(len(codes), dtype=torch.int64), **conditions})


class Deaf(Table):
    """Ignores the conditions wherever they are."""

    def _logits(self, conditions: Known, n: int, *args: Any) -> Any:
        return super()._logits({}, n, *args)


class Unconditioned(Table):
    def sample(self, n: int, conditions: Known, *args: Any, **words: Any) -> Tensor:
        return super().sample(n, {}, *args, **words)


class Turned(Table):
    """Draws in raster order and lays the codes down in another."""

    def sample(self, *args: Any, **words: Any) -> Tensor:
        return super().sample(*args, **words).flip(-1)


class GlobalNoise(Table):
    def sample(self, n: int, conditions: Known, sampling: SamplingOptions = PLAIN, **words: Any) -> Tensor:
        return super().sample(n, conditions, sampling, **{**words, "generator": None})


class Forgetful(Table):
    def sample(self, n: int, conditions: Known, sampling: SamplingOptions = PLAIN, **words: Any) -> Tensor:
        return super().sample(n, conditions, sampling, **{**words, "prefix": None})


class Untaught(Table):
    def loss(self, codes: Codes, conditions: Known) -> Tensor:
        return super().loss(codes, conditions).detach().requires_grad_()


GRID = {"code_spec": CodeSpec((2, 3), (3,))}


@pytest.mark.parametrize(
    ("broken", "law", "words"),
    [
        (Unnormalized, "probabilities of all code maps sum to one", GRID),
        (Peeking, "probabilities of all code maps sum to one", GRID),
        (MeanOverPositions, "probabilities sum to one under any condition", {"kind": 1}),
        (Grouping, "examples do not influence one another", {}),
        (LabelZero, "a missing condition means none", {}),
        (Deaf, "probabilities depend on conditions", {}),
        (Unconditioned, "samples fit log prob under a condition", {}),
        (Turned, "samples fit log prob", GRID),
        (GlobalNoise, "a seed decides the codes", {}),
        (Forgetful, "the prefix is kept", {"positions": 2}),
        (Untaught, "the loss is finite and reaches every parameter", GRID),
    ],
)
def test_a_broken_prior_is_caught(broken: type[Table], law: str, words: dict[str, Any]) -> None:
    assert_catches(PriorCase(), PriorCase(broken), law, **words)


class PrefillCase(PriorSuite):
    """A transformer that enters a prefix by the function that it is given."""

    def __init__(self, prefill: Callable[..., None] = Transformer.prefill) -> None:
        self.prefill = prefill

    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        prior = TransformerPrior(code_spec, conditions, hidden=8, layers=2, heads=2, head=8)
        prior.network.trunk.prefill = partial(self.prefill, prior.network.trunk)  # type: ignore[method-assign]
        return prior


def shifted(trunk: Transformer, state: TransformerState, grid: Sequence[int], embedded: Tensor) -> None:
    Transformer.prefill(trunk, state, grid, embedded.roll(1, 2))


def without_the_last_layers_cache(
    trunk: Transformer, state: TransformerState, grid: Sequence[int], embedded: Tensor
) -> None:
    Transformer.prefill(trunk, state, grid, embedded)
    state.layers[-1].keys.zero_()


def without_context(trunk: Transformer, state: TransformerState, grid: Sequence[int], embedded: Tensor) -> None:
    pos_emb = trunk.positions(tuple(grid)).unsqueeze(1)
    Transformer.prefill(trunk, state._replace(pos_emb=pos_emb), grid, embedded)


def without_the_last_input(trunk: Transformer, state: TransformerState, grid: Sequence[int], embedded: Tensor) -> None:
    start = state.last_input.clone()
    Transformer.prefill(trunk, state, grid, embedded)
    state.last_input.copy_(start)


@pytest.mark.parametrize("prefill", [shifted, without_the_last_layers_cache, without_context, without_the_last_input])
def test_a_broken_prefill_is_caught(prefill: Callable[..., None]) -> None:
    law = "a prefix in one pass equals its positions one by one"
    assert_catches(PrefillCase(), PrefillCase(prefill), law, **GRID)


# -- metrics


class MeanNats(Metric):
    """Mean nats of the data, to be broken."""

    def __init__(self, model: Autoencoder) -> None:
        self.total, self.examples = 0.0, 0

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total += float(output.data_nats.double().sum())
        self.examples += len(x)

    def compute(self) -> dict[str, float]:
        return {"nats": self.total / self.examples} if self.examples else {}


class MetricCase(MetricSuite):
    def __init__(self, part: type[MeanNats] = MeanNats) -> None:
        self.of = part

    def make(self, model: Autoencoder) -> Metric:
        return self.of(model)


class MeanOfBatches(MeanNats):
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total += float(output.data_nats.mean())
        self.examples += 1


class LastBatch(MeanNats):
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total, self.examples = float(output.data_nats.double().sum()), len(x)


class LosingTheLastExample(MeanNats):
    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        self.total += float(output.data_nats[:-1].double().sum())
        self.examples += len(x)


class Resetting(MeanNats):
    def compute(self) -> dict[str, float]:
        made = super().compute()
        self.total = 0.0
        return made


class TensorFigures(MeanNats):
    def compute(self) -> dict[str, float]:
        return {name: torch.tensor(value) for name, value in super().compute().items()}  # type: ignore[misc]


class NotANumber(MeanNats):
    def compute(self) -> dict[str, float]:
        return {**super().compute(), "ratio": nan}


class DividingByZero(MeanNats):
    def compute(self) -> dict[str, float]:
        return {"nats": self.total / self.examples}


class SilentPictures(MeanNats):
    def plot(self, folder: Path) -> list[Path]:
        (folder / "nats.png").write_bytes(b"")
        return []


class BareWarning(MeanNats):
    def warnings(self) -> list[str]:
        return [""] if self.examples else []


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (MeanOfBatches, "order and batching do not matter"),
        (LastBatch, "order and batching do not matter"),
        (LosingTheLastExample, "order and batching do not matter"),
        (Resetting, "computing twice changes nothing"),
        (TensorFigures, "metrics are finite numbers"),
        (NotANumber, "metrics are finite numbers"),
        (DividingByZero, "it works without an update"),
        (SilentPictures, "plots are written to the folder"),
        (BareWarning, "warnings are sentences"),
    ],
)
def test_a_broken_metric_is_caught(broken: type[MeanNats], law: str, tmp_path: Path) -> None:
    words: dict[str, Any] = {"groups": [[11, 3, 0, 7, 5], [1], [2, 4, 6, 8, 9, 10]]} if "order" in law else {}
    if law in ("it works without an update", "plots are written to the folder"):
        words = {"tmp_path": tmp_path}
    assert_catches(MetricCase(), MetricCase(broken), law, **words)


# -- loggers


class Lines(Logger):
    """A file of lines, to be broken."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self.run, self.config, self.last = run, config, 0

    def write(self, *words: object) -> None:
        with (self.run / "lines.txt").open("a", encoding="utf-8") as file:
            print(*words, file=file)

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.write(stage, split, step, dict(metrics))

    def picture(self, stage: str, step: int, path: Path) -> None:
        self.write(stage, step, path.stat().st_size)

    def close(self, status: Status) -> None:
        if self.run.exists():
            self.write(status)


class LoggerCase(LoggerSuite):
    def __init__(self, part: type[Lines] = Lines) -> None:
        self.of = part

    def make(self, run: Path, config: Mapping[str, Any]) -> Logger:
        return self.of(run, config)


class WritingEarly(Lines):
    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        super().__init__(run, config)
        run.mkdir(parents=True, exist_ok=True)


class Once(Lines):
    """Takes a folder of its own, which a continuation finds taken."""

    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        if not self.last:
            (self.run / "once").mkdir()
        self.last = 1


class OnlyUpwards(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        if step < self.last:
            raise ValueError(f"step {step} after {self.last}")
        self.last = step


class AFileForEachName(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            (self.run / name).write_text(str(value))


class WholeNumbers(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.write(*(round(value) for value in metrics.values()))


class Outside(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        (self.run.parent / "mine").mkdir(exist_ok=True)


class ClosingAFile(Lines):
    def close(self, status: Status) -> None:
        super().close(status)
        (self.run / "lines.txt").rename(self.run / f"{status}.txt")
        if self.last:
            raise ValueError("closed already")
        self.last = 1


class Taking(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        metrics.pop("loss", 0.0)  # type: ignore[attr-defined]


class MovingPictures(Lines):
    def picture(self, stage: str, step: int, path: Path) -> None:
        path.rename(path.with_suffix(".old"))


class Adding(Lines):
    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        super().__init__(run, config)
        config["logged"] = True  # type: ignore[index]


class Shuffling(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        shuffle(list(metrics))


class NamedAtRandom(Lines):
    def log(self, stage: str, split: str, step: int, metrics: Mapping[str, float]) -> None:
        self.write(torch.randint(1000, ()))


class Linking(Lines):
    def picture(self, stage: str, step: int, path: Path) -> None:
        newest = self.run / "newest.png"
        newest.unlink(missing_ok=True)
        newest.symlink_to(path)


@pytest.mark.parametrize(
    ("broken", "law", "words"),
    [
        (WritingEarly, "its constructor writes nothing", {}),
        (OnlyUpwards, "calls come in any order", {"calls": CALLS}),
        (AFileForEachName, "metrics have any name and value", {"metrics": METRICS}),
        (WholeNumbers, "metrics have any name and value", {"metrics": {"a": nan}}),
        (Outside, "metrics have any name and value", {"metrics": {}}),
        (ClosingAFile, "closing twice is harmless", {"status": "failed"}),
        (Once, "a run that is continued has another one", {}),
        (Taking, "what it is given stays as it is", {}),
        (MovingPictures, "what it is given stays as it is", {}),
        (Adding, "what it is given stays as it is", {}),
        (Shuffling, "it draws no random numbers", {}),
        (NamedAtRandom, "it draws no random numbers", {}),
        (Linking, "it leaves no links", {}),
    ],
)
def test_a_broken_logger_is_caught(broken: type[Lines], law: str, words: dict[str, Any], tmp_path: Path) -> None:
    assert_catches(LoggerCase(), LoggerCase(broken), law, **words, tmp_path=tmp_path)


# -- datasets


class Tiles(TilesDataset):  # type: ignore[misc]
    """Levels to be broken."""


class Waves(WavesDataset):  # type: ignore[misc]
    """Real numbers to be broken."""


Generators = Sequence[torch.Generator] | None


class DatasetCase(DatasetSuite):
    def __init__(self, part: type[Dataset] = Tiles) -> None:
        self.of = part

    def make(self) -> Dataset:
        return self.of()


class Whimsical(Tiles):
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return super().example(split, int(random() * 8), generator)


class Ungoverned(Tiles):
    """Draws from torch's generator, not from the one that it is given."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return made if generator is None else {**made, "x": torch.randint(8, made["x"].shape)}


class OneTooMany(Tiles):
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return {**made, "x": made["x"] + 1}


class Lengthwise(Tiles):
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return {**made, "x": made["x"].movedim(0, -1)}


class SixteenBit(Waves):
    """Samples as integers have them, not in [-1, 1]."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return {**made, "x": made["x"] * 32767}


class Unlabelled(Tiles):
    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"x": super().example(split, index, generator)["x"]}


class FromOne(Tiles):
    """Labels from 1 on."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = super().example(split, index, generator)
        return {**made, "kind": made["kind"] + 2}


class Leaking(Tiles):
    """Tests on what was trained on."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        return super().example("train", index, generator)


class LossyFiles(Tiles):
    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        path.write_text(json.dumps((x // 2 * 2).tolist()))


class Batching(Tiles):
    """Reads a batch at once, which the base does one by one."""

    def batch(self, split: str, indices: Sequence[int], generators: Generators) -> dict[str, Tensor]:
        return collate(self, split, indices, generators)


class OutOfOrder(Batching):
    def batch(self, split: str, indices: Sequence[int], generators: Generators) -> dict[str, Tensor]:
        return super().batch(split, sorted(indices), generators)


class OneGeneratorForAll(Batching):
    def batch(self, split: str, indices: Sequence[int], generators: Generators) -> dict[str, Tensor]:
        return super().batch(split, indices, None if generators is None else [generators[0]] * len(indices))


class Sparing(Batching):
    """Keeps a batch in fewer bytes."""

    def batch(self, split: str, indices: Sequence[int], generators: Generators) -> dict[str, Tensor]:
        whole = super().batch(split, indices, generators)
        return {**whole, "x": whole["x"].byte()}


class Unpicklable(Tiles):
    def __init__(self) -> None:
        super().__init__()
        self.scale = lambda x: x


class Pictureless(Tiles):
    @classmethod
    def plot(cls, rows: Any, spec: DataSpec, path: Path) -> None:
        path.write_bytes(b"GIF89a")


class Twins(Tiles):
    def __init__(self) -> None:
        super().__init__()
        self.spec = DataSpec(2, (8, 8), 8, conditions=(Condition("kind", 3, ("a", "b", "a")),))


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Whimsical, "without a generator nothing is random"),
        (Ungoverned, "a generator decides what is random"),
        (OneTooMany, "examples have the shape type and range of the spec"),
        (Lengthwise, "examples have the shape type and range of the spec"),
        (SixteenBit, "examples have the shape type and range of the spec"),
        (Unlabelled, "examples carry every condition"),
        (FromOne, "examples carry every condition"),
        (Leaking, "splits start with different examples"),
        (LossyFiles, "what is written is read back"),
        (OutOfOrder, "a batch is its examples"),
        (OneGeneratorForAll, "a batch is its examples"),
        (Sparing, "a batch is its examples"),
        (Unpicklable, "a worker gets the same dataset"),
        (Pictureless, "plot writes a png"),
        (Twins, "label names are unique"),
    ],
)
def test_a_broken_dataset_is_caught(broken: type[Dataset], law: str, tmp_path: Path) -> None:
    words: dict[str, Any] = {"random": True} if law == "a batch is its examples" else {}
    if law in ("what is written is read back", "plot writes a png"):
        words = {"tmp_path": tmp_path}
    sound = next(cls for cls in (Waves, Batching, Tiles) if issubclass(broken, cls))
    assert_catches(DatasetCase(sound), DatasetCase(broken), law, **words)
