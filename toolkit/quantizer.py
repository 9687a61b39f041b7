"""The interface of quantizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import isfinite
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from toolkit.errors import NotFiniteError, ToolkitError
from toolkit.fit import BrokenPartError, check_declared, title
from toolkit.spec import CodeGrid


class Quantized(NamedTuple):
    """A quantizer's result for a batch of latents."""

    z: Tensor
    """``(batch, dim, *grid)``, with a gradient to the encoder: straight-through, relaxed or reparameterized."""
    codes: Tensor
    """``(batch, depth, *grid)``, int64; the grid is ``Quantizer.code_grid``'s."""
    loss: Tensor
    """``(batch,)``: codebook, commitment and other losses of the quantizer, weighted, differentiable."""
    kl: Tensor
    """``(batch,)`` nats from the code posterior to the uniform prior (of a continuous bottleneck, to the unit normal),
    summed over positions."""
    metrics: dict[str, Tensor]
    """Metrics of this quantizer, 0-d, by name."""


@final
class Posterior:
    """q(codes given x): independent over positions and depths.

    ``logits``: for each depth ``(batch, codebook_size, *grid)``.
    """

    def __init__(self, logits: Sequence[Tensor]) -> None:
        self.log_probs = [depth_logits.log_softmax(1) for depth_logits in logits]

    def sample(self, n: int) -> Tensor:
        """``n`` samples: codes ``(n, batch, depth, *grid)``."""
        return torch.stack([_sample(log_probs, n) for log_probs in self.log_probs], 2)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Nats ``(n, batch)`` of codes ``(n, batch, depth, *grid)``, with a gradient to the logits."""
        nats = [p.gather(1, codes[:, :, depth].movedim(0, 1)) for depth, p in enumerate(self.log_probs)]
        return torch.stack([of_depth.flatten(2).sum(2) for of_depth in nats]).sum(0).T

    def entropy(self) -> Tensor:
        """Nats ``(batch,)``, summed over positions and depths."""
        return torch.stack([-(p.exp() * p).flatten(1).sum(1) for p in self.log_probs]).sum(0)


class Quantizer(nn.Module, ABC):
    """Latents to codes and back.

    The constructor may ask for ``dim: int``, set once at the top of the configuration.

    Laws, checked by toolkit.testing.QuantizerSuite:
      embed(forward(z).codes) == forward(z).z      in eval mode, as values
      codes lie on code_grid
      where local, positions do not influence one another
      in eval mode, forward changes no state
      the gradient of the loss reaches every depth
    """

    channels: int
    """Input channels: those of the encoder's latents."""
    dim: int
    """Output channels: those of the decoder's latents."""
    depth: int
    """Codes per position; 0 for a continuous bottleneck."""
    codebook_sizes: tuple[int, ...]
    """One size per depth."""

    has_posterior: bool = False
    """Whether ``posterior`` is defined."""
    local: bool = True
    """Whether each position of z is quantized by itself, whatever the others are."""

    @abstractmethod
    def forward(self, z: Tensor) -> Quantized:
        """z ``(batch, channels, *grid)``. In eval mode it takes the likeliest codes, and nothing is random."""

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """codes ``(batch, d, *grid)``, of the first d depths, to latents ``(batch, dim, *grid)``.

        Each on its own grid, where ``code_grid`` gives codes another.
        """

    def code_grid(self, grid: tuple[int, ...]) -> CodeGrid:
        """Where the codes of latents on ``grid`` lie: by default there, as they must where ``local``.

        Another grid of as many axes, each along the latents' own, or the parts of a flat grid: codes at the scales
        ``((1, 1), (2, 2), (4, 4))`` are ``(batch, depth, 21)``, one part after the other, each in raster order, and 32
        codes that belong to no position are ``((32,),)``. ``embed`` is given these positions alone, so that a quantizer
        with parts knows the latents' grid itself, such as from an option that names the scales, the last of which is
        that grid; a run with parts models examples of one size. ValueError for latents on a grid that it cannot take.
        """
        return grid

    def sample(self, z: Tensor) -> Quantized:
        """A sample from the code posterior, not relaxed, with its exact kl: what a bound is measured on.

        Where codes are a function of z this is ``forward``.
        """
        return self(z)

    def posterior(self, z: Tensor) -> Posterior:
        """The exact distribution over codes; z as in ``forward``. ToolkitError where it is not defined."""
        raise ToolkitError(f"{title(self)} has no posterior over codes")

    def __call__(self, z: Tensor) -> Quantized:
        """``forward``, after the latents are checked."""
        self.check(z)
        return self.unchecked(z)

    def unchecked(self, z: Tensor) -> Quantized:
        """``forward`` on latents that an outer quantizer has checked already."""
        quantized: Quantized = super().__call__(z)
        return quantized

    def check(self, z: Tensor) -> None:
        """ToolkitError for latents of the wrong shape, and for NaN or infinity.

        Their values are not checked where that would stall a GPU in training, or break a compiled graph: the training
        loop watches the loss. Within ``checks_deferred`` those of a GPU are looked at later.
        """
        if z.dim() < 3 or z.shape[1] != self.channels or 0 in z.shape:
            raise ToolkitError(
                f"{title(self)}: latents have shape {tuple(z.shape)}; expected (batch, {self.channels}, *grid), with at"
                " least one grid axis and no empty axis"
            )
        deferred = _DEFERRED.get()
        if deferred is not None and z.device.type != "cpu":
            deferred.append(z.detach().isfinite().all())
        elif not _costly_to_read(z, self.training) and not _finite(z):
            raise NotFiniteError(
                f"{title(self)}: latents are NaN or infinite; check the data for such values, or train the encoder with"
                " a lower learning_rate"
            )


_DEFERRED: ContextVar[list[Tensor] | None] = ContextVar("deferred", default=None)


@contextmanager
def checks_deferred() -> Iterator[list[Tensor]]:
    """While the block lasts no quantizer waits for a GPU to check latents that lie there: the list gets a 0-d bool for
    each check, whether they are finite."""
    checks: list[Tensor] = []
    token = _DEFERRED.set(checks)
    try:
        yield checks
    finally:
        _DEFERRED.reset(token)


def check_quantizer(quantizer: Quantizer) -> None:
    """BrokenPartError where it does not set what a quantizer must."""
    widths = {"channels": "the channels that it takes", "dim": "the channels that it gives the decoder"}
    check_declared(quantizer, "quantizer", widths)
    sizes, depth = getattr(quantizer, "codebook_sizes", None), getattr(quantizer, "depth", None)
    if not isinstance(sizes, tuple) or not all(type(size) is int and size > 0 for size in sizes):
        text = f"has codebook_sizes={sizes!r}: a quantizer must set it, one positive int for each depth"
        raise BrokenPartError(quantizer, text)
    if depth != len(sizes):
        text = f"has depth={depth!r} and codebook_sizes={sizes}: a quantizer must set depth, the number of these"
        raise BrokenPartError(quantizer, text)


def _sample(log_probs: Tensor, n: int) -> Tensor:
    """``(batch, codebook_size, *grid)`` to ``(n, batch, *grid)``."""
    rows = log_probs.detach().exp().movedim(1, -1)
    codes = torch.multinomial(rows.flatten(0, -2), n, replacement=True)
    return codes.T.reshape(n, *rows.shape[:-1])


def _costly_to_read(z: Tensor, training: bool) -> bool:
    stalls = training and z.device.type != "cpu"
    return stalls or torch.compiler.is_compiling() or isinstance(z, FakeTensor)


def _finite(z: Tensor) -> bool:
    return all(map(isfinite, torch.stack(torch.aminmax(z.detach())).tolist()))
