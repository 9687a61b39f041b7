"""The sampling loop of all causal networks.

Randomness is drawn before the first code, on the CPU, and each code is picked by inverting the cumulative
distribution. So a seed gives the same codes with and without a cache and on every device, and the i-th of n
samples does not depend on n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor

from toolkit.errors import ToolkitError


class CausalNetwork(Protocol):
    """A network that gives each code's logits from the codes before it: all at once, or code by code.

    Codes are ``(batch, depth, *grid)``; the order is raster over positions, then depth. The state is the
    network's own, made of tensors, and changed in place.
    """

    codebook_sizes: tuple[int, ...]

    def __call__(self, codes: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """For each depth, the logits ``(batch, *grid, codebook_size)`` at every position."""

    def init(self, batch: int, grid: Sequence[int], context: Tensor | None) -> Any:
        """The state before the first position."""

    def advance(self, state: Any, position: int) -> Tensor:
        """The feature of a position; called once for each, in order."""

    def logits(self, feature: Tensor, depth: int) -> Tensor:
        """``(batch, codebook_sizes[depth])``."""

    def absorb(self, state: Any, feature: Tensor, position: int, depth: int, codes: Tensor) -> Tensor:
        """Takes in the codes ``(batch,)``; the feature for the next depth."""


@torch.no_grad()
def sample(
    network: CausalNetwork,
    n: int,
    grid: Sequence[int],
    *,
    context: Tensor | None = None,
    unconditional: Tensor | None = None,
    prefix: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float = 1.0,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Codes ``(n, depth, *grid)`` from a causal network, on ``device``, the network's.

    ``context`` is what the network is given at every position, ``(n, …)``; ``unconditional`` the same without
    conditions, which guidance moves away from: logits ``u + guidance (c - u)``. ``prefix``
    ``(n, depth, positions)`` fixes the first positions. Filters apply in the order temperature, ``top_k``,
    ``top_p``; see ``pick``.
    """
    check_filters(temperature, top_k, top_p)
    sizes, positions = network.codebook_sizes, prod(grid)
    known = check_prefix(prefix, n, sizes, positions).to(device)
    noise = uniforms(n, sizes, positions, generator).to(device)
    codes = torch.empty(n, len(sizes), positions, dtype=torch.int64, device=device)
    codes[:, :, : known.shape[2]] = known
    branches = 1 if guidance == 1.0 else 2
    if branches == 2 and context is not None and unconditional is not None:
        context = torch.cat((context, unconditional.expand_as(context)))
    # Under autocast, the cached steps and the plain forward would round differently.
    with torch.autocast(torch.device(device).type, enabled=False):
        state = network.init(n * branches, grid, context)
        for position in range(positions):
            feature = network.advance(state, position)
            for depth in range(len(sizes)):
                if position >= known.shape[2]:
                    logits = guided(network.logits(feature, depth), n, guidance)
                    codes[:, depth, position] = pick(logits, noise[:, depth, position], temperature, top_k, top_p)
                absorbed = codes[:, depth, position].repeat(branches)
                feature = network.absorb(state, feature, position, depth, absorbed)
            if progress is not None:
                progress(position + 1)
    return codes.reshape(n, len(sizes), *grid)


def guided(logits: Tensor, n: int, guidance: float) -> Tensor:
    """``(n, size)`` from the logits of one branch, or of two, conditional first."""
    conditional, unconditional = logits[:n], logits[n:]
    if guidance == 1.0:
        return conditional
    return unconditional + guidance * (conditional - unconditional)


def pick(
    logits: Tensor,
    uniform: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """The codes ``(batch,)`` at which the cumulative distribution of logits ``(batch, size)`` passes uniform.

    ``top_k`` leaves the k likeliest codes, ``top_p`` the fewest likeliest codes that hold a share p; codes as
    likely as the last one left stay, too.
    """
    probabilities = torch.softmax(logits.double() / temperature, -1)
    if top_k is not None:
        least = probabilities.topk(min(top_k, probabilities.shape[-1])).values[:, -1:]
        probabilities = probabilities * (probabilities >= least)
    if top_p is not None:
        least = _least_of_share(probabilities, top_p)
        probabilities = probabilities * (probabilities >= least)
    cumulative = probabilities.cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


def _least_of_share(probabilities: Tensor, share: float) -> Tensor:
    """``(batch, 1)``: the smallest probability among the fewest codes that hold a share."""
    ordered = probabilities.sort(-1, descending=True).values
    before = ordered.cumsum(-1) - ordered
    enough = before < share * ordered.sum(-1, keepdim=True)
    return ordered.where(enough, torch.inf).amin(-1, keepdim=True)


def uniforms(n: int, codebook_sizes: Sequence[int], positions: int, generator: torch.Generator | None) -> Tensor:
    """All randomness of n samples: ``(n, depth, positions)`` float64 in [0, 1), on the CPU."""
    return torch.rand(n, len(codebook_sizes), positions, generator=generator, dtype=torch.float64)


def check_filters(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """ToolkitError where a filter would leave nothing to choose from."""
    if temperature <= 0:
        raise ToolkitError(f"temperature={temperature}: give a number above 0 (top_k=1 takes the likeliest code)")
    if top_k is not None and top_k < 1:
        raise ToolkitError(f"top_k={top_k}: give 1 or more, or leave it out to keep all codes")
    if top_p is not None and not 0 < top_p <= 1:
        raise ToolkitError(f"top_p={top_p}: give a share above 0 and at most 1, or leave it out")


def check_prefix(prefix: Tensor | None, n: int, codebook_sizes: Sequence[int], positions: int) -> Tensor:
    """The prefix, of no positions where there is none; ToolkitError where it does not fit the codes."""
    depth = len(codebook_sizes)
    if prefix is None:
        return torch.empty(n, depth, 0, dtype=torch.int64)
    if prefix.ndim != 3 or prefix.shape[:2] != (n, depth) or prefix.shape[2] > positions:
        raise ToolkitError(
            f"the prefix has shape {tuple(prefix.shape)}: it must be ({n}, {depth}, at most {positions})"
        )
    sizes = torch.tensor(codebook_sizes, device=prefix.device)[:, None]
    if ((prefix < 0) | (prefix >= sizes)).any():
        raise ToolkitError(f"the prefix holds codes outside the codebooks, of {tuple(codebook_sizes)} entries")
    return prefix
