"""The sampling loop of all causal networks.

All random numbers are sampled before the first code, on the CPU, and each code is sampled by inverting the cumulative
distribution. So a seed gives, up to rounding, the same codes with and without a cache, compiled or not, and on every
device, and the i-th of n samples does not depend on n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from math import prod
from typing import Any

import torch
from torch import Tensor

from toolkit.causal.network import CausalNetwork, NetworkState
from toolkit.errors import ToolkitError
from toolkit.prior import PLAIN, SamplingOptions

MEMORY = 1 << 30
"""Most bytes for the states of the examples sampled at once on a CPU; on a GPU, half of the free memory."""

GRAPHS = 256
"""Compiled steps to keep."""

Step = Callable[[int, Tensor], None]
"""Samples the codes of one position ``(1,)``, given the graph id of the trunk's step."""

_compiling: ContextVar[bool] = ContextVar("compiling", default=False)


@contextmanager
def compiled(on: bool = True) -> Iterator[None]:
    """Compiles the steps of sampling: takes a minute at first, then saves a third and more for few examples.

    Needs what ``torch.compile`` needs, on a CPU a C++ compiler.
    """
    token = _compiling.set(on)
    try:
        # One graph per network, batch size and graph id: torch gives up after 8 recompilations of one function.
        with torch._dynamo.config.patch(recompile_limit=GRAPHS) if on else nullcontext():
            yield
    finally:
        _compiling.reset(token)


@torch.no_grad()
def sample(
    network: CausalNetwork,
    n: int,
    grid: Sequence[int],
    sampling: SamplingOptions = PLAIN,
    *,
    context: Tensor | None = None,
    unconditional: Tensor | None = None,
    prefix: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Codes ``(n, depth, *grid)`` from a causal network, on its device.

    ``context`` is what the network is given at every position, ``(n, …)``; ``unconditional`` the same without
    conditions, for guidance: logits ``u + guidance (c - u)``. ``prefix`` ``(n, depth, positions)`` fixes the first
    positions, which the trunk is given at once. Samples as many examples at once as fit into memory.
    """
    device, positions = network.proj.weight.device, prod(grid)
    grid = tuple(grid)
    known = check_prefix(prefix, n, network.codebook_sizes, positions).to(device)
    noise = uniforms(n, network.codebook_sizes, positions, generator)
    contexts = [context]
    if sampling.guidance != 1.0:
        contexts.append(context if unconditional is None else unconditional)
    size = _at_once(network, n, grid, contexts, device, known.shape[2])
    batches, codes = -(-n // size), []
    # Under autocast, the cached steps and the plain forward would round differently.
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        for number in range(batches):
            rows = slice(number * size, min(n, (number + 1) * size))
            on_progress = _batch_progress(progress, number * positions, batches)
            given = [None if branch is None else branch[rows] for branch in contexts]
            codes.append(
                _sample_batch(network, grid, sampling, given, known[rows], noise[rows].to(device), on_progress)
            )
    # Copied outside of inference mode, so that what is computed from it can be differentiated.
    return torch.cat(codes).reshape(n, len(network.codebook_sizes), *grid)


def _sample_batch(
    network: CausalNetwork,
    grid: Sequence[int],
    sampling: SamplingOptions,
    contexts: list[Tensor | None],
    known: Tensor,
    noise: Tensor,
    on_progress: Callable[[int], None],
) -> Tensor:
    """Codes ``(n, depth, positions)`` of one batch."""
    state = network.init(len(noise) * len(contexts), grid, _joined(contexts, len(noise)))
    return sample_from(network, state, grid, sampling, known, noise, len(contexts), on_progress)


def sample_from(
    network: CausalNetwork,
    state: NetworkState,
    grid: Sequence[int],
    sampling: SamplingOptions,
    known: Tensor,
    noise: Tensor,
    branches: int = 1,
    on_progress: Callable[[int], None] = lambda position: None,
) -> Tensor:
    """Codes ``(n, depth, positions)`` from a state before the first position of a grid, which they change.

    ``noise`` is as of ``uniforms``, and ``known`` the codes of the first positions. A state of two ``branches`` is that
    of the examples with conditions and, after them, without.
    """
    n, depth, positions = noise.shape
    # Positions first, so that a step reads and writes contiguous memory.
    noise = noise.permute(2, 1, 0).contiguous()
    codes = torch.zeros(positions, depth, n, dtype=torch.int64, device=noise.device)
    codes[: known.shape[2]] = known.permute(2, 1, 0)

    def step(graph_id: int, position: Tensor) -> None:
        feature = network.step(state, graph_id, position)
        sampled = []
        for d, uniform in enumerate(noise.index_select(0, position)[0]):
            logits = guided(network.logits(state, feature, d), n, sampling.guidance)
            sampled.append(sample_logits(logits, uniform, sampling))
            code = sampled[-1] if branches == 1 else sampled[-1].repeat(branches)
            feature = network.append(state, feature, position, d, code)
        codes.index_copy_(0, position, torch.stack(sampled).unsqueeze(0))

    graphs = _compiling.get() or noise.device.type == "cuda"
    fast = _fast(step, noise.device)
    first = known.shape[2]
    if first:
        network.prefill(state, grid, known.repeat(branches, 1, 1))
        on_progress(first)
    indices = torch.arange(positions, device=noise.device).split(1)
    for position, index in enumerate(indices[first:], first):
        fast(network.trunk.graph_id(grid, position, coarse=graphs), index)
        on_progress(position + 1)
    return codes.permute(2, 1, 0)


def _batch_progress(progress: Callable[[int], None] | None, before: int, batches: int) -> Callable[[int], None]:
    """Progress of one batch as progress over all."""
    if progress is None:
        return lambda position: None
    return lambda position: progress((before + position) // batches)


def _fast(step: Step, device: torch.device) -> Step:
    """The step compiled if requested, and on a GPU captured and replayed."""
    if _compiling.get():
        step = _compiled(step, device)
    return _Captured(step) if device.type == "cuda" else step


def _compiled(step: Step, device: torch.device) -> Step:
    options: dict[str, Any] = {"cpp_wrapper": True} if device.type == "cpu" else {}
    fast = torch.compile(step, fullgraph=True, dynamic=False, options=options)

    def call(graph_id: int, position: Tensor) -> None:
        try:
            fast(graph_id, position)
        except torch._dynamo.exc.TorchDynamoException as e:
            cause = str(getattr(e, "inner_exception", e)).strip().splitlines()[0]
            raise ToolkitError(
                f"compile=true: the steps cannot be compiled on this machine: {cause}; leave it out"
            ) from e

    return call


class _Captured:
    """Steps as CUDA graphs, one per graph id, so that a step is a single launch.

    The first step of a graph id runs eagerly, which warms up its operations; the second is captured, which runs
    nothing, and replayed, as are all later ones. The position is read from a tensor at a fixed address.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.seen = set[int]()
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.position = torch.zeros(1, dtype=torch.int64, device="cuda")

    def __call__(self, graph_id: int, position: Tensor) -> None:
        self.position.copy_(position)
        if graph_id not in self.seen:
            self.seen.add(graph_id)
            self.step(graph_id, self.position)
            return
        if graph_id not in self.graphs:
            self.graphs[graph_id] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graphs[graph_id]):
                self.step(graph_id, self.position)
        self.graphs[graph_id].replay()


def _joined(contexts: list[Tensor | None], n: int) -> Tensor | None:
    """The contexts of all branches as one batch."""
    given = [context for context in contexts if context is not None]
    if not given:
        return None
    shape = torch.broadcast_shapes(*(context.shape[1:] for context in given))
    return torch.cat([context.expand(n, *shape) for context in given])


def _at_once(
    network: CausalNetwork,
    n: int,
    grid: Sequence[int],
    contexts: list[Tensor | None],
    device: torch.device,
    prefix: int = 0,
) -> int:
    """How many examples' states, and embedded prefixes of so many positions, fit into memory: n if n times the bytes of
    one do; else by what a second one adds, since a state includes weights."""
    copies = len(network.codebook_sizes) + 1  # each depth's embedding, and their sum
    embedded = prefix * copies * network.trunk.channels * network.proj.weight.element_size()

    def state_bytes(count: int) -> int:
        given = [None if context is None else context[:count] for context in contexts]
        branches = count * len(contexts)
        return _bytes(network.init(branches, grid, _joined(given, count))) + branches * embedded

    memory = MEMORY if device.type == "cpu" else torch.cuda.mem_get_info(device)[0] // 2
    if n == 1 or n * state_bytes(1) <= memory:
        return n
    return max(1, min(n, memory // max(1, state_bytes(2) - state_bytes(1))))


def _bytes(state: Any) -> int:
    """Bytes of a state's tensors; views count again, so that the estimate is on the safe side."""
    if isinstance(state, Tensor):
        return state.nbytes
    return sum(map(_bytes, state)) if isinstance(state, tuple | list) else 0


def guided(logits: Tensor, n: int, guidance: float) -> Tensor:
    """``(n, size)`` from the logits of one branch, or of two, conditional first."""
    if guidance == 1.0:
        return logits
    conditional, unconditional = logits[:n], logits[n:]
    return unconditional + guidance * (conditional - unconditional)


def sample_logits(logits: Tensor, uniform: Tensor, sampling: SamplingOptions = PLAIN) -> Tensor:
    """The codes ``(batch,)`` at which the cumulative distribution of logits ``(batch, size)`` passes uniform.

    ``top_k`` keeps the k likeliest codes, then ``top_p`` the fewest likeliest with a total probability of p; codes as
    likely as the last one are kept, too.
    """
    return inverse_cdf(filtered_probs(logits, sampling), uniform)


def inverse_cdf(probs: Tensor, uniform: Tensor) -> Tensor:
    """The first codes ``(…)`` at which the cumulative sum of probs ``(…, size)`` exceeds ``uniform`` of the total."""
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    target = uniform.unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=probs.shape[-1] - 1)


def filtered_probs(logits: Tensor, sampling: SamplingOptions = PLAIN) -> Tensor:
    """Probabilities ``(batch, size)`` after the filters, not normalized again."""
    probabilities = torch.softmax(logits if sampling.temperature == 1.0 else logits / sampling.temperature, -1)
    if sampling.top_k is not None:
        least = probabilities.topk(min(sampling.top_k, probabilities.shape[-1])).values[..., -1:]
        probabilities = probabilities * (probabilities >= least)
    if sampling.top_p is not None:
        least = _least_of_nucleus(probabilities, sampling.top_p)
        probabilities = probabilities * (probabilities >= least)
    return probabilities


def _least_of_nucleus(probabilities: Tensor, share: float) -> Tensor:
    """``(batch, 1)``: the smallest probability among the fewest codes with a total probability of ``share``."""
    ordered = probabilities.sort(-1, descending=True).values
    before = ordered.cumsum(-1) - ordered
    enough = before < share * ordered.sum(-1, keepdim=True)
    return ordered.where(enough, torch.inf).amin(-1, keepdim=True)


def uniforms(n: int, codebook_sizes: Sequence[int], positions: int, generator: torch.Generator | None) -> Tensor:
    """All random numbers of n samples: ``(n, depth, positions)`` float64 in [0, 1), on the CPU."""
    return torch.rand(n, len(codebook_sizes), positions, generator=generator, dtype=torch.float64)


def check_prefix(prefix: Tensor | None, n: int, codebook_sizes: Sequence[int], positions: int) -> Tensor:
    """The prefix, empty if None; ToolkitError where it does not fit the codes."""
    depth = len(codebook_sizes)
    if prefix is None:
        return torch.empty(n, depth, 0, dtype=torch.int64)
    if prefix.ndim != 3 or prefix.shape[:2] != (n, depth) or prefix.shape[2] > positions:
        raise ToolkitError(f"the prefix has shape {tuple(prefix.shape)}: expected ({n}, {depth}, at most {positions})")
    sizes = torch.tensor(codebook_sizes, device=prefix.device)[:, None]
    if ((prefix < 0) | (prefix >= sizes)).any():
        raise ToolkitError(f"the prefix has codes outside the codebooks, which have {tuple(codebook_sizes)} entries")
    return prefix
