"""Two quantizers of the same latents, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.quantizer import Posterior, Quantized, Quantizer
from toolkit.quantizers.residual import ResidualQuantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.spec import CodeGrid


@final
class SplitQuantizer(Quantizer):
    """Quantizes the same latents twice, by quantizers that know nothing of one another, and adds their outputs.

    Mimi (Défossez et al. 2024, arXiv:2410.00037, 3.3) splits off a codebook that is taught what is said, so that this
    need not stand in the way of the residual codes of how it sounds; each is ``projected``. Codes of the first come
    first. Losses and kl are summed, and each one's loss has a gradient to the latents. The decoder's gradient is
    averaged over both, so whatever one learns from the decoder, such as the ``proj_out`` of ``projected``, gets half of
    it.

    Args:
        first: a quantizer whose input and output have the latents' channels (else wrap it in projected).
        second: the other one; a split again makes three.
    """

    def __init__(
        self,
        dim: int,
        *,
        first: Callable[[int], Quantizer] = VectorQuantizer,
        second: Callable[[int], Quantizer] = ResidualQuantizer,
    ) -> None:
        super().__init__()
        self.first, self.second = _checked("first", first(dim), dim), _checked("second", second(dim), dim)
        self.channels = self.dim = dim
        self.depth = sum(part.depth for part in self._parts())
        self.codebook_sizes = tuple(size for part in self._parts() for size in part.codebook_sizes)
        self.has_posterior = all(part.has_posterior for part in self._parts())
        self.local = all(part.local for part in self._parts())

    def forward(self, z: Tensor) -> Quantized:
        z = table.upcast(z)
        return _sum(z, [part.unchecked(z) for part in self._parts()])

    def embed(self, codes: Tensor) -> Tensor:
        """The sum of both; the first one's latents alone where there are no codes of the second."""
        of_first, of_second = codes[:, : self.first.depth], codes[:, self.first.depth :]
        e = self.first.embed(of_first)
        return e + self.second.embed(of_second) if of_second.shape[1] else e

    def code_grid(self, grid: tuple[int, ...]) -> CodeGrid:
        """Both quantizers', which must be the same."""
        first, second = (part.code_grid(grid) for part in self._parts())
        if first != second:
            raise ValueError(f"first has codes on {first}, second on {second}: choose quantizers whose grids are alike")
        return first

    def sample(self, z: Tensor) -> Quantized:
        z = table.upcast(z)
        return _sum(z, [part.sample(z) for part in self._parts()])

    def posterior(self, z: Tensor) -> Posterior:
        """Both posteriors, which are independent given z."""
        return Posterior([logits for part in self._parts() for logits in part.posterior(z).log_probs])

    def _parts(self) -> list[Quantizer]:
        return [self.first, self.second]


def _checked(name: str, part: Quantizer, dim: int) -> Quantizer:
    if not part.depth:
        raise ValueError(f"a continuous bottleneck has no codes: choose a quantizer {name} that has")
    if part.channels != dim or part.dim != dim:
        raise ValueError(
            f"the quantizer {name} takes {part.channels} channels and gives {part.dim}, but the latents have {dim}:"
            f" choose quantizer.{name}.name=projected, which maps between them"
        )
    return part


def _sum(z: Tensor, parts: Sequence[Quantized]) -> Quantized:
    e = torch.stack([part.z for part in parts]).sum(0)
    # Each output has a straight-through gradient to z: the mean passes it once, as a single quantizer does.
    metrics = _means([part.metrics for part in parts])
    metrics["quantization_error"] = table.distance(z, e).mean().detach()
    return Quantized(
        table.straight_through(e / len(parts), e),
        torch.cat([part.codes for part in parts], 1),
        torch.stack([part.loss for part in parts]).sum(0),
        torch.stack([part.kl for part in parts]).sum(0),
        metrics,
    )


def _means(metrics: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Over those quantizers that have a metric of that name."""
    names = dict.fromkeys(name for each in metrics for name in each)
    return {name: torch.stack([each[name] for each in metrics if name in each]).mean(0) for name in names}
