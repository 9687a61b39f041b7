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

from toolkit.causal import graphs
from toolkit.causal.batch import Batch, Examples, tensors
from toolkit.causal.code_network import CodeNetwork
from toolkit.causal.context import Context, joined, of_examples
from toolkit.causal.graphs import Recorded
from toolkit.causal.network import NetworkState
from toolkit.device import free_memory, in_float32, wide
from toolkit.errors import ToolkitError
from toolkit.prior import PLAIN, SamplingOptions

MEMORY = 1 << 30
"""Most bytes for the states of the examples sampled at once on a CPU; on a GPU, half of the free memory."""

PART = 1 << 24
"""Most logits of the positions that are sampled at once."""

GRAPHS = 256
"""Compiled steps to keep."""

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
    network: CodeNetwork,
    n: int,
    grid: Sequence[int],
    sampling: SamplingOptions = PLAIN,
    *,
    context: Context | None = None,
    unconditional: Context | None = None,
    prefix: Tensor | None = None,
    given: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Codes ``(n, depth, *grid)`` from a network, on its device.

    ``context`` is what the network is given at every position, ``(n, …)``; ``unconditional`` the same without
    conditions, for guidance: logits ``u + guidance (c - u)``. ``prefix`` ``(n, depth, positions)`` fixes the first
    positions, which the trunk is given at once; ``given`` ``(n, depth, positions)`` has codes of any, which take the
    place of sampled ones when their turn comes, and -1 elsewhere. Samples as many examples at once as fit into memory.
    """
    device, positions = network.proj.weight.device, prod(grid)
    grid, fast = tuple(grid), _compiling.get() or device.type == "cuda"
    known = check_prefix(prefix, n, network.codebook_sizes, positions).to(device)
    noise = uniforms(n, network.codebook_sizes, positions, generator)
    contexts = [context]
    if sampling.guidance != 1.0:
        contexts.append(context if unconditional is None else unconditional)
    batches = -(-n // _at_once(network, n, grid, contexts, device, known.shape[2], states=2 if fast else 1))
    size, codes = -(-n // max(1, batches)), []
    sample_batch = _sample_recorded if fast else _sample_batch
    # Under autocast or with TF32, the cached steps and the plain forward would round differently.
    with torch.inference_mode(), in_float32(device):
        for number, start in enumerate(range(0, n, size)):
            end = min(n, start + size)
            # Recorded steps are of one size.
            rows = torch.arange(start, start + size if fast else end).clamp(max=n - 1)
            there = rows.to(device)
            branches = joined([of_examples(branch, there) for branch in contexts], len(rows))
            forced = None if given is None else given.to(device)[there]
            examples = Examples(grid, sampling, branches, known[there], on_device(noise[rows], device), forced)
            on_progress = _batch_progress(progress, number * positions, batches)
            codes.append(sample_batch(network, examples, on_progress)[: end - start])
    graphs.trim(network)
    # Copied outside of inference mode, so that what is computed from it can be differentiated.
    return torch.cat(codes).reshape(n, len(network.codebook_sizes), *grid)


def _sample_batch(network: CodeNetwork, examples: Examples, on_progress: Callable[[int], None]) -> Tensor:
    """Codes ``(n, depth, positions)`` of one batch."""
    return _run(network, Recorded(Batch(network, examples), _step), examples.known, on_progress)


def sample_from(network: CodeNetwork, state: NetworkState, grid: tuple[int, ...], noise: Tensor) -> Tensor:
    """Codes ``(n, depth, positions)`` from a state before the first position of a grid, which they change.

    ``noise`` is as of ``uniforms``.
    """
    none = noise.new_zeros(len(noise), noise.shape[1], 0, dtype=torch.int64)
    batch = Batch(network, Examples(grid, PLAIN, None, none, noise), state)
    return _run(network, Recorded(batch, _step), none, lambda position: None)


def _sample_recorded(network: CodeNetwork, examples: Examples, on_progress: Callable[[int], None]) -> Tensor:
    """The same by recorded steps, those of an earlier batch if there was one."""
    key = (examples.signature, _compiling.get(), torch.get_float32_matmul_precision(), torch.get_num_threads())
    recorded = graphs.take(network, key)
    if recorded is None:
        recorder = graphs.recorder(network, _step, examples.noise.device, _compiling.get())
        recorded = Recorded(Batch(network, examples), recorder)
    else:
        recorded.batch.restart(network, examples)
    codes = _run(network, recorded, examples.known, on_progress, coarse=True)
    graphs.keep(network, key, recorded)
    return codes


def _run(
    network: CodeNetwork,
    recorded: Recorded,
    known: Tensor,
    on_progress: Callable[[int], None],
    coarse: bool = False,
) -> Tensor:
    """The codes of a batch at its start, of which some are known."""
    batch, first = recorded.batch, known.shape[2]
    batch.prefill(network, known)
    if first:
        on_progress(first)
    position = first
    while position < len(batch.codes):
        graph_id = network.trunk.graph_id(batch.grid, position, coarse=coarse)
        recorded.step(network, graph_id)
        position += network.trunk.together(batch.grid, graph_id)
        on_progress(position)
    return batch.codes.permute(2, 1, 0).clone()


def _step(network: CodeNetwork, batch: Batch, graph_id: int) -> None:
    """Samples the codes of the batch's position, or of all that are together from there on, and goes on."""
    count = network.trunk.together(batch.grid, graph_id)
    if count > 1:
        _step_part(network, batch, graph_id, count)
        return
    position, sampled = batch.position, []
    feature = network.step(batch.state, graph_id, position)
    for d, uniform in enumerate(batch.noise.index_select(0, position)[0]):
        logits = guided(network.logits(batch.state, feature, d), batch.n, batch.sampling.guidance)
        sampled.append(_unless_given(sample_logits(logits, uniform, batch.sampling), batch, d))
        code = sampled[-1] if batch.branches == 1 else sampled[-1].repeat(batch.branches)
        feature = network.append(batch.state, feature, position, d, code)
    batch.codes.index_copy_(0, position, torch.stack(sampled).unsqueeze(0))
    position.add_(1)


def _unless_given(sampled: Tensor, batch: Batch, depth: int) -> Tensor:
    """The sampled codes ``(n,)`` of the batch's position, or those that are given."""
    if batch.given is None:
        return sampled
    given = batch.given.index_select(0, batch.position)[0, depth]
    return torch.where(given < 0, sampled, given)


def _step_part(network: CodeNetwork, batch: Batch, graph_id: int, count: int) -> None:
    """The same at several positions, each sampled from its own feature, some at a time."""
    positions = batch.position + torch.arange(count, device=batch.position.device)
    features = network.step_part(batch.state, graph_id, positions)
    some = max(1, PART // (len(features) * max(network.codebook_sizes)))
    for there, rows in zip(positions.split(some), features.split(some, 1), strict=True):
        noise, sampled, embedded = batch.noise.index_select(0, there), [], []
        feature = rows.flatten(0, 1)
        for d, weights in enumerate(batch.state.tables):
            logits = guided(network.logits(batch.state, feature, d), batch.n * len(there), batch.sampling.guidance)
            code = sample_logits(logits, noise[:, d].t().flatten(), batch.sampling)
            sampled.append(code.view(batch.n, -1).t())
            code = code.repeat(batch.branches)
            embedded.append(weights.index_select(0, code))
            if d < len(batch.state.inner):
                feature = feature + batch.state.inner[d].index_select(0, code)
        batch.codes.index_copy_(0, there, torch.stack(sampled, 1))
        network.trunk.append_part(
            batch.state.trunk, there, torch.stack(embedded).sum(0).view(len(features), len(there), -1)
        )
    batch.position.add_(count)


def _batch_progress(progress: Callable[[int], None] | None, before: int, batches: int) -> Callable[[int], None]:
    """Progress of one batch as progress over all."""
    if progress is None:
        return lambda position: None
    return lambda position: progress((before + position) // batches)


def _at_once(
    network: CodeNetwork,
    n: int,
    grid: Sequence[int],
    contexts: list[Context | None],
    device: torch.device,
    prefix: int = 0,
    states: int = 1,
) -> int:
    """How many examples' states, and embedded prefixes of so many positions, fit into memory: n if n times the bytes of
    one do; else by what a second one adds, since a state includes weights. ``states``: how many there are of each."""
    copies = len(network.codebook_sizes) + 1  # each depth's embedding, and their sum
    embedded = prefix * copies * network.trunk.channels * network.proj.weight.element_size()

    def state_bytes(count: int) -> int:
        given = [of_examples(context, slice(count)) for context in contexts]
        branches = count * len(contexts)
        return states * _bytes(network.init(branches, grid, joined(given, count))) + branches * embedded

    memory = MEMORY if device.type == "cpu" else free_memory(device) // 2
    if n == 1 or n * state_bytes(1) <= memory:
        return n
    return max(1, min(n, memory // max(1, state_bytes(2) - state_bytes(1))))


def _bytes(state: Any) -> int:
    """Bytes of a state's tensors; views count again, so that the estimate is on the safe side."""
    return sum(tensor.nbytes for tensor in tensors(state))


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
    cumulative = probs.cumsum(-1, dtype=wide(probs.device))
    total = cumulative[..., -1:]
    target = uniform.unsqueeze(-1) * total
    if cumulative.dtype == torch.float32:  # in which a number a little below 1 is 1, and would choose what has none
        target = torch.minimum(target.to(total), total.nextafter(torch.zeros_like(total)))
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


def uniforms(
    n: int,
    codebook_sizes: Sequence[int],
    positions: int,
    generator: torch.Generator | None,
    device: torch.device | None = None,
) -> Tensor:
    """All random numbers of n samples: ``(n, depth, positions)`` float64 in [0, 1), sampled on the CPU.

    Then on a device, in its widest floats: the same numbers, up to rounding where it has no float64.
    """
    noise = torch.rand(n, len(codebook_sizes), positions, generator=generator, dtype=torch.float64)
    return noise if device is None else on_device(noise, device)


def on_device(noise: Tensor, device: torch.device) -> Tensor:
    """float64 numbers in [0, 1) of the CPU, on a device in its widest floats."""
    dtype = wide(device)
    return noise.to(device) if dtype == noise.dtype else noise.to(dtype).clamp(max=1 - 2**-24).to(device)


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
