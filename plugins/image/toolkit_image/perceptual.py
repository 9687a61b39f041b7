"""A distance of what a frozen network sees, added to another objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Self, cast, final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from toolkit import Autoencoder, Bound, DataSpec, Loss, Objective, ToolkitError
from toolkit.likelihood import Distribution
from toolkit.objectives.elbo import ELBO
from toolkit.objectives.shares import Share, measured_at
from toolkit.ranges import NonNegative, PositiveInt, Range
from toolkit_image.features.distance import feature_distance
from toolkit_image.features.frozen import NETWORKS, Frozen, Name
from toolkit_image.features.pictures import Pictures, cropped


@final
class PerceptualObjective(Objective):
    """Another objective plus the distance of a frozen network's features of the likelihood's mean and of x::

        L = L_inner + w sum over layers of  mean over positions of  sum over channels of  h ( f / |f| - f' / |f'| )^2

    with features f of the mean and f' of x, each divided by its norm over channels, and how much a channel counts, h
    (Zhang et al. 2018, arXiv:1801.03924, eq. 1): for ``vgg`` LPIPS' heads, for other networks one over the number of
    layers. w is such that the term has a ``share`` of the gradient at the decoder's output, or is ``weight``.

    Weights are read where training begins, from a file: nothing is fetched. They are no part of the run, which keeps
    their SHA-256 and continues with the same alone; a trained run opens without them. Bits per dim are the inner
    objective's bound.

    Args:
        inner: the objective that it is added to.
        network: efficientnet_lite0, whose weights come in a package; vgg, LPIPS' network; convnext; or dinov2.
        weights: a file of the network's weights, of any of its sizes; null: the package's, or the one in torch's cache.
        layers: the network's layers that are compared; none: those of its publisher, or four evenly spaced ones.
        share: of the gradient that this term has, of it and the inner objective's.
        weight: in place of a share: nats per dim of x for a distance of 1.
        size: pixels that the shorter side is resized to; null: pictures as they are.
        crop: pixels of the random square of each picture that is compared in a step; null: all of it.
    """

    def __init__(
        self,
        data: DataSpec,
        *,
        inner: Callable[[], Objective] = ELBO,
        network: Name = "efficientnet_lite0",
        weights: str | None = None,
        layers: tuple[str, ...] = (),
        share: Annotated[float, Range(least=0, below=1)] = 0.3,
        weight: NonNegative | None = None,
        size: PositiveInt | None = None,
        crop: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.pictures = Pictures(data, size)
        smallest, least = NETWORKS[network].smallest, min(self.pictures.sides)
        if (crop or least) < smallest:
            raise ValueError(f"network={network}: sees pictures of {smallest} pixels or more: give size={smallest}")
        if crop and crop > least:
            raise ValueError(f"crop={crop}: more than the {least} pixels of a picture")
        self.data, self.inner = data, inner()
        self.needs_posterior = self.inner.needs_posterior
        self.beyond = (*getattr(self.inner, "beyond", ()), "a perceptual distance")
        self.source, self.layers, self.crop = (network, weights), layers, crop
        self.weight, self.share = weight, Share(share)
        self.frozen: Frozen | None = None
        self.weights_hash: Tensor
        self.register_buffer("weights_hash", torch.zeros(32, dtype=torch.uint8))

    def forward(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Loss:
        output = self.inner(autoencoder, x, conditions)
        mean = _mean(output.likelihood)
        distance = self.distance(mean, self.data.scale(x).to(mean.dtype))
        terms = {**output.terms, "perceptual": distance.detach()}
        if self.weight is not None:
            return output._replace(loss=output.loss + self.weight * self.data.dims * distance, terms=terms)
        shared = self.share(output.loss, distance, measured_at(output.likelihood))
        return output._replace(loss=shared.loss, terms={**terms, "perceptual_share": shared.share})

    def bound(self, autoencoder: Autoencoder, x: Tensor, conditions: Mapping[str, Tensor]) -> Bound:
        """The inner objective's."""
        return self.inner.bound(autoencoder, x, conditions)

    def distance(self, mean: Tensor, target: Tensor) -> Tensor:
        """Of data on the scale of [-1, 1], ``(batch, channels, height, width)``, the mean over examples, 0-d."""
        if self.frozen is None:
            if isinstance(mean, FakeTensor):  # parts are being fitted: no weights are read for that
                return 0 * mean.mean()
            self._load()
        frozen = cast(Frozen, self.frozen)
        ours, theirs = self.pictures(mean), self.pictures(target)
        if self.crop:
            ours, theirs = cropped(ours, theirs, self.crop)
        layers = frozen.chosen(self.layers)
        with torch.no_grad():
            wanted = frozen(theirs, layers)
        return feature_distance(frozen, layers, frozen(ours, layers), wanted).mean().to(mean.dtype)

    def train(self, mode: bool = True) -> Self:
        """Reads the network's weights where they have not been; ToolkitError where they are not those of before."""
        super().train(mode)
        if mode:
            if self.frozen is None:
                self._load()
            self.weights_hash.copy_(torch.frombuffer(bytearray.fromhex(self._digest), dtype=torch.uint8))
        return self

    @property
    def _digest(self) -> str:
        return cast(Frozen, self.frozen).digest

    def _load(self) -> None:
        frozen = Frozen.load(*self.source)
        before = bytes(self.weights_hash.tolist()).hex()
        if before.strip("0") and before != frozen.digest:
            raise ToolkitError(
                f"objective=image_perceptual was trained against other weights of {self.source[0]} (SHA-256"
                f" {before[:12]}…) than there are now ({frozen.digest[:12]}…): give the former as weights=PATH"
            )
        frozen.chosen(self.layers)
        self.frozen = frozen.to(self.weights_hash.device, self.share.latest.dtype)


def _mean(likelihood: Distribution) -> Tensor:
    mean = likelihood.mean
    if mean is None or (torch.is_grad_enabled() and not mean.requires_grad):
        why = "none" if mean is None else "one without a gradient"
        raise ToolkitError(
            "objective=image_perceptual compares x with the likelihood's mean, and this decoder and likelihood have"
            f" {why}: choose likelihood=normal or logistic and a decoder such as image_conv, or objective=elbo"
        )
    return mean
