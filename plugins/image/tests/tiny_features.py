"""Feature networks of a few channels, with random weights, as files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from toolkit_image.features.convnext import ConvnextNetwork
from toolkit_image.features.dinov2 import Dinov2Network
from toolkit_image.features.efficientnet_lite0 import EfficientnetLite0Network
from toolkit_image.features.network import FeatureNetwork
from toolkit_image.features.vgg import VggNetwork


def tiny(name: str) -> FeatureNetwork:
    """One with random weights, the same at every call."""
    networks: dict[str, FeatureNetwork] = {
        "vgg": VggNetwork((3, 4, 4, 4, 4, 4), heads=True),
        "convnext": ConvnextNetwork((1, 1, 2, 1), (4, 4, 8, 8)),
        "dinov2": Dinov2Network(8, 3, 4, 14),
        "efficientnet_lite0": EfficientnetLite0Network(8, [(8, 8, 8, 3)] * 16, 16),
    }
    return randomized(networks[name])


def randomized(network: FeatureNetwork) -> FeatureNetwork:
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            spread = (2 / max(1, tensor[0].numel())) ** 0.5 if tensor.dim() > 1 else 0.3
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * spread)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            part.weight.data.abs_().add_(0.5)
        if isinstance(part, nn.BatchNorm2d) and part.running_var is not None:
            part.running_var.abs_().add_(0.5)
    if isinstance(network, VggNetwork):
        for stage in range(5):
            network.get_parameter(f"lin{stage}.model.1.weight").data.abs_()
    return network.eval()


def write(folder: Path, name: str) -> str:
    """The path of a file of its weights."""
    path = folder / f"{name}.pth"
    torch.save(tiny(name).state_dict(), path)
    return str(path)
