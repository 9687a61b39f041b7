"""The nearest entry of a table, without the table of all distances, and the gradient past it."""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from toolkit.nn.codebook import channels_last, straight_through, upcast
from toolkit.nn.rotation import rotation

GRADIENTS = {"straight_through": straight_through, "rotation": rotation}

Gradient = Annotated[
    Literal["straight_through", "rotation"],
    Doc(
        "of the latents: the entries' as it is, or turned back by the angle between the two (rotation trick, Fifty et"
        " al. 2024)."
    ),
]
Normalize = Annotated[
    bool,
    Doc("latents and entries are scaled to length 1 first, so that the nearest is the most alike in direction."),
]

TILE = 1 << 20
"""Distances held at once on a CPU: 4 MiB in float32, about a core's share of cache."""

GPU_TILE = 1 << 27
"""The same on a GPU, where many small products cost more than memory does: 512 MiB."""

ROWS = 128
"""Fewest rows of a tile: with fewer a matrix product waits for memory, so that a wide table is cut, too."""

BLOCK = 64
"""Neighbouring distances of which first only the smallest is asked for."""


@final
class Lookup:
    """How latents and entries are compared, and which gradient passes from the one to the other.

    ``gradient`` is a function of latents z and their entries e, both ``(batch, dim, *grid)``: e as values, with a
    gradient to z.
    """

    def __init__(self, gradient: Gradient, normalize: Normalize) -> None:
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient={gradient}: one of {', '.join(GRADIENTS)}")
        self.gradient, self.normalize = GRADIENTS[gradient], normalize

    def latents(self, z: Tensor, codebook: Tensor) -> Tensor:
        """z ``(batch, dim, *grid)``, of length 1 where asked for, and as precise as the codebook."""
        z = channels_last(z).to(upcast(codebook[:0]).dtype)
        return F.normalize(z, dim=1) if self.normalize else z

    def entries(self, codebook: Tensor) -> Tensor:
        """The codebook ``(codebook_size, dim)`` in at least float32, of length 1 where asked for."""
        entries = upcast(codebook)
        return F.normalize(entries, dim=1) if self.normalize else entries


@torch.no_grad()
def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index ``(n,)`` of the entry nearest to each row of z ``(n, dim)``; codebook ``(codebook_size, dim)``.

    The first of those that are equally near. Never holds all n x codebook_size distances. Distances are
    ``|e|^2 - 2 z e``, ``|z|^2`` being the same for every entry, about the entries' mean: far from the origin, where all
    numbers are large and alike, they would drown in rounding. Computed in at least float32 under any autocast: in
    bfloat16 neighbouring entries are confused.
    """
    with torch.autocast(z.device.type, enabled=False):
        codebook = upcast(codebook)
        centre = codebook.mean(0)
        entries = _whole_blocks(codebook - centre)
        rows, columns = _tile(len(entries), tile_size(z.device))
        parts = [(-2 * part, part.square().sum(1)) for part in entries.split(columns)]
        tiles = [_nearest(tile.to(codebook.dtype) - centre, parts) for tile in z.split(rows)]
        return torch.cat(tiles).clamp(max=len(codebook) - 1)


def tile_size(device: torch.device) -> int:
    """Distances held at once on a device."""
    return TILE if device.type == "cpu" else GPU_TILE


def _tile(size: int, numbers: int) -> tuple[int, int]:
    """Rows and columns of a tile: of whole blocks, and of the whole table where that leaves rows enough."""
    columns = min(size, max(1, numbers // ROWS // BLOCK) * BLOCK)
    return max(1, numbers // columns), columns


def _whole_blocks(codebook: Tensor) -> Tensor:
    """Copies of the last entry fill the last block: none is nearer than the last entry itself."""
    return F.pad(codebook.T, (0, -len(codebook) % BLOCK), mode="replicate").T


def _nearest(z: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Of a tile of rows, over the parts of a table: -2 e, and ``|e|^2``."""
    found = [_smallest(_linear(z, entries, norms)) for entries, norms in parts]
    values, codes = (torch.stack(each) for each in zip(*found, strict=True))
    part = values.argmin(0, keepdim=True)
    return (codes.gather(0, part) + part * len(parts[0][0])).squeeze(0)


def _linear(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``z weight^T + bias``: on a CPU by oneDNN, which on some is twice as fast as what addmm calls.

    Its operator is no part of torch's public interface, and so is called where it is there, and in no graph.
    """
    if z.device.type == "cpu" and z.dtype == torch.float32 and not torch.compiler.is_compiling():
        fast = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
        if fast is not None and torch.backends.mkldnn.is_available():
            distances: Tensor = fast(z, weight, bias, "none", [], "")
            return distances
    return torch.addmm(bias, z, weight.T)


def _smallest(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Value and index of the smallest of each row.

    A search for a place is several times slower than one for a value, and so is made in one block of the row alone.
    """
    blocks = distances.unflatten(1, (-1, BLOCK))
    rows, per_row, _ = blocks.shape
    block = blocks.amin(2).argmin(1)
    first = torch.arange(0, rows * per_row, per_row, device=block.device)
    values, places = blocks.flatten(0, 1).index_select(0, first + block).min(1)
    return values, block * BLOCK + places
