"""A random table that stays as it is, seen through one learned linear map."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

from toolkit.quantizers.table import TableQuantizer


@final
class SimVQQuantizer(TableQuantizer):
    """Entries are ``C W``: C random and frozen, W learned (Zhu et al. 2024, "Addressing Representation Collapse in
    Vector Quantized Models with One Linear Layer").

    Each latent's gradient moves W, and with it all entries, not only the one that won: none is left behind.
    The loss is ``|sg[z] - e|^2 + commitment * |z - sg[e]|^2``, summed over dim and averaged over positions.

    Args:
        codebook_size: entries of the codebook, K.
        commitment: beta.
        gradient: of the latents: the entries' as it is, or turned back by the angle between the two (rotation trick,
            Fifty et al. 2024).
        normalise: latents and entries are scaled to length 1 first, so that the nearest is the most alike in direction.
        entropy: weight of E[H(p)] - H(E[p]), p = softmax(-|z - e|^2 / entropy_temperature) over entries, in training:
            each latent sure of its entry, all entries used alike.
        entropy_temperature: in units of squared distance; about 0.01 where latents are normalised.
    """

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: int = 512,
        commitment: float = 0.25,
        gradient: Literal["straight_through", "rotation"] = "straight_through",
        normalise: bool = False,
        entropy: float = 0.0,
        entropy_temperature: float = 1.0,
    ) -> None:
        super().__init__(
            dim,
            codebook_size=codebook_size,
            commitment=commitment,
            gradient=gradient,
            normalise=normalise,
            entropy=entropy,
            entropy_temperature=entropy_temperature,
        )
        self.register_buffer("codebook", torch.randn(codebook_size, dim) / dim**0.5)
        self.linear = nn.Linear(dim, dim, bias=False)

    def entries(self) -> Tensor:
        entries: Tensor = self.linear(self.codebook)
        return entries
