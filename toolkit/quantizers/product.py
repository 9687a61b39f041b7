"""Several codebooks side by side at every position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast, final

import torch
from torch import Tensor, nn

from toolkit.nn.tables import TableQuantizer, alike
from toolkit.quantizer import Posterior, Quantized, Quantizer
from toolkit.quantizers.vq import VectorQuantizer
from toolkit.ranges import PositiveInt
from toolkit.spec import CodeGrid


@final
class ProductQuantizer(Quantizer):
    """Splits the latents' channels into groups, each with its own quantizer, and concatenates their outputs.

    ``groups=10`` gives the 8 x 8 x 10 latents of the paper's CIFAR-10 model (van den Oord et al. 2017, 4.1).
    Losses are summed over groups, as the norm is over all channels.

    Args:
        inner: the quantizer of a group, built for dim / groups channels.
        groups: how many.
        shared: one quantizer, and so one codebook, for all groups.
    """

    def __init__(
        self,
        dim: int,
        *,
        inner: Callable[[int], Quantizer] = VectorQuantizer,
        groups: PositiveInt = 2,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if groups < 1 or dim % groups:
            raise ValueError(f"dim={dim} does not divide into groups={groups}")
        self.groups, self.shared = groups, shared
        self.inner = nn.ModuleList(inner(dim // groups) for _ in range(1 if shared else groups))
        parts = [self._part(g) for g in range(groups)]
        if not all(part.depth for part in parts):
            raise ValueError("a continuous bottleneck has no codes: choose an inner quantizer that has")
        self.channels = sum(part.channels for part in parts)
        self.dim = sum(part.dim for part in parts)
        self.depth = sum(part.depth for part in parts)
        self.codebook_sizes = tuple(size for part in parts for size in part.codebook_sizes)
        self.has_posterior = all(part.has_posterior for part in parts)
        self.local = all(part.local for part in parts)

    def forward(self, z: Tensor) -> Quantized:
        if self.shared:
            return self._join_shared(self._part(0).unchecked(self._gather(z)), z.shape[0])
        parts = [self._part(g) for g in range(self.groups)]
        if isinstance(first := parts[0], TableQuantizer) and alike(parts):
            return self._join_examples(first.together(cast(list[TableQuantizer], parts), self._examples(z)))
        return self._join([part.unchecked(latents) for part, latents in self._split(z)])

    def embed(self, codes: Tensor) -> Tensor:
        """The latents of the first groups; zeros for groups whose codes are missing."""
        per_group = self.depth // self.groups
        given = codes.split(per_group, 1)
        latents = [self._part(g).embed(of_group) for g, of_group in enumerate(given)]
        missing = [torch.zeros_like(latents[0])] * (self.groups - len(given))
        return torch.cat([*latents, *missing], 1)

    def code_grid(self, grid: tuple[int, ...]) -> CodeGrid:
        """The groups', which are alike."""
        return self._part(0).code_grid(grid)

    def sample(self, z: Tensor) -> Quantized:
        if self.shared:
            return self._join_shared(self._part(0).sample(self._gather(z)), z.shape[0])
        return self._join([part.sample(latents) for part, latents in self._split(z)])

    def posterior(self, z: Tensor) -> Posterior:
        """The groups' posteriors, which are independent given z."""
        if not self.shared:
            return Posterior(
                [logits for part, latents in self._split(z) for logits in part.posterior(latents).log_probs]
            )
        gathered = [
            logits.unflatten(0, (z.shape[0], -1)) for logits in self._part(0).posterior(self._gather(z)).log_probs
        ]
        return Posterior([logits[:, g] for g in range(self.groups) for logits in gathered])

    def _split(self, z: Tensor) -> Iterator[tuple[Quantizer, Tensor]]:
        return ((self._part(g), latents) for g, latents in enumerate(z.chunk(self.groups, 1)))

    def _gather(self, z: Tensor) -> Tensor:
        """All groups as examples of the shared quantizer, so that its statistics take one step per batch."""
        return z.reshape(z.shape[0] * self.groups, -1, *z.shape[2:])

    def _examples(self, z: Tensor) -> Tensor:
        """All groups as examples, those of the first group first, contiguous over dim as look-ups want them."""
        by_group = z.reshape(z.shape[0], self.groups, -1, *z.shape[2:])
        rows = by_group.movedim(2, -1).movedim(1, 0).contiguous()
        return rows.flatten(0, 1).movedim(-1, 1)

    def _join_examples(self, quantized: Quantized) -> Quantized:
        by_group = [t.unflatten(0, (self.groups, -1)) for t in quantized[:4]]
        z, codes, loss, kl = by_group
        return Quantized(
            z.movedim(2, -1).movedim(0, -2).flatten(-2).movedim(-1, 1),
            codes.transpose(0, 1).flatten(1, 2),
            loss.sum(0),
            kl.sum(0),
            self._metrics(quantized.metrics),
        )

    def _join(self, groups: list[Quantized]) -> Quantized:
        return Quantized(
            torch.cat([group.z for group in groups], 1),
            torch.cat([group.codes for group in groups], 1),
            torch.stack([group.loss for group in groups]).sum(0),
            torch.stack([group.kl for group in groups]).sum(0),
            self._metrics({k: torch.stack([group.metrics[k] for group in groups]).mean(0) for k in groups[0].metrics}),
        )

    def _join_shared(self, quantized: Quantized, batch: int) -> Quantized:
        return Quantized(
            quantized.z.reshape(batch, -1, *quantized.z.shape[2:]),
            quantized.codes.reshape(batch, -1, *quantized.codes.shape[2:]),
            quantized.loss.view(batch, -1).sum(1),
            quantized.kl.view(batch, -1).sum(1),
            self._metrics(quantized.metrics),
        )

    def _metrics(self, mean: dict[str, Tensor]) -> dict[str, Tensor]:
        """The means over groups, except the error: a squared norm over all channels is a sum over groups."""
        return {k: value * self.groups if k == "quantization_error" else value for k, value in mean.items()}

    def _part(self, group: int) -> Quantizer:
        part = self.inner[0 if self.shared else group]
        assert isinstance(part, Quantizer)
        return part
