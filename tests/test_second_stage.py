"""A PixelCNN decoder uses the global codes that it is given (van den Oord et al. 2017, section 4.2): none collapses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.autoencoder import Autoencoder
from toolkit.decoders.pixelcnn import PixelCNNDecoder
from toolkit.encoders.pool import PoolEncoder
from toolkit.objectives.elbo import ELBO
from toolkit.quantizers.ema import EMAQuantizer
from toolkit.quantizers.product import ProductQuantizer
from toolkit.spec import DataSpec

CODES = DataSpec(1, (6, 6), 16, ordered=False)
PATTERNS = 16


def maps(n: int) -> Tensor:
    """Codes of which three in four are one pattern's, and the others noise: what is global is which pattern."""
    patterns = torch.randint(16, (PATTERNS, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    chosen = patterns[torch.randint(PATTERNS, (n,))]
    return torch.where(torch.rand(chosen.shape) < 0.25, torch.randint(16, chosen.shape), chosen)


def trained(steps: int) -> Autoencoder:
    torch.manual_seed(0)
    quantizer = ProductQuantizer(
        24, inner=lambda dim: EMAQuantizer(dim, codebook_size=32, dead_code_threshold=0.1, decay=0.95), groups=3
    )
    decoder = PixelCNNDecoder(CODES, quantizer.dim, (), hidden=24, layers=2, kernel_size=3, head=32)
    model = Autoencoder(CODES, PoolEncoder(CODES, quantizer.channels, hidden=32), quantizer, decoder)
    objective, optimizer = ELBO(), torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(model, maps(64), {}).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.slow
def test_other_examples_codes_cost_the_decoder_its_likelihood() -> None:
    model, x = trained(300), maps(256)
    with torch.no_grad():
        codes = model.quantize(x).codes
        own, others = (
            -model.decode(model.embed(each), {}).log_prob(x).mean().item() for each in (codes, codes.roll(1, 0))
        )
    assert codes.shape == (256, 3, 1, 1)
    assert others > own + 10  # 77 against 60 nats when this was written
