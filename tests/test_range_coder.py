"""Numbers through the range coder: back as they were, at the cost of their probabilities."""

from __future__ import annotations

from math import log2
from typing import Any

import numpy as np
import pytest
import torch
from messages import assert_names
from torch import Tensor

from toolkit.coding.range_coder import RangeEncoder, Reader, Writer, seal, unseal
from toolkit.errors import ToolkitError


def sharp(seed: int, *shape: int) -> Tensor:
    """Probabilities from even to almost certain."""
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(shape, generator=generator)).softmax(-1)


def written(streams: list[Any], counts: list[int], steps: list[tuple[Tensor, Tensor]]) -> Writer:
    writer = Writer(streams, counts)
    for probs, values in steps:
        assert torch.equal(writer.code(probs, values), values)
    return writer


def steps_of(rows: int, seed: int = 0, sizes: tuple[int, ...] = (2, 7, 300, 1, 5)) -> list[tuple[Tensor, Tensor]]:
    steps = []
    for i, size in enumerate(sizes):
        probs = sharp(seed + i, rows, 3, size)
        values = torch.multinomial(probs.flatten(0, 1), 1, generator=torch.Generator().manual_seed(seed)).view(rows, 3)
        steps.append((probs, values))
    return steps


@pytest.mark.parametrize("rows", [1, 4])
def test_one_stream_gives_all_rows_back(rows: int) -> None:
    stream, steps = RangeEncoder(), steps_of(rows)
    writer = written([stream] * rows, [15] * rows, steps)
    data = seal(stream)
    assert 8 * len(data) < writer.bits + 9
    reader = Reader([unseal(data)] * rows, [15] * rows)
    for probs, values in steps:
        assert torch.equal(reader.code(probs, None), values)


def test_a_stream_for_each_row_is_that_of_the_row_alone() -> None:
    steps = steps_of(4)
    streams = [RangeEncoder() for _ in range(4)]
    written(streams, [15] * 4, steps)
    for row, stream in enumerate(streams):
        alone = RangeEncoder()
        written([alone], [15], [(probs[row : row + 1], values[row : row + 1]) for probs, values in steps])
        assert seal(stream) == seal(alone)


@pytest.mark.parametrize("joint", [True, False], ids=["one stream", "one each"])
def test_a_row_ends_at_its_count(joint: bool) -> None:
    steps, counts = steps_of(3), [4, 15, 0]
    streams = [RangeEncoder()] * 3 if joint else [RangeEncoder() for _ in range(3)]
    writer = Writer(streams, counts)
    for probs, values in steps:
        writer.code(probs, values)
    data = [seal(stream) for stream in streams]
    decoders = [unseal(data[0])] * 3 if joint else [unseal(d) for d in data]
    reader = Reader(decoders, counts)
    read = torch.cat([reader.code(probs, None) for probs, _ in steps], 1)
    given = torch.cat([values for _, values in steps], 1)
    for row, count in enumerate(counts):
        assert torch.equal(read[row, :count], given[row, :count])
        assert not read[row, count:].any()


def test_the_end_is_at_most_a_byte_longer_than_its_bits() -> None:
    rng, excess = np.random.default_rng(0), []
    for _ in range(400):
        size, count = int(rng.integers(2, 40)), int(rng.integers(0, 30))
        probs = torch.from_numpy(rng.dirichlet(np.full(size, 0.3), size=(1, count)) + 1e-7)
        values = torch.from_numpy(rng.integers(0, size, (1, count)))
        stream = RangeEncoder()
        writer = written([stream], [count], [(probs, values)])
        data = seal(stream)
        assert torch.equal(Reader([unseal(data)], [count]).code(probs, None), values)
        excess.append(8 * len(data) - writer.bits)
    assert max(excess) < 9
    assert sum(excess) / len(excess) < 4


def test_uniform_numbers_cost_their_logarithm() -> None:
    stream, like = RangeEncoder(), torch.zeros(2, 500)
    values = torch.randint(700, (2, 500), generator=torch.Generator().manual_seed(0))
    writer = Writer([stream] * 2, [500] * 2)
    writer.code_uniform(700, like, values)
    assert writer.bits == pytest.approx(1000 * log2(700))
    data = seal(stream)
    assert len(data) * 8 < writer.bits * 1.001 + 8
    assert torch.equal(Reader([unseal(data)] * 2, [500] * 2).code_uniform(700, like, None), values)


def test_what_cannot_be_coded_is_refused() -> None:
    writer = Writer([RangeEncoder()], [3])
    with pytest.raises(ToolkitError) as caught:
        writer.code(torch.full((1, 1, 4), torch.nan), torch.zeros(1, 1, dtype=torch.int64))
    assert_names(str(caught.value), "a probability is NaN … weights")
    with pytest.raises(ToolkitError) as caught:
        writer.code_uniform(1 << 25, torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64))
    assert_names(str(caught.value), "a codebook of 33,554,432 entries … 16,777,216")
