"""A prior for each part of the codes, given the coarser parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import cast, final

import torch
from torch import Tensor, nn

from toolkit.causal.sampling import check_prefix
from toolkit.device import in_float32
from toolkit.entropy import EntropyCoder
from toolkit.errors import ToolkitError
from toolkit.nn.conv import CONV, conv
from toolkit.nn.residual import residual_stack
from toolkit.nn.resize import Resize
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.priors.pixelcnn import PixelCNNPrior
from toolkit.ranges import NonNegativeInt, PositiveInt
from toolkit.spec import CodeSpec, Condition, PositionCondition

COARSER = "coarser codes"
"""The name of the condition that an inner prior gets; no data's has a space."""


@final
class CoarseToFinePrior(Prior):
    """One prior after another over the parts of the codes, each given all parts before (VQ-VAE-2, Razavi et al. 2019,
    arXiv:1906.00446, section 3.2).

    For codes of several grids, such as those of ``hierarchy``. The codes of the parts before are embedded, brought to
    the part's grid, and go through residual blocks of convolutions; every position of the inner prior is given the
    features there. Guidance is by the conditions alone. Without parts, this is the inner prior. The probabilities are
    exact where the inner prior's are, as those of ``pixelcnn`` and ``transformer`` are; ``maskgit`` gives none.

    Args:
        inner: the prior of a part, each part's its own.
        hidden: channels of the features.
        residual_blocks: number of residual blocks between the embedded codes and the features.
    """

    def __init__(
        self,
        code_spec: CodeSpec,
        conditions: tuple[Condition, ...],
        *,
        inner: Callable[[CodeSpec, tuple[Condition, ...]], Prior] = PixelCNNPrior,
        hidden: PositiveInt = 128,
        residual_blocks: NonNegativeInt = 4,
    ) -> None:
        super().__init__()
        self.code_spec, self.guided = code_spec, bool(conditions)
        self.parts = code_spec.parts or (code_spec.grid,)
        if len(self.parts) > 1 and {len(part) for part in self.parts} not in [{rank} for rank in CONV]:
            raise ValueError(f"the codes' grid has parts {self.parts}: parts of as many axes are needed, 1 to 3")
        priors = list[Prior]()
        for number, part in enumerate(self.parts):
            known = (*conditions, PositionCondition(COARSER, hidden)) if number else conditions
            priors.append(inner(CodeSpec(part, code_spec.codebook_sizes), known))
        self.priors = nn.ModuleList(priors)
        self.features = nn.ModuleList(
            _Features(self.parts[:number], self.parts[number], code_spec.codebook_sizes, hidden, residual_blocks)
            for number in range(1, len(self.parts))
        )
        self.tractable = all(prior.tractable for prior in priors)
        self.portable = len(priors) == 1 and priors[0].portable

    def blocks_in_order(self) -> Sequence[nn.Module]:
        return [block for number in range(len(self.priors)) for block in self._prior(number).blocks_in_order()]

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([prior.log_prob(part, known) for prior, part, known in self._given(codes, conditions)]).sum(
            0
        )

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([prior.loss(part, known) for prior, part, known in self._given(codes, conditions)]).sum(0)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        conditions: Mapping[str, Tensor],
        sampling: SamplingOptions = PLAIN,
        *,
        prefix: Tensor | None = None,
        generator: torch.Generator | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        if sampling.guidance != 1.0 and not self.guided:
            raise ToolkitError(
                f"guidance={sampling.guidance}: this prior has no conditions to guide it; leave it at 1.0"
            )
        # Each part's own, so that the first of n samples do not depend on n.
        seeds = torch.randint(1 << 62, (len(self.parts),), generator=generator).tolist()
        sampled = list[Tensor]()
        for number, (start, end) in enumerate(self._bounds()):
            known = None if prefix is None or prefix.shape[2] <= start else prefix[:, :, start:end]
            sampled.append(
                self._prior(number).sample(
                    n,
                    self._known(number, sampled, conditions),
                    sampling,
                    prefix=known,
                    generator=torch.Generator().manual_seed(seeds[number]),
                    progress=_after(start, progress),
                )
            )
        return torch.cat([part.flatten(2) for part in sampled], 2).view(n, *self.code_spec.shape)

    @torch.no_grad()
    def entropy_code(
        self,
        coder: EntropyCoder,
        n: int,
        conditions: Mapping[str, Tensor],
        codes: Tensor | None = None,
        *,
        positions: int | None = None,
        depth: int | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        if depth not in (None, self.code_spec.depth) and len(self.parts) > 1:
            raise NotImplementedError("it gives a part's probabilities from all codes of the parts before")
        sizes, last = self.code_spec.codebook_sizes, prod(self.code_spec.grid)
        positions = last if positions is None else positions
        if len(self.parts) > 1:
            prefix = check_prefix(prefix, n, sizes, last)
        coded = list[Tensor]()
        for number, (start, end) in enumerate(self._bounds()):
            if number and start >= positions:
                break
            there = slice(start, min(end, positions))
            part = self._prior(number).entropy_code(
                coder,
                n,
                self._known(number, coded, conditions),
                None if codes is None else codes[:, :, there],
                positions=there.stop - start,
                depth=depth,
                prefix=None if prefix is None else prefix[:, :, there],
            )
            # The parts before are whole: only the last one may be cut.
            coded.append(part.unflatten(2, self.parts[number]) if there.stop == end else part)
        return torch.cat([part.flatten(2) for part in coded], 2)

    def _given(
        self, codes: Tensor, conditions: Mapping[str, Tensor]
    ) -> list[tuple[Prior, Tensor, Mapping[str, Tensor]]]:
        """Each part's prior, its codes on its own grid, and what it is given."""
        if len(self.parts) == 1:
            return [(self._prior(0), codes, conditions)]
        parts = [part.unflatten(2, grid) for part, grid in zip(self._split(codes), self.parts, strict=True)]
        return [
            (self._prior(number), part, self._known(number, parts[:number], conditions))
            for number, part in enumerate(parts)
        ]

    def _known(self, number: int, before: Sequence[Tensor], conditions: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The conditions of a part, among them the features of the parts before."""
        return {**conditions, COARSER: self.features[number - 1](before)} if number else conditions

    def _split(self, codes: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = codes.split([prod(part) for part in self.parts], 2)
        return parts

    def _bounds(self) -> list[tuple[int, int]]:
        """The first position of each part, and that after its last."""
        ends = list(accumulate(prod(part) for part in self.parts))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _prior(self, number: int) -> Prior:
        return cast(Prior, self.priors[number])


@final
class _Features(nn.Module):
    """What a part is told of the codes of those before it."""

    def __init__(
        self,
        before: Sequence[tuple[int, ...]],
        part: tuple[int, ...],
        codebook_sizes: tuple[int, ...],
        hidden: int,
        residual_blocks: int,
    ) -> None:
        super().__init__()
        self.scale = (len(before) * len(codebook_sizes)) ** -0.5
        self.tables = nn.ModuleList(
            nn.ModuleList(nn.Embedding(size, hidden) for size in codebook_sizes) for _ in before
        )
        self.resize = nn.ModuleList(Resize(one, part) for one in before)
        self.proj_in = conv(len(part), hidden, hidden, 3)
        self.residual = residual_stack(len(part), hidden, hidden, residual_blocks)

    def forward(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes ``(batch, depth, *grid)`` of each part before to ``(batch, *grid, hidden)``."""
        with in_float32(codes[0].device):
            embedded = []
            for tables, resize, part in zip(self.tables, self.resize, codes, strict=True):
                by_depth = zip(cast(nn.ModuleList, tables), part.unbind(1), strict=True)
                embedded.append(resize(torch.stack([table(of) for table, of in by_depth]).sum(0).movedim(-1, 1)))
            features: Tensor = self.residual(self.proj_in(self.scale * torch.stack(embedded).sum(0)))
            return features.movedim(1, -1)


def _after(start: int, progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Progress of a part as progress over all."""
    return None if progress is None else lambda position: progress(start + position)
