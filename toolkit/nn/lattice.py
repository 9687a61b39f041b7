"""What quantizers without a learned table share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from toolkit.nn import codebook as table
from toolkit.quantizer import Quantized


def fixed(z: Tensor, e: Tensor, codes: Tensor, codebook_size: int) -> Quantized:
    """Result for latents z and their nearest lattice points e, both ``(batch, dim, *grid)``.

    Straight-through, with no parameters: the loss is 0. ``quantization_error`` is ``|z - e|^2``, summed over dim
    and averaged over positions. ``codebook_size`` is that of all depths together.
    """
    kl = table.uniform_kl(z, codebook_size)
    metrics = {"quantization_error": F.mse_loss(z.detach(), e.detach()) * z.shape[1]}
    return Quantized(table.straight_through(z, e), codes, kl.new_zeros(kl.shape), kl, metrics)
