"""Metrics of training: measured on the device, averaged between two log lines."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit import distributed
from toolkit.errors import NotFiniteError
from toolkit.lengths.mask import own
from toolkit.nn.constant import constant
from toolkit.objective import Loss
from toolkit.spec import CodeSpec, DataSpec

_NEVER = torch.iinfo(torch.long).max
"""Stands in for the first bad step of a metric that has none."""


class RunningMetrics:
    """Means of 0-d metrics over steps, without synchronizing with the device until they are read."""

    _names: tuple[str, ...]
    _count: int
    _sum: Tensor
    _first_bad: Tensor

    def __init__(self) -> None:
        self._reset((), torch.device("cpu"))
        self.drained = 0
        """Steps of the last drain."""

    def add(self, step: int, metrics: dict[str, Tensor]) -> None:
        names = tuple(metrics)
        if set(names) != set(self._names):
            self._reset(names, next(iter(metrics.values())).device)
        elif names != self._names:  # those of a checkpoint come in another order
            self._reorder(names)
        values = torch.stack([metrics[name].detach().float() for name in self._names])
        # x - x is 0 where x is finite, else NaN
        bad = torch.where(values - values == 0, _NEVER, step)
        torch.minimum(self._first_bad, bad, out=self._first_bad)
        self._sum += values
        self._count += 1

    def state(self, apart: bool = False) -> dict[str, Tensor]:
        """The sums since the last drain, so that a resumed run logs what an uninterrupted one does.

        ``apart``: those of every rank, where they are not averaged; all ranks take part.
        """
        each_rank = distributed.all_gather(self._sum) if apart else [self._sum]
        sums = {
            f"{_of(rank)}{name}": value.clone()
            for rank, values in enumerate(each_rank)
            for name, value in zip(self._names, values, strict=True)
        }
        return {"count": torch.tensor(self._count), **sums}

    def load(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """The inverse of ``state``; a rank that was not saved takes rank 0's."""
        own = _of(distributed.rank())
        prefix = own if any(name.startswith(own) for name in tensors) else _of(0)
        sums = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if sums:
            self._reset(tuple(sums), device)
            self._sum += torch.stack(list(sums.values())).to(device)
            self._count = int(tensors.get("count", 0))

    def average(self) -> None:
        """The ranks' means, and the first bad step of any, in place of this rank's own; all ranks take part."""
        distributed.all_reduce_mean(self._sum)
        distributed.all_reduce_min(self._first_bad)

    def check(self) -> None:
        """NotFiniteError, with the step and the term, if any metric was NaN or infinite."""
        bad = [(step, name) for step, name in zip(self._first_bad.tolist(), self._names, strict=True) if step < _NEVER]
        if bad:
            step = min(step for step, _ in bad)
            names = [name for at, name in bad if at == step]
            causes = [name for name in names if name not in ("loss", "grad_norm")] or names[:1]
            raise NotFiniteError(f"{' and '.join(causes)} became NaN or infinite at step {step}")

    def drain(self) -> dict[str, float]:
        """The means since the last drain."""
        means = (self._sum / self._count).tolist() if self._count else []
        self.drained = self._count
        names, device = self._names, self._sum.device
        self._reset(names, device)
        return dict(zip(names, means, strict=False))

    def _reorder(self, names: tuple[str, ...]) -> None:
        order = [self._names.index(name) for name in names]
        self._names, self._sum, self._first_bad = names, self._sum[order], self._first_bad[order]

    def _reset(self, names: tuple[str, ...], device: torch.device) -> None:
        self._names, self._count = names, 0
        self._sum = torch.zeros(len(names), device=device)
        self._first_bad = torch.full((len(names),), _NEVER, device=device)


def _of(rank: int) -> str:
    """What the names of a rank's sums begin with."""
    return f"{rank}.of." if rank else "of."


@torch.no_grad()
def autoencoder_metrics(
    output: Loss, x: Tensor, data: DataSpec, code_spec: CodeSpec, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Metrics of a batch that cost almost nothing: loss, its terms, codebook use, the error where the mean is free.

    ``mask``: which positions of x, along its first axis, count; None: all.
    """
    values = {"loss": output.loss, **output.terms, **output.quantized.metrics}
    metrics = {name: value.detach() for name, value in values.items()}
    if code_spec.depth:
        codes = output.quantized.codes
        if mask is not None:
            codes = own(codes, mask[:, :: mask.shape[1] // codes.shape[2]])
        metrics["batch_perplexity"], metrics["batch_usage"] = codebook_use(histogram(codes, code_spec), code_spec)
    if output.likelihood.mean_is_free and output.likelihood.mean is not None:
        pair = data.scale(x), output.likelihood.mean
        mse = F.mse_loss(*(pair if mask is None else (own(values, mask) for values in pair)))
        metrics["mse"] = mse
        if data.variance:
            metrics["nmse"] = mse / data.variance
    return metrics


def mean_metrics(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean metrics of a step's forward passes."""
    if len(parts) == 1:
        return parts[0]
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}


def histogram(codes: Tensor, code_spec: CodeSpec) -> Tensor:
    """How often each entry of each depth's codebook was used: all depths' counts in one row, float."""
    flat = (codes.flatten(2) + _offsets(code_spec.codebook_sizes, codes.device)).flatten()
    counts = torch.zeros(sum(code_spec.codebook_sizes), device=codes.device)
    return counts.index_add_(0, flat, torch.ones_like(flat, dtype=counts.dtype))


@constant
def _offsets(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each depth's counts begin, ``(1, depth, 1)``; cached, as a copy to the device synchronizes."""
    return torch.tensor([[sum(sizes[:depth])] for depth in range(len(sizes))], device=device).unsqueeze(0)


def codebook_use(counts: Tensor, code_spec: CodeSpec) -> tuple[Tensor, Tensor]:
    """Perplexity (exp of the entropy of the histogram) and usage (share of entries hit), means over depths."""
    sizes = code_spec.codebook_sizes
    if len(set(sizes)) == 1:
        rows = counts.view(len(sizes), -1)
        p = rows / rows.sum(1, keepdim=True).clamp(min=1)
        return torch.special.entr(p).sum(1).exp().mean(), (rows > 0).float().mean()
    alone = [codebook_use(row, CodeSpec((), (len(row),))) for row in counts.split(list(sizes))]
    perplexity, usage = (torch.stack(values).mean() for values in zip(*alone, strict=True))
    return perplexity, usage
