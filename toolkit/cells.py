"""A run and its samples as a notebook shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.config import RunConfig
from toolkit.dataset import Dataset
from toolkit.notebook import drawn, heading, picture, players, table
from toolkit.runs.folder import Run
from toolkit.spec import DataSpec

ROWS, COLUMNS = 4, 8
"""Of samples on a sheet, at most."""


class Sample(NamedTuple):
    """Samples from a run."""

    x: Tensor
    """``(n, channels, *axes)``, in the data's own form."""
    codes: Tensor
    """``(n, depth, *grid)``."""


class ShownSample(Sample):
    """The same, which a notebook shows as a sheet, and plays where it is sound."""

    files: type[Dataset]
    spec: DataSpec

    @classmethod
    def of(cls, sample: Sample, files: type[Dataset], spec: DataSpec) -> ShownSample:
        """``spec``: of the data, whose axes may be other ones than the samples'."""
        shown = cls(*sample)
        shown.files, shown.spec = files, replace(spec, axes=tuple(sample.x.shape[2:]))
        return shown

    def _repr_html_(self) -> str:
        rows: Sequence[Tensor] = self.x[: ROWS * COLUMNS].detach().cpu().split(COLUMNS)
        sheet = drawn(lambda path: self.files.plot(rows, self.spec, path))
        writers = [partial(self.files.write, x, self.spec) for x in torch.cat([*rows])]
        text = f"{len(self.x):,} samples {_by(self.x.shape[1:])}, of codes {_by(self.codes.shape[1:])}"
        return heading(text) + sheet + players(writers, self.files.suffix)


def run_cell(run: Run, config: RunConfig, model: Autoencoder, spec: DataSpec, step: int) -> str:
    """Parts with shapes and parameters, rate and trained priors, and the last sheet that training has plotted.

    ``spec``: of what goes in and comes out, which for a run over another's codes is not what its own parts model.
    """
    z, out, codes = (model.quantizer.channels, *model.grid), (model.quantizer.dim, *model.grid), model.code_spec
    rows = [
        ("encoder", config.encoder.name, _by(model.data.shape), _by(z), _count(model.encoder)),
        ("quantizer", config.quantizer.name, _by(z), _by(codes.shape), _count(model.quantizer)),
        ("decoder", config.decoder.name, _by(out), _by(model.data.shape), _count(model.decoder)),
    ]
    facts = [("trained to step", f"{step:,}")]
    if codes.depth:
        facts += [
            ("codes per example", f"{_by(codes.shape)} of {_by(dict.fromkeys(codes.codebook_sizes), ', ')}"),
            ("rate", f"{codes.rate:,g} bits, {codes.rate / spec.dims:.4f} per dim"),
            ("trained priors", ", ".join(run.priors()) or "none"),
        ]
    sheets = sorted(run.samples.glob("autoencoder-*.png"))
    sheet = picture(sheets[-1], "examples above their reconstructions") if sheets else ""
    parts = table(("part", "name", "takes", "gives", "parameters"), rows)
    return heading(str(run.path)) + parts + table(("", ""), facts) + sheet


def _by(sizes: Iterable[int], between: str = " x ") -> str:
    return between.join(map(str, sizes))


def _count(part: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in part.parameters()):,}"
