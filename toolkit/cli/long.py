"""Files of any length: what is longer than memory holds is read, coded and written piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.chunks import AT_ONCE, padded
from toolkit.cli.files import check_axes, named, pad, read_example, reconstruct_examples, strides
from toolkit.model import Model
from toolkit.sample import Progress, unwatched


class LongFile(NamedTuple):
    """A file of which only the beginning is in memory."""

    path: Path
    beginning: Tensor
    """``(channels, positions, …)``: as many positions as go through the model at once."""


class Encoded(NamedTuple):
    """An example's codes ``(depth, *grid)``, and the axes of its data."""

    codes: Tensor
    axes: tuple[int, ...]


def read(model: Model, path: Path) -> Tensor | LongFile:
    """An example ``(channels, *axes)``, or a long file. ToolkitError naming a file that cannot be read."""
    if not any(model.spec.varying[:1]) or model.code_spec.parts:
        return read_example(model, path)
    limit, length, pieces = AT_ONCE * model.spec.axes[0], 0, list[Tensor]()
    with named(path):
        for piece in model.files.pieces(path, model.spec):
            pieces.append(piece)
            length += piece.shape[1]
            if length > limit:
                return LongFile(path, torch.cat(pieces, 1)[:, :limit])
        return torch.cat(pieces, 1)


def beginning(example: Tensor | LongFile) -> Tensor:
    """What is shown of it."""
    return example.beginning if isinstance(example, LongFile) else example


def encode(model: Model, file: LongFile) -> Encoded:
    """All codes of a long file."""
    source = _Source(model, file.path, unwatched)
    with named(file.path):
        codes = torch.cat([codes[0].cpu() for codes in model.encode_pieces(source)], 1)
    return Encoded(codes, (source.length, *file.beginning.shape[2:]))


def reconstruct_all(
    model: Model,
    examples: Sequence[Tensor | LongFile],
    conditions: Mapping[str, Tensor],
    targets: Sequence[Path],
    progress: Progress,
) -> list[Tensor]:
    """Reconstructions of examples, of long files the beginning; they are written to ``targets`` if there are any."""
    short = [i for i, example in enumerate(examples) if not isinstance(example, LongFile)]
    rows = reconstruct_examples(
        model,
        [beginning(examples[i]) for i in short],
        {name: value[short] for name, value in conditions.items()},
        progress,
    )
    by_place = dict(zip(short, rows, strict=True))
    for i in by_place if targets else ():
        model.files.write(by_place[i], model.spec, targets[i])
    for i, example in enumerate(examples):
        if isinstance(example, LongFile):
            known = {name: value[i : i + 1] for name, value in conditions.items()}
            by_place[i] = reconstruct(model, example, known, targets[i], progress)
    return [by_place[i] for i in range(len(examples))]


def reconstruct(
    model: Model, file: LongFile, conditions: Mapping[str, Tensor], target: Path, progress: Progress
) -> Tensor:
    """Writes a long file's reconstruction; returns the beginning of it."""
    source, shown = _Source(model, file.path, progress), list[Tensor]()

    def kept(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        for piece in pieces:
            if sum(part.shape[1] for part in shown) < file.beginning.shape[1]:
                shown.append(piece)
            yield piece

    x = model.reconstruct_pieces(source, conditions, progress=progress)
    with named(file.path):
        model.files.write_pieces(kept(cut(x, lambda: source.length, file.beginning.shape[2:])), model.spec, target)
    return torch.cat(shown, 1)[:, : file.beginning.shape[1]]


def decode_varying(
    model: Model, codes: Tensor, axes: Tensor, conditions: Mapping[str, Tensor], progress: Progress = unwatched
) -> Iterator[Iterator[Tensor]]:
    """Decodes codes that are filled up to the longest, each example with its own axes, and in pieces.

    ValueError for axes that cannot be those of the codes.
    """
    model.code_spec.refuse_parts("codes of several lengths", "encode the files with this run")
    per_code, leads = strides(model), (model.lead, *[0] * (model.spec.rank - 1))
    shapes = list(zip(per_code, leads, strict=True))
    most = [n * stride - lead for n, (stride, lead) in zip(codes.shape[2:], shapes, strict=True)]
    check_axes(axes, len(codes), most)

    def decode(i: int, lengths: list[int]) -> Iterator[Tensor]:
        grid = (slice(-(-(n + lead) // stride)) for n, (stride, lead) in zip(lengths, shapes, strict=True))
        row = codes[i : i + 1][(slice(None), slice(None), *grid)]
        known = {name: value[i : i + 1] for name, value in conditions.items()}
        x = model.decode_pieces([row], known, progress=progress)
        return cut(x, lambda: lengths[0], lengths[1:])

    return (decode(i, lengths) for i, lengths in enumerate(axes.tolist()))


def cut(pieces: Iterable[Tensor], length: Callable[[], int], rest: Iterable[int]) -> Iterator[Tensor]:
    """Pieces of one example ``(1, channels, positions, …)`` as ``(channels, positions, …)``, without what filled up the
    last codes: ``length`` is that of what was given so far, which is all of it when the last piece comes."""
    done, others = 0, tuple(map(slice, rest))
    for piece in pieces:
        own = piece[0, :, : max(0, length() - done)]
        done += own.shape[1]
        yield own[(slice(None), slice(None), *others)].cpu()


class _Source:
    """A file's pieces ``(1, channels, positions, …)``, in all a whole number of codes."""

    def __init__(self, model: Model, path: Path, progress: Progress) -> None:
        self.model, self.path, self.progress, self.length = model, path, progress, 0

    def __iter__(self) -> Iterator[Tensor]:
        return padded(
            (pad(self.model, piece, first=1) for piece in self._read()), strides(self.model)[0], self.model.lead
        )

    def _read(self) -> Iterator[Tensor]:
        spec, files = self.model.spec, self.model.files
        total = 0 if self.progress is unwatched else files.length(self.path, spec)
        for piece in files.pieces(self.path, spec):
            self.length += piece.shape[1]
            if total:
                self.progress(self.path.name, self.length, total)
            yield piece[None]
