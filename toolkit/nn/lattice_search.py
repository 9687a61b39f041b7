"""Which shortest vector of a lattice has the largest product with a latent, without a look at all of them."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from toolkit.device import in_float32, wide
from toolkit.nn import golay
from toolkit.nn.lookup import tile_size
from toolkit.nn.minimal_vectors import Lattice

WORDS = 4096
"""Of the Golay code."""


class _Tables(NamedTuple):
    """What is known of a lattice."""

    blocks: Tensor
    """Places ``(blocks, 8)`` of the vectors with signs on a block."""
    sums: Tensor
    """The same as ones ``(blocks, dim)``, int8."""
    words: Tensor
    """Signs ``(256, 8)`` of what may be a third of a codeword, int8; none where there are no codewords."""


class _Best(NamedTuple):
    """Of a shape, for each row: the largest product ``(n,)`` and its vector's number ``(n,)``."""

    product: Tensor
    number: Tensor


_Third = tuple[Tensor, Tensor]
"""Of all words that may be a third, in groups of 16: the sums of numbers with their signs ``(…, 16, n)``, and four
times the largest of these numbers with the signs turned."""


@final
class LatticeSearch(nn.Module):
    """The number of the vector with the largest product with each row. It has no state.

    Products are sums of a row's numbers times small whole numbers, taken in float64 where the device has it: of float32
    numbers less than 2^20 apart they are exact, so that no rounding decides. Of equally large products the vector with
    the lowest number is taken.
    """

    def __init__(self, lattice: Lattice) -> None:
        super().__init__()
        numbers = torch.arange(len(lattice.blocks)).unsqueeze(1)
        sums = torch.zeros(len(lattice.blocks), lattice.dim, dtype=torch.int8)
        sums[numbers, lattice.blocks] = 1
        words = (1 - 2 * golay.thirds()).view(256, 8).to(torch.int8)
        self.blocks: Tensor
        self.sums: Tensor
        self.words: Tensor
        self.register_buffer("blocks", lattice.blocks, persistent=False)
        self.register_buffer("sums", sums, persistent=False)
        self.register_buffer("words", words if lattice.has_codewords else words[:0], persistent=False)

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Tensor:
        """rows ``(n, dim)`` to numbers ``(n,)``, int64."""
        tables = _Tables(self.blocks, self.sums, self.words)
        if torch.compiler.is_exporting():
            with in_float32(rows.device):
                return _search(rows.T.to(wide(rows.device)), tables)
        if torch.compiler.is_compiling() or isinstance(rows, FakeTensor):
            numbers: Tensor = _opaque(rows, *tables)
            return numbers
        return _in_tiles(rows, tables)


@torch.library.custom_op("toolkit::lattice", mutates_args=())
def _opaque(rows: Tensor, blocks: Tensor, sums: Tensor, words: Tensor) -> Tensor:
    """The search as one operation of a compiled graph, which would have all of its tiles."""
    return _in_tiles(rows, _Tables(blocks, sums, words))


@_opaque.register_fake
def _(rows: Tensor, blocks: Tensor, sums: Tensor, words: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[:1], dtype=torch.int64)


def _in_tiles(rows: Tensor, tables: _Tables) -> Tensor:
    """Of so many rows at once that what is computed of them stays in a CPU's cache."""
    with in_float32(rows.device):
        tiles = rows.split(max(1, tile_size(rows.device) // (2 * WORDS)))
        return torch.cat([_search(tile.T.to(wide(rows.device)).contiguous(), tables) for tile in tiles])


def _search(x: Tensor, tables: _Tables) -> Tensor:
    """x ``(dim, n)``: with rows last, all reductions are of whole vectors of numbers."""
    shapes, first = [_on_blocks(x, tables)], [0, len(tables.blocks) * 128]
    if len(tables.words):
        shapes.append(_of_codewords(x, tables.words))
        first.append(first[-1] + WORDS * 24)
    shapes.append(_pairs(x))
    scale = 2.0 if len(tables.words) else 1.0  # of a block's numbers, against a codeword's
    scales = [scale, 1.0, 2 * scale] if len(tables.words) else [scale, 2 * scale]
    products = torch.stack([shape.product * size for shape, size in zip(shapes, scales, strict=True)])
    numbers = torch.stack([shape.number + start for shape, start in zip(shapes, first, strict=True)])
    return numbers.gather(0, products.argmax(0, keepdim=True)).squeeze(0)


def _on_blocks(x: Tensor, tables: _Tables) -> _Best:
    """All numbers of a block with their own signs, and the smallest with the other one where else an odd number of them
    were negative."""
    sizes, negative, sums = x.abs(), x < 0, tables.sums.to(x)
    halves = sums @ (negative.to(x) / 2)
    odd = halves - halves.floor()  # 0, or 1/2
    smallest = reduce(torch.minimum, (sizes.index_select(0, places) for places in tables.blocks.unbind(1)))
    products = (sums @ sizes).sub_(odd.mul_(smallest), alpha=4)
    block = products.argmax(0, keepdim=True)

    places = tables.blocks[block.squeeze(0)].T
    place, signs, sizes = (
        torch.arange(8, device=x.device).unsqueeze(1),
        negative.gather(0, places),
        sizes.gather(0, places),
    )
    # Of equally small ones the one whose turn makes the number lowest: the first negative, else the last.
    turned = torch.where(sizes == sizes.amin(0), torch.where(signs, place, 15 - place), 16).argmin(0)
    signs = signs ^ ((place == turned) & (signs.sum(0) % 2 == 1))
    bits = (signs[:7] * 2 ** (6 - place[:7])).sum(0)
    return _Best(products.gather(0, block).squeeze(0), block.squeeze(0) * 128 + bits)


def _of_codewords(x: Tensor, words: Tensor) -> _Best:
    """The codeword's signs, but for one of its numbers, which has the other one and is three times as large.

    For a word of signs s that is the sum of s x, and four times the largest of -s x. Both are computed for what a third
    of a word may be, of which words are made.
    """
    thirds = [_of_third(third, words.to(x)) for third in x.split(8)]
    largest = torch.stack([_of_words([(s[i], t[i]) for s, t in thirds]).amax(0) for i in range(16)])
    group = largest.argmax(0, keepdim=True)
    here = group.expand(16, -1).unsqueeze(0)
    products = _of_words([(s.gather(0, here)[0], t.gather(0, here)[0]) for s, t in thirds])
    best = products.argmax(0, keepdim=True)
    word = (group * 256 + best).squeeze(0)
    return _Best(products.gather(0, best).squeeze(0), word * 24 + (-_signs_of(word, words) * x).argmax(0))


def _of_third(x: Tensor, words: Tensor) -> _Third:
    turned = reduce(torch.maximum, (words[:, place, None] * -x[place] for place in range(8)))
    return (words @ x).unflatten(0, (16, 16)), (turned * 4).unflatten(0, (16, 16))


def _of_words(thirds: list[_Third]) -> Tensor:
    """The products ``(256, n)`` of the words of one group, of those of their thirds ``(16, n)``."""
    (a, a4), (b, b4), (c, c4) = thirds
    number = torch.arange(16, device=a.device)
    added = (number.unsqueeze(1) ^ number).flatten()
    c, c4 = (t.index_select(0, added).unflatten(0, (16, 16)) for t in (c, c4))
    turned = torch.maximum(torch.maximum(a4.unsqueeze(1), b4), c4)
    return (a.unsqueeze(1) + b).add_(c).add_(turned).flatten(0, 1)


def _signs_of(word: Tensor, words: Tensor) -> Tensor:
    """The signs ``(24, n)`` of words ``(n,)``."""
    x, a, b = word // 256 * 16, word // 16 % 16, word % 16
    return torch.cat([words[x + third].T for third in (a, b, a ^ b)])


def _pairs(x: Tensor) -> _Best:
    """The two largest numbers."""
    sizes, dim = x.abs(), x.shape[0]
    one = sizes.argmax(0, keepdim=True)
    place = torch.arange(dim, device=x.device).unsqueeze(1)
    other = sizes.masked_fill(place == one, -1).argmax(0, keepdim=True)
    i, j = torch.minimum(one, other), torch.maximum(one, other)
    pair = i * (2 * dim - i - 1) // 2 + j - i - 1
    negative = x < 0
    signs = 2 * negative.gather(0, i).long() + negative.gather(0, j).long()
    return _Best((sizes.gather(0, one) + sizes.gather(0, other)).squeeze(0), (pair * 4 + signs).squeeze(0))
