"""The loop that sends codes of a causal network through an entropy coder."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from toolkit.causal.code_network import CodeNetwork
from toolkit.causal.context import Context
from toolkit.causal.sampling import check_prefix
from toolkit.device import in_float32
from toolkit.entropy import EntropyCoder


def entropy_code(
    network: CodeNetwork,
    coder: EntropyCoder,
    n: int,
    grid: Sequence[int],
    codes: Tensor | None = None,
    *,
    context: Context | None = None,
    positions: int | None = None,
    prefix: Tensor | None = None,
) -> Tensor:
    """Codes ``(n, depth, positions)``, written where they are given, else read; see ``Prior.entropy_code``.

    Goes position by position both ways. ``forward`` has all probabilities at once, but rounds them differently, and
    who reads can only go step by step.
    """
    device, grid = network.proj.weight.device, tuple(grid)
    positions = prod(grid) if positions is None else positions
    known = check_prefix(prefix, n, network.codebook_sizes, prod(grid)).to(device)
    depth, first = len(network.codebook_sizes), known.shape[2]
    given = None if codes is None else codes.to(device).flatten(2).permute(2, 1, 0)
    coded = torch.zeros(positions, depth, n, dtype=torch.int64, device=device)
    coded[:first] = known.permute(2, 1, 0)
    with torch.inference_mode(), in_float32(device):
        state = network.init(n, grid, context)
        if first:
            network.prefill(state, grid, known)
        for position, index in enumerate(torch.arange(first, positions, device=device).split(1), first):
            feature = network.step(state, network.trunk.graph_id(grid, position), index)
            for d in range(depth):
                probs = network.logits(state, feature, d).softmax(-1).unsqueeze(1)
                values = None if given is None else given[position, d].unsqueeze(1)
                coded[position, d] = coder.code(probs, values).squeeze(1)
                feature = network.append(state, feature, index, d, coded[position, d])
    # copied outside of inference mode, so that what is computed from it can be differentiated
    return coded.permute(2, 1, 0).clone()
