"""Batches in the original format of CIFAR-10, with noise for images."""

from __future__ import annotations

import numpy as np

BYTES = 10_000 * 3072


def batch(pixels: bytes, labels: list[int], shape: tuple[int, int] = (10_000, 3072), dtype: bytes = b"u1") -> bytes:
    """A batch as the original files spell it: a pickle of Python 2 (protocol 2) with an array inside."""

    def text(content: bytes) -> bytes:
        return b"T" + len(content).to_bytes(4, "little") + content

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"tR"
    kind = b"cnumpy\ndtype\n(" + text(dtype) + number(0) + number(1) + b"tR"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    state = b"(" + number(1) + number(shape[0]) + number(shape[1]) + b"\x86" + kind + b"\x89" + text(pixels) + b"tb"
    table = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + table + b"u."


def imitation(seed: int) -> bytes:
    generator = np.random.default_rng(seed)
    return batch(generator.bytes(BYTES), generator.integers(0, 10, 10_000).tolist())
