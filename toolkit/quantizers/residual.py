"""Several codebooks one after another at every position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast, final

import torch
from torch import Tensor, nn

from toolkit.nn import codebook as table
from toolkit.nn.beam import beam_search
from toolkit.nn.stages import broadcast, total, used_stages
from toolkit.nn.tables import Assigned, TableQuantizer, alike
from toolkit.quantizer import Quantized, Quantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.ranges import Fraction, PositiveInt
from toolkit.spec import CodeGrid

MOST_BEAMS = 4096
"""With more, one row's distances would not fit into memory."""


@final
class ResidualQuantizer(Quantizer):
    """Each stage quantizes the residual of the stages before it (SoundStream, Zeghidour et al. 2021).

    The output is the sum of the stages' outputs; the first d depths give lower bitrates. Losses and kl are summed over
    stages, and every stage's loss has a gradient to the latents. The decoder's gradient is averaged over stages, so
    whatever a stage learns from the decoder, such as the ``proj_out`` of ``projected``, gets a share of it.

    Where codebooks start at the data, a batch should have several times as many positions as a codebook has entries:
    else the first stage copies them all, and the residual that the later ones start at is 0.

    Args:
        inner: the quantizer of a stage; input and output must have the latents' channels (else wrap it in projected).
        depth: number of stages.
        dropout: share of the training examples that use only their first n stages, n uniform in 1..depth. Unused stages
            add nothing to output, loss and kl.
        beams: how many sums of entries are followed from stage to stage out of training; 1 takes each stage's nearest
            entry. More give a smaller error at as many codes, never a larger one, at about as many times the cost; loss
            and kl are those of 1. For inner quantizers of one code per position.
    """

    def __init__(
        self,
        dim: int,
        *,
        inner: Callable[[int], Quantizer] = VectorQuantizer,
        depth: PositiveInt = 4,
        dropout: Fraction = 0.0,
        beams: PositiveInt = 1,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth}: at least 1")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout={dropout}: between 0 and 1")
        if not 1 <= beams <= MOST_BEAMS:
            raise ValueError(f"beams={beams}: between 1 and {MOST_BEAMS}")
        self.stages = nn.ModuleList(_checked(inner(dim), dim) for _ in range(depth))
        self.channels = self.dim = dim
        self.depth = sum(stage.depth for stage in self._quantizers())
        self.codebook_sizes = tuple(size for stage in self._quantizers() for size in stage.codebook_sizes)
        self.local = all(stage.local for stage in self._quantizers())
        self.dropout, self.beams = dropout, beams
        if beams > 1 and not (self.local and self.depth == depth):
            raise ValueError(
                f"beams={beams}: the inner quantizer must be local, with one code per position; choose beams=1"
            )

    def forward(self, z: Tensor) -> Quantized:
        stages = self._quantizers()
        outputs = _chain_of_tables(z, stages) if alike(stages) else _chain(z, [stage.unchecked for stage in stages])
        lengths = used_stages(z, len(stages), self.dropout if self.training else 0.0)
        return self._searched(z, self._sum(z, outputs, lengths))

    def embed(self, codes: Tensor) -> Tensor:
        """The sum of the first stages' latents."""
        given = codes.split(self.depth // len(self.stages), 1)
        return torch.stack([stage.embed(part) for stage, part in zip(self._quantizers(), given, strict=False)]).sum(0)

    def code_grid(self, grid: tuple[int, ...]) -> CodeGrid:
        """The stages', which are alike."""
        return self._quantizers()[0].code_grid(grid)

    def sample(self, z: Tensor) -> Quantized:
        """A sample from each stage given those before it; its kl is exact given these."""
        outputs = _chain(z, [stage.sample for stage in self._quantizers()])
        chosen = self._sum(z, outputs, used_stages(z, len(outputs), 0.0))
        return self._searched(z, chosen)

    def _searched(self, z: Tensor, greedy: Quantized) -> Quantized:
        """Out of training, the nearest sum of entries that several beams find, the greedy choice's among them."""
        if self.training or self.beams == 1:
            return greedy
        z = table.upcast(z)
        numbers = [torch.arange(size, device=z.device) for size in self.codebook_sizes]
        tables = [s.embed(n.view(-1, 1, 1)).squeeze(2) for s, n in zip(self._quantizers(), numbers, strict=True)]
        codes = beam_search(table.flatten(z.detach()), tables, self.beams, table.flatten(greedy.codes))
        codes = codes.view(z.shape[0], *z.shape[2:], self.depth).movedim(-1, 1)
        e = self.embed(codes)
        error = {"quantization_error": table.distance(z, e).mean().detach()}
        return greedy._replace(z=table.straight_through(z, e), codes=codes, metrics=greedy.metrics | error)

    def _sum(self, z: Tensor, stages: list[Quantized], lengths: Tensor) -> Quantized:
        e = total([stage.z for stage in stages], lengths)
        # Every stage's output has a straight-through gradient to z. Their sum would multiply the decoder's gradient by
        # the number of stages; the mean passes it once, as a single quantizer does.
        mean = e / broadcast(lengths, e)
        error = {"quantization_error": table.distance(z, e).mean().detach()}
        return Quantized(
            table.straight_through(mean, e),
            torch.cat([stage.codes for stage in stages], 1),
            total([stage.loss for stage in stages], lengths),
            total([stage.kl for stage in stages], lengths),
            {k: torch.stack([stage.metrics[k] for stage in stages]).mean(0) for k in stages[0].metrics} | error,
        )

    def _quantizers(self) -> list[Quantizer]:
        return cast(list[Quantizer], list(self.stages))


def _checked(stage: Quantizer, dim: int) -> Quantizer:
    if stage.channels != dim or stage.dim != dim:
        raise ValueError(
            f"the inner quantizer takes {stage.channels} channels and gives {stage.dim}, but the latents have {dim}:"
            " choose quantizer.inner.name=projected, which maps between them"
        )
    if not stage.depth:
        raise ValueError("a continuous bottleneck has no codes: choose an inner quantizer that has")
    return stage


def _chain(z: Tensor, stages: Sequence[Callable[[Tensor], Quantized]]) -> list[Quantized]:
    """Each stage applied to the residual of those before it."""
    outputs, residual = [], table.upcast(z)
    for stage in stages:
        outputs.append(stage(residual))
        # Detached: else the straight-through gradient of what is subtracted cancels that of z, and the losses of
        # later stages never reach the encoder.
        residual = residual - outputs[-1].z.detach()
    return outputs


def _chain_of_tables(z: Tensor, stages: Sequence[Quantizer]) -> list[Quantized]:
    """The same of stages with alike tables, which learn together in the end: no stage sees what another one learns."""
    tables = [stage for stage in stages if isinstance(stage, TableQuantizer)]
    batches: list[Assigned] = []

    def assign(stage: TableQuantizer, residual: Tensor) -> Quantized:
        if stage.training:
            stage.refresh([stage], residual)
        quantized, assigned = stage.assign([stage], residual)
        batches.append(assigned)
        return quantized

    outputs = _chain(z, [partial(assign, stage) for stage in tables])
    if tables[0].training:
        tables[0].learn(
            tables,
            Assigned(torch.cat([batch.rows for batch in batches]), torch.cat([batch.entries for batch in batches])),
        )
    return outputs
