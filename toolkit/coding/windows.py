"""Codes of any length through a prior: its window slides along the grid's first axis, as where it samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.entropy import EntropyCoder
from toolkit.errors import ToolkitError
from toolkit.prior import Prior
from toolkit.priors.uniform import UniformPrior
from toolkit.rollout import kept, within


def code_through(
    prior: Prior,
    autoencoder: Autoencoder,
    coder: EntropyCoder,
    grids: Sequence[tuple[int, ...]],
    conditions: Mapping[str, Tensor],
    codes: Tensor | None,
    depth: int | None,
) -> Tensor:
    """Codes ``(n, depth, positions)`` of examples on ``grids``, filled up to the longest; written, or if None read.

    Beyond the prior's own length, the codes are coded given those of half a window before. ToolkitError where the
    prior's grid has other axes beside its first.
    """
    n, positions = len(grids), max(map(prod, grids))
    if isinstance(prior, UniformPrior):
        return prior.entropy_code(coder, n, conditions, codes, positions=positions, depth=depth)
    window, *plane = prior.code_spec.grid
    for grid in grids:
        if list(grid[1:]) != plane or (prior.code_spec.parts and grid != prior.code_spec.grid):
            raise ToolkitError(
                f"codes on a grid of {grid}, where the prior was trained on {prior.code_spec.grid}: prior=uniform"
                " codes any grid"
            )
    per_slab, length = prod(plane), autoencoder.data.axes[0]
    slabs, own = positions // per_slab, autoencoder.code_spec.grid[0]

    def seen(start: int) -> dict[str, Tensor]:
        """The conditions of the window that starts at a slab."""
        known = autoencoder.data.conditions
        return within(conditions, known, start * length // own, window * length // own)

    if slabs <= window:
        return prior.entropy_code(coder, n, seen(0), codes, positions=positions, depth=depth)
    keep = kept(window, length // own, autoencoder.data.conditions, None)
    coded, start = None, 0
    while coded is None or coded.shape[2] < positions:
        prefix = None if coded is None else coded[:, :, start * per_slab :]
        first, last = start * per_slab, min((start + window) * per_slab, positions)
        given = None if codes is None else codes[:, :, first:last]
        part = prior.entropy_code(coder, n, seen(start), given, positions=last - first, depth=depth, prefix=prefix)
        coded = part if coded is None else torch.cat([coded, part[:, :, prefix.shape[2] :]], 2)  # type: ignore[union-attr]
        start = coded.shape[2] // per_slab - keep
    return coded
