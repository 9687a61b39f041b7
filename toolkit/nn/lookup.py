"""The nearest entry of a codebook, in tiles of distances, and the gradient past it."""

from __future__ import annotations

from typing import Annotated, Literal, final

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.nn import functional as F
from typing_extensions import Doc

from toolkit.nn.codebook import channels_last, straight_through, upcast
from toolkit.nn.rotation import rotation

GRADIENTS = {"straight_through": straight_through, "rotation": rotation}

Gradient = Annotated[
    Literal["straight_through", "rotation"],
    Doc(
        "of the latents: the entries' gradient as it is, or rotated back by the angle between the two (rotation trick,"
        " Fifty et al. 2024)."
    ),
]
Normalize = Annotated[
    bool,
    Doc("scale latents and entries to length 1 first, so that the nearest entry has the most similar direction."),
]

TILE = 1 << 20
"""Distances in memory at once on a CPU: 4 MiB in float32, about a core's share of cache."""

GPU_TILE = 1 << 27
"""The same on a GPU, where many small products cost more than memory does: 512 MiB."""

ROWS = 128
"""Fewest rows of a tile: with fewer, matrix products are bound by memory, so large codebooks are tiled, too."""

BLOCK = 64
"""Neighboring distances that are first reduced to their minimum."""


@final
class Lookup:
    """How latents and entries are compared, and which gradient the latents get.

    ``gradient`` is a function of latents z and their entries e, both ``(batch, dim, *grid)``: e as values, with a
    gradient to z.
    """

    def __init__(self, gradient: Gradient, normalize: Normalize) -> None:
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient={gradient}: one of {', '.join(GRADIENTS)}")
        self.gradient, self.normalize = GRADIENTS[gradient], normalize

    def latents(self, z: Tensor, codebook: Tensor) -> Tensor:
        """z ``(batch, dim, *grid)`` in the codebook's precision, at least float32; normalized if so configured."""
        z = channels_last(z).to(upcast(codebook[:0]).dtype)
        return F.normalize(z, dim=1) if self.normalize else z

    def entries(self, codebook: Tensor) -> Tensor:
        """The codebook ``(codebook_size, dim)`` in at least float32; normalized if so configured."""
        entries = upcast(codebook)
        return F.normalize(entries, dim=1) if self.normalize else entries


@torch.no_grad()
def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index ``(n,)`` of the entry nearest to each row of z ``(n, dim)``; codebook ``(codebook_size, dim)``.

    The first of equally near ones. Never has all n x codebook_size distances in memory, but in a graph that is
    exported, where the number of rows must stay free. Distances are
    ``|e|^2 - 2 z e``, as ``|z|^2`` is the same for every entry, relative to the entries' mean: far from the origin,
    where all numbers are large and similar, they would be lost to rounding. Computed in at least float32 under any
    autocast: in bfloat16 neighboring entries are confused.
    """
    with torch.autocast(z.device.type, enabled=False):
        codebook = upcast(codebook)
        center = codebook.mean(0)
        entries = _whole_blocks(codebook - center)
        rows, columns = _tile(len(entries), tile_size(z.device))
        parts = [(-2 * part, part.square().sum(1)) for part in entries.split(columns)]
        # Fake rows need no memory, but every tile of them time; a graph would fix how many tiles there are.
        whole = isinstance(z, FakeTensor) or torch.compiler.is_exporting()
        tiles = [_nearest(tile.to(codebook.dtype) - center, parts) for tile in ([z] if whole else z.split(rows))]
        return torch.cat(tiles).clamp(max=len(codebook) - 1)


def tile_size(device: torch.device) -> int:
    """Distances in memory at once on a device."""
    return TILE if device.type == "cpu" else GPU_TILE


def _tile(size: int, numbers: int) -> tuple[int, int]:
    """Rows and columns of a tile: whole blocks, and the whole codebook where that leaves enough rows."""
    columns = min(size, max(1, numbers // ROWS // BLOCK) * BLOCK)
    return max(1, numbers // columns), columns


def _whole_blocks(codebook: Tensor) -> Tensor:
    """Fills the last block with copies of the last entry: none is nearer than the last entry itself."""
    return F.pad(codebook.T, (0, -len(codebook) % BLOCK), mode="replicate").T


def _nearest(z: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Nearest entries of a tile of rows, over the codebook's parts: -2 e, and ``|e|^2``."""
    minima = [_smallest(_linear(z, entries, norms)) for entries, norms in parts]
    values, codes = (torch.stack(tensors) for tensors in zip(*minima, strict=True))
    part = values.argmin(0, keepdim=True)
    return (codes.gather(0, part) + part * len(parts[0][0])).squeeze(0)


def _linear(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``z weight^T + bias``: on a CPU by oneDNN, which on some is twice as fast as what addmm calls.

    Its operator is not part of torch's public interface, so it is called only where it exists, and in no graph.
    """
    if z.device.type == "cpu" and z.dtype == torch.float32 and not torch.compiler.is_compiling():
        fast = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
        if fast is not None and torch.backends.mkldnn.is_available():
            distances: Tensor = fast(z, weight, bias, "none", [], "")
            return distances
    return torch.addmm(bias, z, weight.T)


def _smallest(distances: Tensor) -> tuple[Tensor, Tensor]:
    """Value and index of the smallest of each row.

    Finding an index is several times slower than finding a value, so it is done in one block of the row only.
    """
    blocks = distances.unflatten(1, (-1, BLOCK))
    rows, per_row, _ = blocks.shape
    block = blocks.amin(2).argmin(1)
    first = torch.arange(0, rows * per_row, per_row, device=block.device)
    values, indices = blocks.flatten(0, 1).index_select(0, first + block).min(1)
    return values, block * BLOCK + indices
