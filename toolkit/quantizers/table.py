"""What quantizers with a table of entries share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from toolkit.nn import codebook as table
from toolkit.nn.entropy import choice_entropies
from toolkit.nn.lookup import nearest
from toolkit.nn.rotation import rotation
from toolkit.quantizer import Quantized, Quantizer

GRADIENTS = {"straight_through": table.straight_through, "rotation": rotation}


class TableQuantizer(Quantizer):
    """The nearest entry of a table in place of each latent; how entries come about and are learned, a leaf says.

    Computed in at least float32 under any autocast. The options are those of the leaves.
    """

    depth = 1

    draws_entries: bool = True
    """Whether the loss has the term that draws entries to latents, ``|sg[z] - e|^2``."""
    codebook: Tensor
    """The table ``(codebook_size, dim)`` that is stored."""

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: int,
        commitment: float,
        gradient: Literal["straight_through", "rotation"],
        normalise: bool,
        entropy: float,
        entropy_temperature: float,
    ) -> None:
        super().__init__()
        if codebook_size < 1:
            raise ValueError(f"codebook_size={codebook_size}: at least 1")
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient={gradient}: one of {', '.join(GRADIENTS)}")
        if entropy_temperature <= 0:
            raise ValueError(f"entropy_temperature={entropy_temperature}: above 0")
        self.channels = self.dim = dim
        self.codebook_sizes = (codebook_size,)
        self.commitment, self.gradient, self.normalise = commitment, gradient, normalise
        self.entropy, self.entropy_temperature = entropy, entropy_temperature

    def entries(self) -> Tensor:
        """The table that is looked into, with a gradient where it is learned by one."""
        return self.codebook

    def begin(self, rows: Tensor) -> None:
        """In training, before the look-up; rows ``(n, dim)`` are the batch's latents."""

    def follow(self, rows: Tensor, won: Tensor) -> None:
        """In training, after the look-up; won ``(n,)`` are the rows' entries."""

    def forward(self, z: Tensor) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            z = self._latents(z)
            rows = table.flatten(z)
            if self.training:
                self.begin(rows.detach())
            codebook = self._codebook()
            won = nearest(rows.detach(), codebook)
            codes = table.unflatten(won, z)
            e = table.look_up(codes, codebook)
            loss, error = self._loss(z, e)
            if self.training:
                if self.entropy:
                    loss = loss + self.entropy * self._uneven(rows, codebook)
                self.follow(rows.detach(), won)
            kl = table.uniform_kl(z, len(codebook))
            return Quantized(GRADIENTS[self.gradient](z, e), codes, loss, kl, {"quantization_error": error})

    def embed(self, codes: Tensor) -> Tensor:
        with torch.autocast(codes.device.type, enabled=False):
            return table.look_up(codes, self._codebook())

    def _latents(self, z: Tensor) -> Tensor:
        z = table.channels_last(z).to(table.widen(self.codebook[:0]).dtype)
        return normalize(z, dim=1) if self.normalise else z

    def _codebook(self) -> Tensor:
        entries = table.widen(self.entries())
        return normalize(entries, dim=1) if self.normalise else entries

    def _loss(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """Equation 3's second and third term ``(batch,)``, and the mean squared distance."""
        distance = table.distance(z, e.detach())
        loss = self.commitment * distance
        if self.draws_entries:
            loss = table.distance(z.detach(), e) + loss
        return loss, distance.detach().mean()

    def _uneven(self, rows: Tensor, codebook: Tensor) -> Tensor:
        each, together = choice_entropies(rows, codebook, self.entropy_temperature)
        return each - together
