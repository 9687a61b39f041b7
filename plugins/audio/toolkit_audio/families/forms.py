"""How a codec's weights lie there and here, where that is not the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.adopting.forms import Form


def unfolded() -> Form:
    """A convolution's weight there; here its norm along all axes but the first, and its direction, as
    ``torch.nn.utils.parametrizations.weight_norm`` has them. Equal up to rounding."""

    def here(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        (weight,) = tensors
        norm = torch.norm_except_dim(weight, 2, 0)
        return [norm, torch.where(norm == 0, 1, weight)]  # zeros have no direction: any one will do

    def there(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        norm, direction = tensors
        return [torch._weight_norm(direction, norm, 0)]

    return Form(here, there)


def per_channel() -> Form:
    """Numbers of channels ``(1, channels, 1)`` there, ``(channels,)`` here."""
    return Form(lambda tensors: [t.flatten() for t in tensors], lambda tensors: [t.view(1, -1, 1) for t in tensors])


def truth() -> Form:
    """Yes or no, ``(1,)`` in float there, 0-d here."""
    return Form(
        lambda tensors: [t.bool().reshape(()) for t in tensors], lambda tensors: [t.float().view(1) for t in tensors]
    )


def both(first: Form, second: Form) -> Form:
    """One change after the other."""

    def here(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return second.here(first.here(tensors))

    def there(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return first.there(second.there(tensors))

    return Form(here, there)
