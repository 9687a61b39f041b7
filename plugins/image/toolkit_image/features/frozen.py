"""A feature network as other parts use it: by name, from its weights, and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, TypeVar, cast, final

import torch
from torch import Tensor, nn

from toolkit import ToolkitError
from toolkit_image.features import weights
from toolkit_image.features.convnext import ConvnextNetwork
from toolkit_image.features.dinov2 import Dinov2Network
from toolkit_image.features.efficientnet_lite0 import EfficientnetLite0Network
from toolkit_image.features.network import FeatureNetwork, evenly
from toolkit_image.features.vgg import VggNetwork

Network = TypeVar("Network", bound=nn.Module)
Name = Literal["efficientnet_lite0", "vgg", "convnext", "dinov2"]
NETWORKS: dict[str, type[FeatureNetwork]] = {
    "efficientnet_lite0": EfficientnetLite0Network,
    "vgg": VggNetwork,
    "convnext": ConvnextNetwork,
    "dinov2": Dinov2Network,
}


@final
class Frozen(nn.Module):
    """A feature network in eval mode, whose weights are neither parameters nor part of any checkpoint.

    ``digest`` is the SHA-256 of its weights.
    """

    def __init__(self, network: FeatureNetwork, digest: str) -> None:
        super().__init__()
        self.network, self.digest = without_parameters(network), digest
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in network.normalization)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        self.eval()

    @classmethod
    def load(cls, name: str, path: str | None = None) -> Self:
        """ToolkitError where its weights are not on the machine, or are another network's."""
        network = NETWORKS[name]
        file = weights.find(name, network.file, path)
        tensors = {key: value.float() for key, value in weights.read(file).items()}
        if network is VggNetwork and len(tensors.get("features.28.weight", ())) == 512:
            tensors = {**weights.heads(), **tensors}
        try:
            with torch.device("meta"):  # which takes no random number
                built = network.of(tensors)
            own = {key: tensors[key] for key in built.state_dict() if not key.endswith("num_batches_tracked")}
            counts = {key: torch.zeros((), dtype=torch.int64) for key in built.state_dict() if key not in own}
            built.load_state_dict({**own, **counts}, assign=True)
        except (KeyError, RuntimeError, ValueError, IndexError) as e:
            what = f"{e} is missing" if isinstance(e, KeyError) else str(e).splitlines()[-1].strip()
            raise ToolkitError(f"{file} does not hold the weights of {name}: {what}") from e
        return cls(built, weights.digest(own))

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode."""
        return super().train(False)

    def chosen(self, layers: Sequence[str]) -> tuple[str, ...]:
        """These layers, or where there are none the network's default. ToolkitError for one that it does not have."""
        wrong = [name for name in layers if name not in self.network.layers]
        if wrong:
            have = ", ".join(self.network.layers)
            raise ToolkitError(f"layers={list(layers)}: the network has no {', '.join(wrong)} (it has: {have})")
        return tuple(layers) or self.network.default_layers or evenly(self.network.layers)

    def forward(self, pictures: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Pictures ``(batch, 3, height, width)`` from 0 to 1 to the features of these layers."""
        features: list[Tensor] = self.network(self._normalized(pictures), layers)
        return features

    def embed(self, pictures: Tensor) -> Tensor:
        """One vector for each picture ``(batch, features)``."""
        return self.network.embed(self._normalized(pictures))

    def _normalized(self, pictures: Tensor) -> Tensor:
        mean, deviation = cast(Tensor, self.mean), cast(Tensor, self.deviation)
        return (pictures.to(mean.dtype) - mean) / deviation


def without_parameters(network: Network) -> Network:
    """The same with its parameters as buffers, and no buffer that is saved."""
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                del module._parameters[name]
                module.register_buffer(name, parameter.detach())
        module._non_persistent_buffers_set.update(module._buffers)
    return network
