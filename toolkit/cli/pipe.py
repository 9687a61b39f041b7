"""Raw data from a pipe to a pipe, through a model as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import prod
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from toolkit.cli.files import unlabeled
from toolkit.cli.report import notes
from toolkit.model import Model
from toolkit.spec import DataSpec
from toolkit.streams import in_ms

MOST = 1 << 16
"""Bytes that are read at once; what has come is taken without waiting for more."""


def reconstruct(model: Model, labels: dict[str, str]) -> None:
    """Standard input through codes and back to standard output, both as ``Dataset.raw_type`` has it.

    As many positions are given as were taken. ToolkitError where a part needs the whole; BrokenPipeError where the
    reader has gone.
    """
    conditions = model.labels(labels, 1)
    encoder, decoder = model.stream_encoder(), model.stream_decoder(conditions)
    delay = encoder.latency + decoder.latency
    ms = in_ms(delay, model.spec)
    notes([*unlabeled(model, conditions), f"latency {delay} positions{'' if ms is None else f', {ms:.1f} ms'}"])
    taken = given = 0
    for x in _positions(model, sys.stdin.buffer):
        taken += x.shape[2]
        given += _put(model, decoder.push(encoder.push(x.to(model.device))))
    rest = torch.cat([decoder.push(encoder.flush()), decoder.flush()], 2) if taken else None
    if rest is not None:
        _put(model, rest[:, :, : taken - given])


def _positions(model: Model, source: BinaryIO) -> Iterator[Tensor]:
    """Data ``(1, channels, positions, …)``, whole positions of what has come so far."""
    spec, kind = model.spec, np.dtype(model.files.raw_type(model.spec))
    size = kind.itemsize * _numbers(spec)
    kept = b""
    while raw := source.read1(MOST):  # type: ignore[attr-defined]
        kept += raw
        whole = len(kept) // size * size
        if whole:
            rows = np.frombuffer(kept[:whole], kind).reshape(-1, spec.channels, *spec.axes[1:])
            yield model.files.from_raw(rows.swapaxes(0, 1), spec).unsqueeze(0)
            kept = kept[whole:]
    if kept:
        notes([f"the last {len(kept)} bytes are no whole position of {size} bytes: left out"])


def _put(model: Model, x: Tensor) -> int:
    """Writes data ``(1, channels, positions, …)`` at once; how many positions that were."""
    if x.shape[2]:
        rows = model.files.to_raw(x[0].detach().cpu().transpose(0, 1), model.spec)
        sys.stdout.buffer.write(np.ascontiguousarray(rows).tobytes())
        sys.stdout.buffer.flush()
    return x.shape[2]


def _numbers(spec: DataSpec) -> int:
    """Of a position along the first axis."""
    return spec.channels * prod(spec.axes[1:])
