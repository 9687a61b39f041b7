"""A frozen random codebook behind a learned map."""

from __future__ import annotations

from typing import Annotated, Literal, Self, final, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.device import in_float32
from toolkit.nn import codebook as table
from toolkit.nn.codebook import CodebookSize, Commitment
from toolkit.nn.entropy import Entropy, EntropyRegularizer, EntropyTemperature
from toolkit.nn.folded import Folded
from toolkit.nn.lookup import LearnedGradient, Lookup, Normalize, nearest
from toolkit.nn.table_maps import TableAttention, TableMLP
from toolkit.quantizer import Quantized, Quantizer
from toolkit.ranges import PositiveInt

_Map = Literal["linear", "mlp", "attention"]

Map = Annotated[
    _Map,
    Doc(
        "what the frozen table goes through: a linear map alone, or one to which an MLP of each entry, or attention"
        " among all of them (VQBridge, arXiv:2509.10140), adds what it learns."
    ),
]


@final
class SimVQQuantizer(Quantizer):
    """Entries are ``C W``: C random and frozen, W learned (Zhu et al. 2024, "Addressing Representation Collapse in
    Vector Quantized Models with One Linear Layer"), or ``C W + f(C)``.

    Each latent's gradient moves W, and with it all entries, not only the nearest, so that none is left unused.
    The loss is ``|sg[z] - e|^2 + commitment * |z - sg[e]|^2``, summed over dim and averaged over positions. Computed in
    at least float32. Out of training the entries are computed once, and codes are looked up in a plain table.

    Args:
        hidden: width of the MLP, or of the attention, then a multiple of 4.
        layers: of the attention.
        group: neighboring entries that are one vector of the attention; it divides codebook_size.
    """

    depth = 1

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: CodebookSize = 512,
        commitment: Commitment = 0.25,
        map: Map = "linear",
        hidden: PositiveInt = 256,
        layers: PositiveInt = 2,
        group: PositiveInt = 16,
        gradient: LearnedGradient = "straight_through",
        normalize: Normalize = False,
        entropy: Entropy = 0.0,
        entropy_temperature: EntropyTemperature = 1.0,
    ) -> None:
        super().__init__()
        if map not in get_args(_Map):
            raise ValueError(f"map={map}: one of {', '.join(get_args(_Map))}")
        if map == "attention" and codebook_size % group:
            raise ValueError(f"group={group}: it must divide codebook_size={codebook_size}")
        self.channels = self.dim = dim
        self.codebook_sizes = table.single(codebook_size)
        self.commitment = commitment
        self.lookup = Lookup(gradient, normalize)
        self.entropy = EntropyRegularizer(entropy, entropy_temperature)
        self.codebook: Tensor
        self.register_buffer("codebook", torch.randn(codebook_size, dim) / dim**0.5)
        self.linear = nn.Linear(dim, dim, bias=False)
        self.map: nn.Module | None = None
        if map != "linear":
            self.map = TableMLP(dim, hidden) if map == "mlp" else TableAttention(dim, hidden, layers, group)
        self.folded = Folded()

    def forward(self, z: Tensor) -> Quantized:
        with in_float32(z.device):
            z = self.lookup.latents(z, self.codebook)
            rows = table.flatten(z)
            entries = self._entries()
            assignments = nearest(rows.detach(), entries)
            codes = table.unflatten(assignments, z)
            e = table.look_up(codes, entries)

            distance = table.distance(z, e.detach())
            loss = table.distance(z.detach(), e) + self.commitment * distance
            if self.lookup.by_direction:
                loss = torch.zeros_like(loss)
            if self.training and self.entropy.weight:
                loss = loss + self.entropy(rows, entries)

            kl = table.uniform_kl(z, len(entries))
            metrics = {"quantization_error": distance.detach().mean()}
            return Quantized(self.lookup.past(z, e, self.training), codes, loss, kl, metrics)

    def embed(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            return table.look_up(codes, self._entries())

    def train(self, mode: bool = True) -> Self:
        self.folded.clear()
        return super().train(mode)

    def _entries(self) -> Tensor:
        """``(codebook_size, dim)``; in eval mode the map is folded into them."""
        if self.training:
            return self._mapped()
        return self.folded.table([self.codebook, *self.parameters()], self._mapped)

    def _mapped(self) -> Tensor:
        mapped = self.linear(self.codebook)
        return self.lookup.entries(mapped if self.map is None else mapped + self.map(self.codebook))
