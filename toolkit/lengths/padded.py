"""A batch of examples of unequal lengths through the parts, so that each costs and codes what it does alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from toolkit.decoder import Decoder
from toolkit.device import wide
from toolkit.distributed import ranks
from toolkit.encoder import Encoder
from toolkit.fit import BrokenPartError
from toolkit.lengths.mask import without_padding
from toolkit.lengths.ranks import uneven
from toolkit.likelihood import Distribution
from toolkit.quantizer import Quantized


def looks_ahead(part: Encoder | Decoder) -> bool:
    """Whether what it gives of a position may depend on what comes behind it along the first axis."""
    return not (getattr(part, "causal", False) or (part.context is not None and part.context[1] == 0))


@final
class Ends:
    """Where the examples of a batch end, from the mask of x ``(batch, positions)`` and the positions of a code."""

    def __init__(self, mask: Tensor, stride: int) -> None:
        self.mask, self.codes = mask, mask[:, ::stride]
        self.positions = self.codes.sum(1)
        """Of each example's codes, along the first axis."""
        self._along: dict[int, Tensor] = {}

    def along(self, positions: int, part: nn.Module) -> Tensor:
        """The mask at a layer of a part, ``(batch, positions)``: a whole number of positions for each code."""
        if positions not in self._along:
            per_code, rest = divmod(positions, self.codes.shape[1])
            if rest or not per_code:
                text = f"has {positions} positions for {self.codes.shape[1]} codes: it can't take examples in padding"
                raise BrokenPartError(part, text)
            self._along[positions] = self.codes.repeat_interleave(per_code, 1)
        return self._along[positions]

    @contextmanager
    def in_zeros(self, part: Encoder | Decoder) -> Iterator[None]:
        """While the block lasts, the part's convolutions see zeros behind an example's end, as if it were alone.

        Those of a part that does not look ahead see what is there, which changes nothing.
        """

        def blank(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (without_padding(inputs[0], self.along(inputs[0].shape[2], part)), *inputs[1:])

        with ExitStack() as hooks:
            for layer in part.modules() if looks_ahead(part) else ():
                if isinstance(layer, _ConvNd) and layer.kernel_size[0] > 1:
                    hooks.callback(layer.register_forward_pre_hook(blank).remove)
            yield

    def quantize(self, quantizer: Callable[[Tensor], Quantized], z: Tensor, training: bool) -> Quantized:
        """Latents ``(batch, channels, *grid)`` by a local quantizer, which gets the examples' own positions alone, each
        as an example of one: whatever it counts, learns or measures, no padding is among it.

        z and codes of the padding are 0. Losses are means over an example's positions, kl their sum.
        """
        rows = z.movedim(1, -1)[self.codes].unsqueeze(1).movedim(-1, 1)
        with ExitStack() as block:
            if training and ranks() > 1:
                block.enter_context(uneven(len(rows), z.device))
            quantized = quantizer(rows)
        example = torch.arange(len(z), device=z.device).repeat_interleave(self.positions, output_size=len(rows))

        def summed(t: Tensor) -> Tensor:
            sums = torch.zeros(len(z), dtype=wide(t.device), device=t.device)
            return sums.index_add(0, example, t.to(sums.dtype))

        return quantized._replace(
            z=self._padded(quantized.z),
            codes=self._padded(quantized.codes),
            loss=(summed(quantized.loss) / self.positions).to(quantized.loss.dtype),
            kl=summed(quantized.kl).to(quantized.kl.dtype),
        )

    def _padded(self, rows: Tensor) -> Tensor:
        """``(all positions, channels, 1, …)`` to ``(batch, channels, positions, …)``."""
        values = rows.squeeze(2).movedim(1, -1)
        padded = values.new_zeros(*self.codes.shape, *values.shape[1:])
        mask = self.codes.view(*self.codes.shape, *[1] * (values.dim() - 1))
        return padded.masked_scatter(mask, values).movedim(-1, 1)


@final
class PaddedDistribution(Distribution):
    """A distribution over examples in padding, of which it tells nothing."""

    def __init__(self, base: Distribution, mask: Tensor) -> None:
        self.base, self.mask, self.shape = base, mask, base.shape
        self.mean_is_free, self.density, self.given = base.mean_is_free, base.density, base.given

    @property
    def mean(self) -> Tensor | None:
        return self.base.mean

    def log_prob(self, x: Tensor) -> Tensor:
        nats = self.base.log_prob_by_position(x).unsqueeze(1)
        return without_padding(nats, self.mask).flatten(1).sum(1)

    def log_prob_by_position(self, x: Tensor) -> Tensor:
        return without_padding(self.base.log_prob_by_position(x).unsqueeze(1), self.mask).squeeze(1)

    def sample(
        self,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        return self.base.sample(generator, temperature, progress)
