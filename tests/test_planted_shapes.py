"""Whoever builds a model is told which part returns what it must not, and so is whoever runs its kind's suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.build import fit_likelihood, fit_objective
from toolkit.errors import ToolkitError
from toolkit.likelihood import Distribution, Likelihood
from toolkit.likelihoods.categorical import CategoricalLikelihood
from toolkit.metric import Metric, measured
from toolkit.objective import Bound, Loss
from toolkit.objectives.elbo import ELBO
from toolkit.quantizer import Quantized, Quantizer
from toolkit.spec import DataSpec
from toolkit.testing.parts import PointDecoder, PointEncoder, plain_likelihood, point_autoencoder
from toolkit.testing.quantizer import QuantizerSuite

DATA = DataSpec(2, (3, 4), levels=5)


class Steps(Quantizer):
    """Rounds to three steps, in a way to be broken."""

    depth, has_dim, width = 4, True, 4

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.codebook_sizes = 4, (3,) * 4
        if self.has_dim:
            self.dim = 4

    def forward(self, z: Tensor) -> Quantized:
        codes = (z.clamp(-1, 1).round() + 1).long()
        loss = z.new_zeros(len(z))
        return Quantized(z + (self.embed(codes)[:, :4] - z).detach(), codes, loss, loss, {})

    def embed(self, codes: Tensor) -> Tensor:
        return (codes - 1.0).repeat(1, self.width // 4, *[1] * (codes.dim() - 2))


class NoDim(Steps):
    has_dim = False


class WideEmbed(Steps):
    width = 8


class NoSizes(Steps):
    def __init__(self) -> None:
        super().__init__()
        self.codebook_sizes = 3  # type: ignore[assignment]


class OtherDepth(Steps):
    depth = 2


def changed(**fields: Callable[[Quantized], Any]) -> type[Steps]:
    """A quantizer with other fields of its result."""

    class Changed(Steps):
        def forward(self, z: Tensor) -> Quantized:
            quantized = super().forward(z)
            return quantized._replace(**{name: change(quantized) for name, change in fields.items()})

    return Changed


def model(quantizer: Quantizer) -> Autoencoder:
    return Autoencoder(DATA, PointEncoder(DATA, 4), quantizer, PointDecoder(4, plain_likelihood(DATA)))


def test_a_sound_quantizer_fits() -> None:
    assert model(Steps()).code_spec.depth == 4


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (NoDim, "NoDim has no dim: a quantizer must set dim, the channels that it gives the decoder"),
        (NoSizes, "NoSizes has codebook_sizes=3: a quantizer must set it, one positive int for each depth"),
        (OtherDepth, "OtherDepth has depth=2 and codebook_sizes=(3, 3, 3, 3)"),
        (WideEmbed, "WideEmbed has an embed that gives 8 channels, dim is 4"),
        (changed(loss=lambda q: q.loss.mean()), "Changed gives a loss of shape (), not (2,): one for each example"),
        (changed(kl=lambda q: q.kl.mean()), "Changed gives a kl of shape (), not (2,): one for each example"),
        (changed(kl=lambda q: q.kl.long()), "Changed gives a kl of type torch.int64, not floats"),
        (changed(loss=lambda q: 0.0), "Changed gives float as a loss, not a tensor"),
        (changed(codes=lambda q: q.codes.float()), "Changed gives codes of type torch.float32, not int64"),
        (changed(z=lambda q: q.z[:, :2]), "Changed gives latents of shape (2, 2, 3, 4), not (2, 4, 3, 4)"),
        (changed(metrics=lambda q: {"error": q.loss}), "Changed gives metrics with error of shape (2,), not a 0-d"),
        (changed(metrics=lambda q: {"error": 0.5}), "Changed gives metrics with error of shape float, not a 0-d"),
    ],
)
def test_a_quantizers_wrong_result_is_named(broken: type[Steps], message: str) -> None:
    with pytest.raises(ToolkitError) as caught:
        model(broken())
    assert message in str(caught.value)


class StepsCase(QuantizerSuite):
    learns = False

    def __init__(self, part: type[Steps] = Steps) -> None:
        self.of = part

    def make(self, dim: int) -> Quantizer:
        return self.of()


@pytest.mark.parametrize(
    "broken", [WideEmbed, changed(loss=lambda q: q.loss.mean()), changed(metrics=lambda q: {"a": 1})]
)
def test_the_suite_names_it_too(broken: type[Steps]) -> None:
    StepsCase().test_its_results_fit_a_model()
    with pytest.raises(AssertionError, match=r"its results fit a model\n.*quantizer=this"):
        StepsCase(broken).test_its_results_fit_a_model()


class Halves(PointEncoder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).long()


def test_latents_that_are_no_floats_are_named() -> None:
    with pytest.raises(ToolkitError, match=r"Halves gives latents of type torch\.int64, not floats"):
        Autoencoder(DATA, Halves(DATA, 4), Steps(), PointDecoder(4, plain_likelihood(DATA)))


class Parameters(PointDecoder):
    """Gives the likelihood's parameters, not what the likelihood makes of them."""

    def forward(self, z: Tensor, conditions: Mapping[str, Tensor]) -> Distribution:
        return self.linear(z.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]


def test_a_decoder_without_a_distribution_is_named() -> None:
    with pytest.raises(ToolkitError, match="Parameters gives a tensor, not a Distribution"):
        Autoencoder(DATA, PointEncoder(DATA, 4), Steps(), Parameters(4, plain_likelihood(DATA)))


class Changing(CategoricalLikelihood):  # type: ignore[misc]
    """A likelihood whose distribution is changed by a function."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__(DATA)
        self.change = change

    def forward(self, parameters: Tensor) -> Distribution:
        return self.change(super().forward(parameters))  # type: ignore[no-any-return]


class OfPixels(Distribution):
    """A number for every position."""

    def __init__(self, inner: Distribution, mean: Tensor | None = None) -> None:
        self.inner, self.shape, self.given = inner, inner.shape, mean

    @property
    def mean(self) -> Tensor | None:
        return self.given

    def log_prob(self, x: Tensor) -> Tensor:
        nats = self.inner.log_prob(x)
        return nats if self.given is not None else nats[:, None].expand(-1, 3)

    def sample(self, *args: Any, **words: Any) -> Tensor:
        return self.inner.sample(*args, **words)


class Channelless(Likelihood):
    def forward(self, parameters: Tensor) -> Distribution:
        raise AssertionError


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (Channelless(), "Channelless has no channels: a likelihood must set channels"),
        (Changing(lambda one: one.mean), "Changing gives a tensor, not a Distribution"),
        (Changing(OfPixels), "Changing gives a log_prob of shape (2, 3), not (2,): one number for each example"),
        (Changing(lambda one: OfPixels(one, torch.zeros(2))), "Changing gives a mean of shape (2,), not (2, 2, 3, 4)"),
    ],
)
def test_a_likelihoods_wrong_result_is_named(likelihood: Likelihood, message: str) -> None:
    with pytest.raises(ToolkitError) as caught:
        fit_likelihood(likelihood, DATA)
    assert message in str(caught.value)


class Objecting(ELBO):  # type: ignore[misc]
    """An ELBO with other results."""

    def __init__(self, loss: Mapping[str, Any], bound: Mapping[str, Any]) -> None:
        super().__init__()
        self.of_loss, self.of_bound = loss, bound

    def forward(self, *args: Any) -> Loss:
        output = super().forward(*args)
        return output._replace(**{name: change(output) for name, change in self.of_loss.items()})

    def bound(self, *args: Any) -> Bound:
        bound = super().bound(*args)
        return bound._replace(**{name: change(bound) for name, change in self.of_bound.items()})


@pytest.mark.parametrize(
    ("loss", "bound", "message"),
    [
        ({"loss": lambda o: o.loss.expand(2)}, {}, "Objecting gives a loss of shape (2,), not (): the mean over the"),
        ({"terms": lambda o: {"nll": o.loss.expand(2)}}, {}, "Objecting gives terms with nll of shape (2,), not a 0-d"),
        ({}, {"data_nats": lambda b: b.data_nats.mean()}, "Objecting gives data_nats of shape (), not (2,)"),
        ({}, {"code_nats": lambda b: b.code_nats[:, None]}, "Objecting gives code_nats of shape (2, 1), not (2,)"),
    ],
)
def test_an_objectives_wrong_result_is_named(loss: Any, bound: Any, message: str) -> None:
    with pytest.raises(ToolkitError) as caught:
        fit_objective(Objecting(loss, bound), point_autoencoder(DATA))
    assert message in str(caught.value)


class Measuring(Metric):
    def __init__(self, metrics: Any) -> None:
        self.metrics = metrics

    def update(self, x: Tensor, output: Bound, conditions: Mapping[str, Tensor]) -> None:
        pass

    def compute(self) -> dict[str, float]:
        return self.metrics  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"nats": torch.zeros(3)}, "Measuring.compute gives Tensor of shape (3,) as nats, not a float"),
        ([1.0], "Measuring.compute gives list, not a dict of floats"),
    ],
)
def test_a_metrics_wrong_result_is_named(metrics: Any, message: str) -> None:
    with pytest.raises(ToolkitError) as caught:
        measured(Measuring(metrics))
    assert message in str(caught.value)


def test_sound_results_pass() -> None:
    fit_likelihood(plain_likelihood(DATA), DATA)
    fit_objective(ELBO(), point_autoencoder(DATA))
    assert measured(Measuring({"nats": 1.0})) == {"nats": 1.0}
    assert isinstance(model(Steps()), nn.Module)
