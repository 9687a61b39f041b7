"""How sure and how even a choice is, over all ranks, with a gradient."""

from __future__ import annotations

from typing import Annotated, final

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from typing_extensions import Doc

from toolkit.distributed import all_reduce_sum, ranks
from toolkit.nn import lookup

Entropy = Annotated[
    float,
    Doc(
        "weight of E[H(p)] - H(E[p]), p = softmax(-|z - e|^2 / entropy_temperature) over entries, in training: each"
        " latent sure of its entry, all entries used alike."
    ),
]
EntropyTemperature = Annotated[float, Doc("in units of squared distance; about 0.01 where latents are normalized.")]


@final
class EntropyRegularizer:
    """What a quantizer's loss gains so that each latent is sure of its entry, and all entries are used alike."""

    def __init__(self, weight: Entropy, temperature: EntropyTemperature) -> None:
        if temperature <= 0:
            raise ValueError(f"entropy_temperature={temperature}: above 0")
        self.weight, self.temperature = weight, temperature

    def __call__(self, rows: Tensor, entries: Tensor) -> Tensor:
        """``weight * (E[H(p)] - H(E[p]))`` of rows ``(n, dim)`` and entries ``(codebook_size, dim)``, 0-d."""
        sure, even = choice_entropies(rows, entries, self.temperature)
        return self.weight * (sure - even)


def choice_entropies(z: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """E[H(p)] and H(E[p]) in nats, means over the rows z ``(n, dim)``, for p = softmax(-|z - e|^2 / temperature).

    E[p] is over all ranks' rows: a rank's own share has the gradient that, averaged over ranks, is that of all.
    Made in tiles whose distances are computed again in the backward pass, so that n x codebook_size numbers are never
    held.
    """
    rows = max(1, lookup.tile_size(z.device) // len(codebook))
    centre = codebook.detach().mean(0)
    # Copies, too: averages may move the table before the backward pass looks at it again.
    z, codebook = z - centre, codebook - centre
    tiles = [
        checkpoint(_sums, tile, codebook, temperature, use_reentrant=False, preserve_rng_state=False)
        for tile in z.split(rows)
    ]
    entropies, chosen = (torch.stack(each).sum(0) / len(z) for each in zip(*tiles, strict=True))
    return entropies, entropy(over_ranks(chosen))


def _sums(z: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Over a tile's rows: of H(p), and of p."""
    logits = torch.addmm(codebook.square().sum(1), z, codebook.T, beta=-1 / temperature, alpha=2 / temperature)
    logp = logits.log_softmax(1)
    p = logp.exp()
    return -(p * logp).sum(), p.sum(0)


def entropy(shares: Tensor) -> Tensor:
    """Nats, 0-d, of shares that sum to one; one that underflowed to 0 adds 0, with a finite gradient."""
    return -(shares * shares.clamp(min=torch.finfo(shares.dtype).tiny).log()).sum()


def over_ranks(mean: Tensor) -> Tensor:
    """The mean of the ranks' means as value, with the gradient of this rank's: the ranks' gradients are averaged."""
    overall = mean.detach().clone()
    all_reduce_sum(overall)
    return overall / ranks() + (mean - mean.detach())
