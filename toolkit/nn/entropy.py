"""Entropies of soft assignments, per latent and on average, over all ranks, with a gradient."""

from __future__ import annotations

from typing import Annotated, final

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from typing_extensions import Doc

from toolkit.device import exact
from toolkit.distributed import all_reduce_sum, ranks
from toolkit.lengths.ranks import weighted
from toolkit.nn import lookup
from toolkit.ranges import NonNegative, Positive

Entropy = Annotated[
    NonNegative,
    Doc(
        "weight of E[H(p)] - H(E[p]), p = softmax(-|z - e|^2 / entropy_temperature) over entries, in training: sure"
        " assignments of latents, even use of entries."
    ),
]
EntropyTemperature = Annotated[Positive, Doc("in units of squared distance; about 0.01 where latents are normalized.")]


@final
class EntropyRegularizer:
    """A loss for sure assignments of latents and even use of entries."""

    def __init__(self, weight: Entropy, temperature: EntropyTemperature) -> None:
        if temperature <= 0:
            raise ValueError(f"entropy_temperature={temperature}: above 0")
        self.weight, self.temperature = weight, temperature

    def likeness(self) -> tuple[object, ...]:
        return self.weight, self.temperature

    def __call__(self, rows: Tensor, entries: Tensor) -> Tensor:
        """``weight * (E[H(p)] - H(E[p]))`` of rows ``(…, n, dim)`` and entries ``(…, codebook_size, dim)``: ``(…)``."""
        sure, even = choice_entropies(rows, entries, self.temperature)
        return self.weight * (sure - even)


def choice_entropies(z: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """E[H(p)] and H(E[p]) in nats, ``(…)``: means over the rows z ``(…, n, dim)`` of p = softmax(-|z - e|^2 /
    temperature), over the entries of a codebook ``(…, codebook_size, dim)``.

    E[p] is over all ranks' rows; each rank's gradient is that of its own rows, so that their average is that of all.
    Computed in tiles whose distances are recomputed in the backward pass, so that n x codebook_size numbers are never
    in memory.
    """
    rows = max(1, lookup.tile_size(z.device) // codebook[..., 0].numel())
    center = codebook.detach().mean(-2, keepdim=True)
    # Also copies: moving averages may change the codebook before the backward pass reads it again.
    z, codebook = z - center, codebook - center
    tiles = [
        checkpoint(_sums, tile, codebook, temperature, use_reentrant=False, preserve_rng_state=False)
        for tile in z.split(rows, -2)
    ]
    entropies, usage = (torch.stack(sums).sum(0) / z.shape[-2] for sums in zip(*tiles, strict=True))
    return weighted(entropies), _of_each(over_ranks(usage)).sum(-1)


def _sums(z: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Sums over a tile's rows, of H(p) and of p."""
    norms, product = codebook.square().sum(-1).unsqueeze(-2), torch.baddbmm if z.dim() == 3 else torch.addmm
    with exact(z.device):
        logits = product(norms, z, codebook.mT, beta=-1 / temperature, alpha=2 / temperature)
    logp = logits.log_softmax(-1)
    p = logp.exp()
    return -(p * logp).sum((-2, -1)), p.sum(-2)


def entropy(probs: Tensor) -> Tensor:
    """Nats, 0-d, of probabilities that sum to one; one that underflowed to 0 adds 0, with a finite gradient."""
    return _of_each(probs).sum()


def _of_each(probs: Tensor) -> Tensor:
    """What each adds to the entropy."""
    return -(probs * probs.clamp(min=torch.finfo(probs.dtype).tiny).log())


def over_ranks(mean: Tensor) -> Tensor:
    """The mean over ranks as value, with the gradient of this rank's mean, as gradients are averaged over ranks."""
    mean = weighted(mean)
    overall = mean.detach().clone()
    all_reduce_sum(overall)
    return overall / ranks() + (mean - mean.detach())
