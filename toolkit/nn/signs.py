"""What sign quantizers share: codes as bits, and the entropies of those codes."""

from __future__ import annotations

from typing import Annotated, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from toolkit.device import in_float32
from toolkit.nn.entropy import entropy, over_ranks
from toolkit.ranges import NonNegative, Positive, PositiveInt

LARGEST = 24
"""Most bits of one code: with more, a table over its values would not fit into memory."""

MOST = 1 << 16
"""Most bits of a position, which are channels of the latents."""

Bits = Annotated[PositiveInt, Doc("channels of the latents; the codes of a position number 2^bits.")]
Heads = Annotated[PositiveInt, Doc("codes per position, of bits / heads bits each.")]
EntropyWeight = Annotated[NonNegative, Doc("weight of the entropy terms.")]
Diversity = Annotated[NonNegative, Doc("gamma, the weight of the second entropy against the first.")]
Temperature = Annotated[Positive, Doc("of the distribution in the entropy terms.")]


@final
class SignCodes(nn.Module):
    """Codes whose bits are the signs of channels, with values ``unit`` or ``-unit``. It has no state.

    ValueError where heads do not divide bits.
    """

    def __init__(self, bits: Bits, heads: Heads, unit: float) -> None:
        super().__init__()
        self.bits, self.heads, self.per_head = bits, heads, _per_head(bits, heads)
        self.codebook_sizes = (2**self.per_head,) * heads
        self.unit: Tensor
        self.register_buffer("unit", torch.tensor(unit), persistent=False)

    def nearest(self, z: Tensor) -> Tensor:
        """Latents ``(batch, bits, *grid)`` to ``unit`` or ``-unit`` by their signs."""
        return corners(z > 0, self.unit)

    def codes(self, z: Tensor) -> Tensor:
        """Latents ``(batch, bits, *grid)`` to codes ``(batch, heads, *grid)``."""
        return pack(z > 0, self.heads)

    def embed(self, codes: Tensor) -> Tensor:
        """Codes of the first heads to latents; channels of heads whose codes are missing are 0."""
        return points(codes, self.bits, self.per_head, self.unit)


def _per_head(bits: int, heads: int) -> int:
    if bits < 1 or heads < 1 or bits % heads:
        raise ValueError(f"bits={bits} heads={heads}: bits must be a multiple of heads, both at least 1")
    if bits > MOST:
        raise ValueError(f"bits={bits}: at most {MOST}")
    if bits // heads > LARGEST:
        raise ValueError(f"bits={bits} heads={heads}: at most {LARGEST} bits per head; choose more heads")
    return bits // heads


def pack(ones: Tensor, heads: int) -> Tensor:
    """Which bits are set, ``(batch, bits, *grid)``, to codes ``(batch, heads, *grid)``; first bit most significant."""
    by_head = ones.unflatten(1, (heads, -1))
    weights = 1 << _shifts(by_head.shape[2], ones.device)
    return torch.sum(by_head * weights.view(-1, *[1] * (ones.dim() - 2)), 2)


def points(codes: Tensor, bits: int, size: int, unit: Tensor) -> Tensor:
    """Codes ``(batch, d, *grid)`` of ``size`` bits each to ``unit`` or ``-unit``, ``(batch, bits, *grid)``.

    Channels of heads whose codes are missing are 0.
    """
    shifts = _shifts(size, codes.device).view(-1, *[1] * (codes.dim() - 2))
    ones = (codes.unsqueeze(2).bitwise_right_shift(shifts) & 1).flatten(1, 2).bool()
    given = corners(ones, unit)
    missing = given.new_zeros(given.shape[0], bits - given.shape[1], *given.shape[2:])
    return torch.cat([given, missing], 1)


def corners(ones: Tensor, unit: Tensor) -> Tensor:
    return torch.where(ones, unit, -unit)


def bit_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of bits with these logits, elementwise; without cancellation at any size."""
    size = logits.abs()
    return F.softplus(-size) + size * torch.sigmoid(-size)


def code_entropy(logits: Tensor) -> Tensor:
    """Nats ``(batch,)`` of the bits ``(batch, bits, *grid)`` at a position, averaged over positions."""
    return bit_entropy(logits).sum(1).flatten(1).mean(1)


def mean_code_entropy(logits: Tensor, heads: int) -> Tensor:
    """Nats, 0-d: entropy of each head's average distribution over codes, summed over heads.

    Bits ``(batch, bits, *grid)`` are independent given their position, but not on average. The average of products
    over positions is a matrix product of one half of the bits with the other, so nothing of the size
    positions x codes is in memory.
    """
    by_head = logits.movedim(1, -1).reshape(-1, logits.shape[1]).unflatten(1, (heads, -1))
    half = by_head.shape[2] // 2
    with in_float32(logits.device):
        first, second = _joint(by_head[:, :, :half]), _joint(by_head[:, :, half:])
        probs = torch.einsum("nha,nhb->hab", first, second) / by_head.shape[0]
    return entropy(over_ranks(probs))


def mean_bit_entropy(logits: Tensor) -> Tensor:
    """Nats, 0-d: entropy of every bit's average, summed over bits; that of codes with independent bits."""
    ones = torch.sigmoid(logits).movedim(1, -1).flatten(0, -2).mean(0)
    probs = over_ranks(ones)
    return entropy(probs) + entropy(1 - probs)


def _joint(logits: Tensor) -> Tensor:
    """Logits of bits ``(n, heads, bits)`` to probabilities of codes ``(n, heads, 2^bits)``, first bit highest."""
    probs = logits.new_ones(*logits.shape[:2], 1)
    for bit in logits.unbind(2):
        pair = torch.stack([torch.sigmoid(-bit), torch.sigmoid(bit)], 2)
        probs = (probs.unsqueeze(3) * pair.unsqueeze(2)).flatten(2)
    return probs


def _shifts(size: int, device: torch.device) -> Tensor:
    """Each bit's position from the right."""
    return torch.arange(size - 1, -1, -1, device=device)
