"""The modules that are traced: of tensors alone, and with no weight that they do not use."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from toolkit.autoencoder import Autoencoder
from toolkit.exporting.tensors import stored
from toolkit.model import Model


@final
class Encode(nn.Module):
    """Data ``(batch, channels, *axes)`` to codes ``(batch, depth, *grid)``, through the bases of a model first.

    Of a continuous bottleneck to its latents.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.below = None if model.base is None else Encode(model.base)
        self.data, self.depth = model.data, model.code_spec.depth
        self.autoencoder = without(model.autoencoder, "decoder")

    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        own = x if self.below is None else self.below(x)
        quantized = self.autoencoder.quantize(own if self.data.levels is None else own.long())
        return quantized.codes if self.depth else quantized.z


@final
class Embed(nn.Module):
    """Codes ``(batch, depth, *grid)`` to the decoder's latents ``(batch, dim, *grid)``."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.quantizer = model.autoencoder.quantizer

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.quantizer.embed(*inputs)


@final
class Decode(nn.Module):
    """Codes, or latents where there are none, and conditions, to data in its own form and the likelihood's mean.

    The mean is on the scale of ``DataSpec.scale``, from -1 to 1, neither rounded nor cut off.
    """

    def __init__(self, model: Model, conditions: tuple[str, ...]) -> None:
        super().__init__()
        self.data, self.depth, self.conditions = model.data, model.code_spec.depth, conditions
        self.autoencoder = without(model.autoencoder, "encoder")

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        z = self.autoencoder.embed(inputs[0]) if self.depth else inputs[0]
        mean = self.autoencoder.decode(z, dict(zip(self.conditions, inputs[1:], strict=True))).mean
        assert mean is not None
        return stored(self.data.unscale(mean), self.data), mean


def without(autoencoder: Autoencoder, part: str) -> Autoencoder:
    """The same autoencoder, its weights shared, but for one part."""
    rest = Autoencoder.__new__(Autoencoder)
    rest.__dict__.update(autoencoder.__dict__)
    rest._modules = {name: nn.Identity() if name == part else child for name, child in autoencoder._modules.items()}
    return rest
