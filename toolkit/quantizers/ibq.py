"""A codebook all of whose entries learn from every latent."""

from __future__ import annotations

from typing import Annotated, Literal, final, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.device import in_float32
from toolkit.nn import codebook as table
from toolkit.nn.codebook import CodebookSize
from toolkit.nn.codebook_init import CodebookInit, Init, random_entries
from toolkit.nn.entropy import Entropy, EntropyRegularizer, EntropyTemperature
from toolkit.nn.lookup import Lookup, Normalize, nearest
from toolkit.nn.one_hot import choose
from toolkit.quantizer import Quantized, Quantizer
from toolkit.ranges import NonNegative, Positive

_Compare = Literal["product", "distance"]

Compare = Annotated[
    _Compare,
    Doc(
        "what is softmaxed over entries e: the distances -|z - e|^2, or the products z e of the paper. Those favor long"
        " entries: where latents have a mean, the few that lie farthest along it are chosen, and the rest never are."
    ),
]


@final
class IBQQuantizer(Quantizer):
    """The likeliest entry of a softmax over all, whose gradient reaches all (index backpropagation quantization, Shi et
    al. 2024, arXiv:2412.02692).

    With ``p = softmax(-|z - e|^2 / temperature)`` over entries, or of the paper's products z e, the latents are
    ``z_q = (hard + p - sg[p]) e``, hard the one-hot of p's largest, so that values are entries and every entry and the
    latents have p's gradient. The loss is::

        |z - z_q|^2 + commitment * |z - sg[e]|^2 + codebook * |sg[z] - e|^2

    where e is the chosen entry; each norm is summed over dim and averaged over positions. p is computed in tiles, in
    the backward pass alone, so that it is never in memory as a whole. Computed in at least float32.

    Args:
        commitment: weight of |z - sg[e]|^2, which draws latents to their entries.
        codebook: weight of |sg[z] - e|^2, which draws entries to their latents.
        temperature: of the softmax.
    """

    depth = 1

    def __init__(
        self,
        dim: int,
        *,
        codebook_size: CodebookSize = 512,
        commitment: NonNegative = 1.0,
        codebook: NonNegative = 0.25,
        init: Init = "data",
        compare: Compare = "distance",
        temperature: Positive = 1.0,
        normalize: Normalize = False,
        entropy: Entropy = 0.0,
        entropy_temperature: EntropyTemperature = 1.0,
    ) -> None:
        super().__init__()
        if compare not in get_args(_Compare):
            raise ValueError(f"compare={compare}: one of {', '.join(get_args(_Compare))}")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: above 0")
        self.channels = self.dim = dim
        self.codebook_sizes = table.single(codebook_size)
        self.commitment, self.codebook_weight = commitment, codebook
        self.compare, self.temperature = compare, temperature
        self.init = CodebookInit(init, dead_code_threshold=0)
        self.lookup = Lookup("straight_through", normalize)
        self.entropy = EntropyRegularizer(entropy, entropy_temperature)
        self.initialized: Tensor
        self.register_buffer("initialized", torch.tensor(False))
        self.codebook = nn.Parameter(random_entries(codebook_size, dim))
        self.register_load_state_dict_post_hook(self.init.mirror)

    def forward(self, z: Tensor) -> Quantized:
        with in_float32(z.device):
            z = self.lookup.latents(z, self.codebook)
            rows = table.flatten(z)
            if self.training and not self.init.begun:
                self._begin(rows.detach())
            entries = self.lookup.entries(self.codebook)
            assignments = self._likeliest(rows.detach(), entries.detach())
            codes = table.unflatten(assignments, z)
            e = table.look_up(codes, entries)
            # |z - e|^2 is |e|^2 - 2 z e and what is the same for all entries.
            weights = (2.0, 1.0) if self.compare == "distance" else (1.0, 0.0)
            scale, squares = (weight / self.temperature for weight in weights)
            chosen = choose(rows, entries, assignments, scale, squares).view_as(z.movedim(1, -1)).movedim(-1, 1)

            distance = table.distance(z, e.detach())
            loss = table.distance(z, chosen) + self.commitment * distance
            loss = loss + self.codebook_weight * table.distance(z.detach(), e)
            if self.training and self.entropy.weight:
                loss = loss + self.entropy(rows, entries)

            kl = table.uniform_kl(z, entries.shape[0])
            metrics = {"quantization_error": distance.detach().mean()}
            return Quantized(chosen, codes, loss, kl, metrics)

    def embed(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            return table.look_up(codes, self.lookup.entries(self.codebook))

    def _likeliest(self, rows: Tensor, entries: Tensor) -> Tensor:
        """The largest product is the least distance where one more dim makes all entries equally long."""
        if self.compare == "distance":
            return nearest(rows, entries)
        squares = entries.square().sum(1, keepdim=True)
        return nearest(F.pad(rows, (0, 1)), torch.cat([entries, (squares.amax() - squares).sqrt()], 1))

    @torch.no_grad()
    def _begin(self, rows: Tensor) -> None:
        new = self.init.begin(rows, self.codebook, self.initialized)
        self.codebook.copy_(new.entries)
