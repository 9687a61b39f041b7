"""Another objective, and a critic that tells its reconstructions from data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Literal, final

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.device import in_float32
from toolkit.discriminator import Discriminator, Judgement
from toolkit.discriminators.patch import PatchDiscriminator
from toolkit.nn.codebook import upcast
from toolkit.objective import Bound, CriticLoss, Loss, Objective
from toolkit.objectives.adaptive import AdaptiveWeight, last_weights
from toolkit.objectives.elbo import ELBO
from toolkit.objectives.games import GAMES, feature_distance, feature_sum, mean
from toolkit.objectives.lecam import LeCAM
from toolkit.objectives.shares import Share, Shared, added, gradients, measured, measured_at, reconstruction
from toolkit.ranges import Decay, NonNegative, NonNegativeInt
from toolkit.spec import DataSpec


@final
class AdversarialObjective(Objective):
    """Another objective plus an adversarial term: a critic learns to tell the likelihood's mean from x, and the mean
    learns to be taken for x (Goodfellow et al. 2014; for tokenizers Esser et al. 2021, arXiv:2012.09841)::

        L = L_inner + w_feature L_feature + w factor L_adversarial

    The weights are such that each term has its share of the gradient at the likelihood's parameters, of the loss up to
    itself (``toolkit.objectives.shares``). The critic learns from its own loss alone, from ``trainer.critic_start`` on
    and with ``trainer.critic_learning_rate``; ``start`` and ``ramp`` say when the rest is to follow it, so that it can
    learn first. The bound is that of the inner objective, bit for bit.

    Args:
        inner: the objective that the term is added to; further terms stand inside it.
        discriminator: the critic.
        loss: of critic and reconstructions, by their logits.
        balance: what weights the adversarial term: its share of the gradient; VQGAN's ratio of gradients for the
            decoder's last layer, times ``weight``; or ``weight`` alone.
        share: of the gradient that the adversarial term has, where ``balance`` is share.
        weight: of the adversarial term where ``balance`` is another; VQGAN's is 0.8.
        feature_share: of the gradient that the distance of the critic's features of the mean and of x has; 0: there is
            no such term.
        feature_weight: in place of that share, a weight of the sum over networks and layers of the features' mean
            absolute difference, as published weights are meant: 2 in HiFi-GAN and DAC. Their adversarial loss is a sum
            over networks, too, and the one here a mean: ``balance=weight`` with as many times the weight as networks.
        start: the first step at which the adversarial terms count.
        ramp: steps from there over which they grow to their share.
        r1: half of it is the weight of the squared norm of the critic's gradient for x (Mescheder et al. 2018,
            arXiv:1801.04406); 10 is common.
        lecam: weight of the distance of the critic's logits from the other side's moving mean (Tseng et al. 2021,
            arXiv:2104.03310), against a critic that learns few data by heart; 0.001 is common.
    """

    def __init__(
        self,
        data: DataSpec,
        *,
        inner: Callable[[], Objective] = ELBO,
        discriminator: Callable[[], Discriminator] = PatchDiscriminator,  # type: ignore[assignment]  # given data
        loss: Literal["hinge", "least_squares", "non_saturating"] = "hinge",
        balance: Literal["share", "adaptive", "weight"] = "share",
        share: Decay = 0.3,
        weight: NonNegative = 0.8,
        feature_share: Decay = 0.0,
        feature_weight: NonNegative = 0.0,
        start: NonNegativeInt = 0,
        ramp: NonNegativeInt = 0,
        r1: NonNegative = 0.0,
        lecam: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        if feature_share and feature_weight:
            raise ValueError(f"feature_weight={feature_weight}: is in place of feature_share={feature_share}; give one")
        self.data, self.game, self.weight, self.r1 = data, GAMES[loss], weight, r1
        self.start: int = start
        self.ramp = ramp
        self.inner, self.critic = inner(), discriminator()
        self.needs_posterior = self.inner.needs_posterior
        self.beyond = (*self.inner.beyond, "an adversary")
        self.share = Share(share) if balance == "share" else None
        self.adaptive = AdaptiveWeight(weight) if balance == "adaptive" else None
        self.feature_share = Share(feature_share) if feature_share else None
        self.feature_weight = feature_weight
        self.lecam = LeCAM(lecam) if lecam else None
        self.factor: Tensor
        self.register_buffer("factor", torch.zeros(()))
        self.at_step(0)

    def at_step(self, step: int) -> None:
        """``factor`` is what the adversarial terms' weights are multiplied by in the step at hand."""
        if not self.factor.is_meta:
            self.factor.fill_(min(1.0, max(0.0, (step - self.start + 1) / max(1, self.ramp))))

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        output = self.inner(autoencoder, x, conditions)
        fake, at = self._typed(reconstruction(output.likelihood, "adversarial")), measured_at(output.likelihood)
        judged = self._judge(fake, conditions)
        loss, terms = output.loss, dict(output.terms)
        if self.feature_share is not None or self.feature_weight:
            with torch.no_grad():
                real = self._judge(self._typed(self.data.scale(x)), conditions)
            loss = self._with_features(loss, judged, real, at, terms)
        term = mean(judged, self.game.generator)
        loss = _noted(self._weighted(loss, term, at, autoencoder), term, "adversarial", terms)
        return output._replace(loss=loss, terms=terms)

    def critic_loss(
        self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor], output: Loss
    ) -> CriticLoss:
        fake = self._typed(reconstruction(output.likelihood, "adversarial").detach())
        real = self._typed(self.data.scale(x)).detach()
        penalized = bool(self.r1)
        with in_float32(x.device) if penalized else nullcontext():
            of_real = self._judge(real.requires_grad_(penalized), conditions)
        of_fake = self._judge(fake, conditions)
        loss = mean(of_real, self.game.real) + mean(of_fake, self.game.fake)
        metrics = {
            "critic_real_accuracy": mean(of_real, lambda t: (t > 0).to(t.dtype)),
            "critic_fake_accuracy": mean(of_fake, lambda t: (t < 0).to(t.dtype)),
        }
        if penalized:
            metrics["critic_r1"] = _squared_slope(mean(of_real, lambda t: t) * len(real), real)
            loss = loss + self.r1 / 2 * metrics["critic_r1"]
        if self.lecam is not None:
            metrics["critic_lecam"] = self.lecam(of_real, of_fake)
            loss = loss + self.lecam.weight * metrics["critic_lecam"]
        return CriticLoss(loss, metrics)

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        """The inner objective's."""
        return self.inner.bound(autoencoder, x, conditions)

    def _judge(self, values: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        assert self.critic is not None
        return self.critic(values, conditions)  # type: ignore[no-any-return]

    def _typed(self, values: Tensor) -> Tensor:
        """As the critic takes them: a softmax's mean is float32 whatever the rest is."""
        assert self.critic is not None
        return values.to(next(self.critic.parameters()).dtype)

    def _weighted(self, loss: Tensor, term: Tensor, at: Tensor, autoencoder: Autoencoder) -> Shared:
        """The loss with the adversarial term."""
        if self.share is not None:
            return self.share(loss, term, at, self.factor)  # type: ignore[no-any-return]
        if self.adaptive is not None:
            last = last_weights(autoencoder.decoder)
            return self.adaptive(loss, term, at, self.factor, last)  # type: ignore[no-any-return]
        return _plain(loss, term, at, self.weight * self.factor)

    def _with_features(
        self, loss: Tensor, fake: list[Judgement], real: list[Judgement], at: Tensor, terms: dict[str, Tensor]
    ) -> Tensor:
        """The loss with the distance of features, which is noted."""
        if self.feature_share is not None:
            term = feature_distance(fake, real)
            return _noted(self.feature_share(loss, term, at, self.factor), term, "features", terms)
        term = feature_sum(fake, real)
        return _noted(_plain(loss, term, at, self.feature_weight * self.factor), term, "features", terms)


def _plain(loss: Tensor, term: Tensor, at: Tensor, weight: Tensor) -> Shared:
    """The loss with a term of a given weight, whose share is measured where gradients are."""
    if measured(at):
        return added(loss, term, at, gradients(loss, term, at), weight)
    return Shared(loss + weight * term, weight, torch.zeros_like(weight))


def _noted(shared: Shared, term: Tensor, name: str, terms: dict[str, Tensor]) -> Tensor:
    """The loss with a term, which is put among the others with its weight and its share."""
    terms |= {name: term.detach(), f"{name}_weight": shared.weight.detach(), f"{name}_share": shared.share.detach()}
    return shared.loss


def _squared_slope(value: Tensor, x: Tensor) -> Tensor:
    """The mean over examples of the squared norm of the gradient of a sum over the batch, differentiable, 0-d."""
    with in_float32(x.device):
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        return upcast(slope).square().flatten(1).sum(1).mean()
