"""How a codebook is used."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from toolkit.figures import codebook_figures, histogram
from toolkit.metric import Metric
from toolkit.objective import Bound
from toolkit.spec import LatentSpec

COLLAPSED = 0.1
"""Share of the entries that random codes would use, below which a codebook is said to have collapsed."""


@final
class CodebookMetric(Metric):
    """``usage`` (share of entries used) and ``perplexity`` (exp of the entropy of their histogram) over all that was
    taken in, means over depths. Warns where the codes have collapsed onto few entries."""

    def __init__(self, latent: LatentSpec) -> None:
        self.latent = latent
        self._counts = torch.zeros(sum(latent.codebook_sizes), dtype=torch.double)
        self._positions = 0

    def update(self, x: Tensor, output: Bound) -> None:
        if self.latent.depth:
            self._counts += histogram(output.quantized.codes, self.latent).double().cpu()
            self._positions += output.quantized.codes[:, 0].numel()

    def compute(self) -> dict[str, float]:
        if not self.latent.depth:
            return {}
        perplexity, usage = codebook_figures(self._counts, self.latent)
        return {"usage": float(usage), "perplexity": float(perplexity)}

    def warnings(self) -> list[str]:
        """Names each depth's codebook of which almost nothing is used."""
        found = []
        for depth, counts in enumerate(self._counts.split(list(self.latent.codebook_sizes))):
            used, size = int((counts > 0).sum()), len(counts)
            expected = size * -torch.expm1(torch.tensor(-self._positions / size)).item()
            if used < COLLAPSED * expected:
                where = f" at depth {depth}" if self.latent.depth > 1 else ""
                found.append(
                    f"the codebook{where} has collapsed: {used} of {size} entries are used; more steps, restarts"
                    " (quantizer=ema with restart above 0) or a smaller codebook_size may help"
                )
        return found
