"""How latents and entries are compared, the nearest entry in tiles of distances, and the gradient past it."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, final

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.nn import functional as F
from typing_extensions import Doc

from toolkit.device import in_float32
from toolkit.nn import exact
from toolkit.nn.codebook import channels_last, numbered, straight_through, upcast
from toolkit.nn.direction import direction
from toolkit.nn.rotation import rotation

GRADIENTS = {"straight_through": straight_through, "rotation": rotation, "direction": straight_through}
"""The last out of training, in which it is ``direction``."""

Gradient = Annotated[
    Literal["straight_through", "rotation"],
    Doc(
        "of the latents: the entries' gradient as it is, or rotated back by the angle between the two (rotation trick,"
        " Fifty et al. 2024)."
    ),
]
LearnedGradient = Annotated[
    Literal["straight_through", "rotation", "direction"],
    Doc(
        "of the latents: the entries' gradient as it is, or rotated back by the angle between the two (rotation trick,"
        " Fifty et al. 2024); or, of latents and entries, that of the way between them, whose direction has noise in"
        " training, in place of the loss (DiVeQ, Vali et al. 2025), for which entries should be revived."
    ),
]
Normalize = Annotated[
    bool,
    Doc("scale latents and entries to length 1 first, so that the nearest entry has the most similar direction."),
]
Compare = Annotated[
    Literal["distance", "direction"],
    Doc(
        "which entry is nearest: the one at the least distance, or in the most similar direction, however long the two"
        " are. Unlike normalize, direction leaves lengths as they are."
    ),
]

TILE = 1 << 20
"""Distances in memory at once on a CPU: 4 MiB in float32, about a core's share of cache."""

GPU_TILE = 1 << 27
"""The same on a GPU, where many small products cost more than memory does: 512 MiB."""

DIRECT, DIRECT_ROWS = 1 << 17, 8
"""Differences, and rows, up to which all distances are computed directly on a CPU, as of the latents of a stream: the
operations that spare arithmetic would take longer."""

ROWS = 128
"""Fewest rows of a tile: with fewer, matrix products are bound by memory, so large codebooks are tiled, too."""

BLOCK = 64
"""Neighboring distances that are first reduced to their minimum."""

FEW = 4
"""Entries among which the nearest is chosen exactly where every row must cost the same: on a GPU, in a graph."""


@final
class Lookup:
    """How latents and entries are compared, and which gradient the latents get.

    ``gradient`` is a function of latents z and their entries e, both ``(batch, dim, *grid)``: e as values, with a
    gradient to z. ``by_direction``: in training it is ``toolkit.nn.direction`` instead, and there is no loss but the
    entropy's; not where entries are not ``learned`` by gradient.
    """

    def __init__(
        self, gradient: LearnedGradient, normalize: Normalize, compare: Compare = "distance", learned: bool = True
    ) -> None:
        known = [name for name in GRADIENTS if learned or name != "direction"]
        if gradient not in known:
            raise ValueError(f"gradient={gradient}: one of {', '.join(known)}")
        self.gradient, self.normalize, self.compare = GRADIENTS[gradient], normalize, compare
        self.by_direction = gradient == "direction"

    def likeness(self) -> tuple[object, ...]:
        return self.gradient, self.normalize, self.compare, self.by_direction

    def past(self, z: Tensor, e: Tensor, training: bool) -> Tensor:
        """The entries e, or what is near them, with a gradient past the look-up; both ``(batch, dim, *grid)``."""
        return direction(z, e) if training and self.by_direction else self.gradient(z, e)

    def latents(self, z: Tensor, codebook: Tensor) -> Tensor:
        """z ``(batch, dim, *grid)`` in the codebook's precision, at least float32; normalized if so configured."""
        z = channels_last(z).to(upcast(codebook[:0]).dtype)
        return F.normalize(z, dim=1) if self.normalize else z

    def entries(self, codebook: Tensor) -> Tensor:
        """A codebook ``(…, codebook_size, dim)`` in at least float32; normalized if so configured."""
        entries = upcast(codebook)
        return F.normalize(entries, dim=-1) if self.normalize else entries

    def compared(self, *vectors: Tensor) -> tuple[Tensor, ...]:
        """Rows and entries ``(…, dim)`` as they are compared by distance."""
        return tuple(F.normalize(t, dim=-1) for t in vectors) if self.compare == "direction" else vectors


@torch.no_grad()
def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index ``(n,)`` of the entry nearest to each row of z ``(n, dim)``; codebook ``(codebook_size, dim)``.

    Or ``(tables, n)`` of rows ``(tables, n, dim)`` and codebooks ``(tables, codebook_size, dim)``, each in its own.
    The first of equally near ones, by squared distances ``(z - e)^2`` summed over dim in at least float32, under any
    autocast: in bfloat16 neighboring entries are confused. To find it, distances are first expanded to
    ``|e|^2 - 2 z e``, which is a matrix product, never with all n x codebook_size in memory but in a graph that is
    exported, where the number of rows must stay free. An expanded distance is rounded by up to a known bound; where the
    bound leaves more than one entry, they are compared directly. On a GPU and in an exported graph, where no row may
    cost more than another, those are the ``FEW`` that seem nearest; at most four dims are compared directly there, and
    a single dim is sorted and searched, but in an exported graph.
    """
    if torch.compiler.is_exporting():
        return _nearest(z, codebook)
    if torch.compiler.is_compiling() or isinstance(z, FakeTensor):
        nearest_entries: Tensor = _opaque(z, codebook)
        return nearest_entries
    return _nearest(z, codebook)


@torch.library.custom_op("toolkit::nearest", mutates_args=())
def _opaque(z: Tensor, codebook: Tensor) -> Tensor:
    """``nearest`` as one operation of a compiled graph: which entries it compares directly depends on the data."""
    return _nearest(z, codebook)


@_opaque.register_fake
def _(z: Tensor, codebook: Tensor) -> Tensor:
    return z.new_empty(z.shape[:-1], dtype=torch.int64)


class _Tables(NamedTuple):
    """Codebooks of one shape, ready to be searched."""

    entries: Tensor
    """``(tables, codebook_size, dim)``."""
    center: Tensor
    """Their means ``(tables, 1, dim)``: far from the origin, where all numbers are large and similar, differences are
    lost to rounding."""
    parts: list[tuple[Tensor, Tensor]]
    """Of whole blocks of centered entries, e and ``|e|^2``, ``(tables, columns, dim)`` and ``(tables, columns)``; what
    fills the last block is infinitely far."""
    rows: int
    """How many latents of each table to compare at once."""

    @property
    def size(self) -> int:
        return self.entries.shape[1]

    def of(self, table: int) -> list[tuple[Tensor, Tensor]]:
        """The parts of one table."""
        return [(entries[table], norms[table]) for entries, norms in self.parts]


def _nearest(z: Tensor, codebook: Tensor) -> Tensor:
    with in_float32(z.device):
        if codebook.dim() == 2:
            return _nearest(z.unsqueeze(0), codebook.unsqueeze(0)).squeeze(0)
        codebook = upcast(codebook)
        z = z.to(codebook.dtype)
        whole = torch.compiler.is_exporting()  # a graph would fix how many tiles there are
        if codebook.shape[2] == 1 and not whole:  # ONNX has no stable sort
            pairs = zip(z.squeeze(2), codebook.squeeze(2), strict=True)
            return torch.stack([exact.on_a_line(of_table, points) for of_table, points in pairs])
        if z.device.type == "cpu" and not whole and _few(z, codebook):
            return torch.stack([exact.nearest_of_all(*pair) for pair in zip(z, codebook, strict=True)])
        tables = _tables(codebook)
        if z.device.type == "cpu" and not whole:
            return _among_all(z, tables)
        return torch.cat([_among_few(tile, tables) for tile in ([z] if whole else z.split(tables.rows, 1))], 1)


def _few(z: Tensor, codebook: Tensor) -> bool:
    return z.shape[1] <= DIRECT_ROWS and z.shape[1] * codebook[0].numel() <= DIRECT


def tile_size(device: torch.device) -> int:
    """Distances in memory at once on a device."""
    return TILE if device.type == "cpu" else GPU_TILE


def _tables(codebook: Tensor) -> _Tables:
    tables, size, dim = codebook.shape
    center = codebook.mean(1, keepdim=True)
    missing = -size % BLOCK
    entries = codebook - center
    norms = torch.linalg.vector_norm(entries, dim=2).square_()
    if missing:
        entries, norms = F.pad(entries, (0, 0, 0, missing)), F.pad(norms, (0, missing), value=torch.inf)
    numbers = tile_size(codebook.device)
    rows, columns = _tile(size + missing, numbers)
    parts = list(zip(entries.split(columns, 1), norms.split(columns, 1), strict=True))
    if codebook.device.type != "cpu":  # where as many entries are compared directly for every row, of all tables
        rows = max(1, min(rows, numbers // (FEW * len(parts) * dim)) // tables)
    return _Tables(codebook, center, parts, rows)


def _tile(size: int, numbers: int) -> tuple[int, int]:
    """Rows and columns of a tile: whole blocks, and the whole codebook where that leaves enough rows."""
    columns = min(size, max(1, numbers // ROWS // BLOCK) * BLOCK)
    return max(1, numbers // columns), columns


def _among_all(z: Tensor, tables: _Tables) -> Tensor:
    """Nearest entries of rows, with a second look at those where rounding may have decided."""
    tiles = [
        _two_smallest_of(_doubled(tile, tables.center[table]), tables.of(table))
        for table, rows in enumerate(z)
        for tile in rows.split(tables.rows)
    ]
    whole = tiles[0] if len(tiles) == 1 else [torch.cat(tensors) for tensors in zip(*tiles, strict=True)]
    value, nearest, second, norm = (tensor.view(z.shape[:2]) for tensor in whole)
    limit = value + exact.margin(norm, value, z.shape[2])
    table, row = ((second <= limit) & limit.isfinite()).nonzero().unbind(1)
    for number in table.unique().tolist() if len(table) else ():
        doubtful = row[table == number]
        for some in doubtful.split(max(1, TILE // tables.size)):
            rows, limits = z[number, some], limit[number, some].unsqueeze(1)
            doubled = _doubled(rows, tables.center[number])
            pairs = [(_linear(doubled, *part) <= limits).nonzero() for part in tables.of(number)]
            joined = _joined(pairs, tables)
            nearest[number, some] = exact.nearest_of_pairs(rows, tables.entries[number], joined, TILE)
    return nearest.clamp_(max=tables.size - 1)


def _doubled(z: Tensor, center: Tensor) -> Tensor:
    """Centered latents times -2, as they are in an expanded distance. Entries are left as they are: in few latents'
    time, each pass over a codebook counts."""
    return (z - center).mul_(-2)


def _two_smallest_of(doubled: Tensor, parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """Of centered rows the smallest expanded distance, its entry, the second smallest distance, and ``|z|``."""
    smallest = [_two_smallest(_linear(doubled, *part)) for part in parts]
    norm = torch.linalg.vector_norm(doubled, dim=1) / 2
    if len(smallest) == 1:
        return *smallest[0], norm
    values, codes, seconds = (torch.stack(tensors) for tensors in zip(*smallest, strict=True))
    part = values.argmin(0, keepdim=True)
    value, code = values.gather(0, part).squeeze(0), codes.gather(0, part) + part * len(parts[0][0])
    second = torch.minimum(seconds.amin(0), values.scatter_(0, part, torch.inf).amin(0))
    return value, code.squeeze(0), second, norm


def _joined(pairs: list[Tensor], tables: _Tables) -> Tensor:
    """Rows and columns ``(pairs, 2)`` of the parts as rows and entries."""
    for index, of_part in enumerate(pairs):
        of_part[:, 1] += index * tables.parts[0][0].shape[1]
    return torch.cat(pairs)


def _among_few(z: Tensor, tables: _Tables) -> Tensor:
    """Nearest entries of rows, as operations of fixed shapes: ``(tables, n)``."""
    doubled, offset, chosen = _doubled(z, tables.center), 0, []
    for entries, norms in tables.parts:
        if entries.shape[2] <= exact.TINY:
            squares = exact.squares(doubled / -2, entries)
            distances = squares.masked_fill(norms.isinf().unsqueeze(1), torch.inf)
        else:
            distances = _linear(doubled, entries, norms)
        chosen.append(offset + _few_smallest(distances.flatten(0, 1)))
        offset += entries.shape[1]
    codes = torch.cat(chosen, 1).clamp(max=tables.size - 1).unflatten(0, z.shape[:2])
    rows = z.flatten(0, 1)
    numbers = numbered(codes, tables.size).flatten(0, 1)
    nearest = exact.nearest_of_few(rows, tables.entries.flatten(0, 1), numbers).view(z.shape[:2])
    return nearest % tables.size if len(z) > 1 else nearest


def _linear(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``z weight^T + bias``, also of several tables: on a CPU by oneDNN, which on some is twice as fast as what addmm
    calls.

    Its operator is not part of torch's public interface, so it is called only where it exists, and in no graph.
    """
    if z.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(1), z, weight.mT)
    if z.device.type == "cpu" and z.dtype == torch.float32 and not torch.compiler.is_compiling():
        fast = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
        if fast is not None and torch.backends.mkldnn.is_available():
            distances: Tensor = fast(z, weight, bias, "none", [], "")
            return distances
    return torch.addmm(bias, z, weight.T)


def _two_smallest(distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value and index of the smallest of each row, and the value of the second smallest.

    Finding an index is several times slower than finding a value, so it is done in one block of the row only.
    """
    blocks = distances.unflatten(1, (-1, BLOCK))
    rows, per_row, _ = blocks.shape
    minima = blocks.amin(2)
    block = minima.argmin(1)
    row = torch.arange(rows, device=block.device)
    inside = blocks.flatten(0, 1).index_select(0, row * per_row + block)
    values, indices = inside.min(1)
    second = torch.minimum(_without(minima, row, block), _without(inside, row, indices))
    return values, block * BLOCK + indices, second


def _without(distances: Tensor, row: Tensor, indices: Tensor) -> Tensor:
    """The smallest of each row but for one, which is overwritten."""
    distances.view(-1).index_fill_(0, row * distances.shape[1] + indices, torch.inf)
    smallest: Tensor = distances.amin(1)
    return smallest


def _few_smallest(distances: Tensor) -> Tensor:
    """Indices ``(rows, few)`` of the smallest of each row: they lie in the blocks with the smallest minima."""
    blocks = distances.unflatten(1, (-1, BLOCK))
    few = blocks.amin(2).topk(min(FEW, blocks.shape[1]), largest=False, sorted=False).indices
    inside = blocks.gather(1, few.unsqueeze(2).expand(-1, -1, BLOCK)).flatten(1)
    best = inside.topk(FEW, largest=False, sorted=False).indices
    codes: Tensor = few.gather(1, best // BLOCK) * BLOCK + best % BLOCK
    return codes
