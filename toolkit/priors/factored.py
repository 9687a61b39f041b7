"""Codes of large codebooks, predicted factor by factor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import final

import torch
from torch import Tensor, nn

from toolkit.causal.sampling import check_prefix
from toolkit.entropy import EntropyCoder
from toolkit.nn.factors import factors_of, join, split
from toolkit.prior import PLAIN, Prior, SamplingOptions
from toolkit.priors.transformer import TransformerPrior
from toolkit.ranges import PositiveInt
from toolkit.spec import CodeSpec, Condition


@final
class FactoredPrior(Prior):
    """Any prior over the bits or levels that codes stand for, in place of the codes themselves.

    A code of K entries becomes several numbers of few values each, and the inner prior sees these as codes of a greater
    depth. So embeddings and heads grow with log K, where those of whole codes have K rows: codebooks of 2^18 entries
    and more, as those of ``lfq``, ``bsq`` and ``fsq``, cost no more memory than small ones. Nothing is approximated:
    every code has exactly one such list of numbers, so that probabilities are the inner prior's.

    Under a causal inner prior (``transformer``, ``pixelcnn``, ``wavenet``, ``scales``) a code's numbers are predicted
    one after the other, each given those before it. Under ``maskgit`` each number is masked by itself, and those of a
    pass are independent given the rest: masked bits (MaskBit, Weber et al. 2024, arXiv:2409.16211; BAR, 2026,
    arXiv:2602.09024). ``top_k`` and ``top_p`` of sampling hold for each number.

    Args:
        inner: the prior over the numbers.
        factors: how many values each number has, the first changing fastest as the code counts up; their product is
            the size of every codebook. Of ``fsq``, give its ``levels``. null: of prime factors, as ``largest`` allows.
        largest: most values of a number, where ``factors`` are not given; 2: single bits.
    """

    def __init__(
        self,
        code_spec: CodeSpec,
        conditions: tuple[Condition, ...],
        *,
        inner: Callable[[CodeSpec, tuple[Condition, ...]], Prior] = TransformerPrior,
        factors: tuple[PositiveInt, ...] | None = None,
        largest: PositiveInt = 64,
    ) -> None:
        super().__init__()
        self.code_spec = code_spec
        if factors is not None and {prod(factors)} != set(code_spec.codebook_sizes):
            raise ValueError(
                f"factors={list(factors)}: their product is {prod(factors)}, and the codebooks have"
                f" {', '.join(map(str, sorted(set(code_spec.codebook_sizes))))} entries; give factors of these"
            )
        sizes = code_spec.codebook_sizes
        self.factors = [factors_of(size, largest) if factors is None else factors for size in sizes]
        """Of each depth."""
        flat = tuple(factor for of_depth in self.factors for factor in of_depth)
        self.inner = inner(CodeSpec(code_spec.grid, flat, code_spec.parts), conditions)
        self.tractable, self.portable = self.inner.tractable, self.inner.portable

    def blocks_in_order(self) -> Sequence[nn.Module]:
        return self.inner.blocks_in_order()

    def log_prob(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.inner.log_prob(self._split(codes), conditions)

    def loss(self, codes: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.inner.loss(self._split(codes), conditions)

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
        known = None if prefix is None else self._split(self._checked(prefix, n))
        numbers = self.inner.sample(n, conditions, sampling, prefix=known, generator=generator, progress=progress)
        return self._join(numbers)

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
        numbers = self.inner.entropy_code(
            coder,
            n,
            conditions,
            None if codes is None else self._split(codes),
            positions=positions,
            depth=None if depth is None else self._ends()[depth - 1],
            prefix=None if prefix is None else self._split(prefix),
        )
        return self._join(numbers)

    def _split(self, codes: Tensor) -> Tensor:
        """Codes ``(batch, depth, *grid)``, of the first depths, to numbers ``(batch, numbers, *grid)``."""
        by_depth = zip(codes.unbind(1), self.factors, strict=False)
        return torch.cat([split(part, factors) for part, factors in by_depth]).transpose(0, 1)

    def _join(self, numbers: Tensor) -> Tensor:
        """What ``_split`` has split."""
        depths = self._ends().index(numbers.shape[1]) + 1
        parts = numbers.split([len(factors) for factors in self.factors[:depths]], 1)
        return torch.stack([join(part.unbind(1), of) for part, of in zip(parts, self.factors, strict=False)], 1)

    def _ends(self) -> list[int]:
        """The numbers up to the end of each depth."""
        return list(accumulate(map(len, self.factors)))

    def _checked(self, prefix: Tensor, n: int) -> Tensor:
        """ToolkitError where it is no prefix; unknown codes, of a prior that fills in any, are -1."""
        check_prefix(prefix.clamp(min=0), n, self.code_spec.codebook_sizes, prod(self.code_spec.grid))
        return prefix
