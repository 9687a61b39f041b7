"""Several codebooks one after another at every position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from toolkit.nn import codebook as table
from toolkit.quantizer import Quantized, Quantizer
from toolkit.quantizers.vq import VectorQuantizer


@final
class ResidualQuantizer(Quantizer):
    """Each stage quantizes what the stages before it left over (SoundStream, Zeghidour et al. 2021).

    The value is the sum of the stages' values; the first d depths are its lower bitrates. Losses and kl add up over
    stages, and every stage's loss has a gradient to the latents. The decoder's gradient is the stages' mean: what a
    stage learns from the decoder, such as the map back of ``projected``, so gets a share of it.

    Where a table starts at the data, a batch should hold several times as many positions as the table has entries:
    else the first stage copies them all, and leaves the later ones nothing to start at.

    Args:
        inner: the quantizer of a stage; it must take and give the latents' channels (else wrap it in projected).
        depth: how many stages.
        dropout: share of the examples in training that use only their first n stages, n uniform in 1..depth. What a
            stage that is not used would add to value, loss and kl is left out.
    """

    def __init__(
        self,
        dim: int,
        *,
        inner: Callable[[int], Quantizer] = VectorQuantizer,
        depth: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth}: at least 1")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout}: between 0 and 1")
        self.stages = nn.ModuleList(_checked(inner(dim), dim) for _ in range(depth))
        self.channels = self.dim = dim
        self.depth = sum(stage.depth for stage in self._each())
        self.codebook_sizes = tuple(size for stage in self._each() for size in stage.codebook_sizes)
        self.dropout = dropout

    def forward(self, z: Tensor) -> Quantized:
        return self._sum(z, _chain(z, [stage.unchecked for stage in self._each()]), self._lengths(z))

    def embed(self, codes: Tensor) -> Tensor:
        """The sum of the first stages' latents."""
        given = codes.split(self.depth // len(self.stages), 1)
        return torch.stack([stage.embed(each) for stage, each in zip(self._each(), given, strict=False)]).sum(0)

    def sample(self, z: Tensor) -> Quantized:
        """A draw from each stage, given those before it; its kl is exact given these."""
        made = _chain(z, [stage.sample for stage in self._each()])
        return self._sum(z, made, self._whole(z))

    def _sum(self, z: Tensor, made: list[Quantized], lengths: Tensor) -> Quantized:
        used = [lengths > stage for stage in range(len(made))]
        e = _total([each.z for each in made], used)
        # Every stage's value has a straight-through gradient to z. Their sum would multiply the decoder's gradient by
        # the number of stages; the mean hands it on once, as a single quantizer does.
        mean = e / _spread(lengths, e)
        error = {"quantization_error": table.distance(z, e).mean().detach()}
        return Quantized(
            table.straight_through(mean, e),
            torch.cat([each.codes for each in made], 1),
            _total([each.loss for each in made], used),
            _total([each.kl for each in made], used),
            {k: torch.stack([each.metrics[k] for each in made]).mean(0) for k in made[0].metrics} | error,
        )

    def _lengths(self, z: Tensor) -> Tensor:
        """How many stages each example uses, ``(batch,)``."""
        whole = self._whole(z)
        if not self.training or self.dropout == 0:
            return whole
        some = torch.randint_like(whole, 1, len(self.stages) + 1)
        return torch.where(torch.rand(len(z), device=z.device) < self.dropout, some, whole)

    def _whole(self, z: Tensor) -> Tensor:
        return torch.full((len(z),), len(self.stages), device=z.device)

    def _each(self) -> list[Quantizer]:
        return cast(list[Quantizer], list(self.stages))


def _checked(stage: Quantizer, dim: int) -> Quantizer:
    if stage.channels != dim or stage.dim != dim:
        raise ValueError(
            f"the inner quantizer takes {stage.channels} channels and gives {stage.dim}, the latents have {dim}:"
            " choose quantizer.inner.name=projected, which maps between them"
        )
    if not stage.depth:
        raise ValueError("a continuous bottleneck leaves no codes behind: choose an inner quantizer that has codes")
    return stage


def _chain(z: Tensor, stages: Sequence[Callable[[Tensor], Quantized]]) -> list[Quantized]:
    """Each stage's account of what those before it left over."""
    made, residual = [], table.upcast(z)
    for stage in stages:
        made.append(stage(residual))
        # Detached: else the straight-through gradient of what is taken away cancels that of z, and the losses of
        # later stages never reach the encoder.
        residual = residual - made[-1].z.detach()
    return made


def _total(parts: list[Tensor], used: list[Tensor]) -> Tensor:
    """The sum over stages of ``(batch, …)``, each example's first stages alone."""
    return torch.stack([part * _spread(mask, part) for part, mask in zip(parts, used, strict=True)]).sum(0)


def _spread(per_example: Tensor, like: Tensor) -> Tensor:
    """``(batch,)`` to meet ``(batch, …)``."""
    return per_example.view(-1, *[1] * (like.dim() - 1))
