"""VGG-16 with LPIPS' linear heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit_image.features.network import FeatureNetwork

STAGES = (2, 2, 3, 3, 3)
"""Convolutions before each pooling."""
HEAD = "lin{}.model.1.weight"
"""LPIPS' names of its heads."""


@final
class VggNetwork(FeatureNetwork):
    """The convolutions of VGG-16 (Simonyan and Zisserman 2014, arXiv:1409.1556), as torchvision names them, and the
    heads of LPIPS 0.1 (Zhang et al. 2018, arXiv:1801.03924): how much each channel of five layers counts to people."""

    file = "vgg16-397923af.pth"
    default_layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
    smallest: ClassVar[int] = 16

    def __init__(self, widths: Sequence[int], heads: bool) -> None:
        """``widths``: channels of the input, and of every stage."""
        super().__init__()
        modules: list[nn.Module] = []
        self.ends: dict[str, int] = {}
        for stage, count in enumerate(STAGES):
            modules += [nn.MaxPool2d(2)] if stage else []
            for number in range(count):
                before = widths[stage] if number == 0 else widths[stage + 1]
                modules += [nn.Conv2d(before, widths[stage + 1], 3, padding=1), nn.ReLU()]
                self.ends[f"relu{stage + 1}_{number + 1}"] = len(modules)
        self.features = nn.Sequential(*modules)
        self.has_heads = heads
        for stage in range(len(STAGES) if heads else 0):
            head = nn.Sequential(nn.Identity(), nn.Conv2d(widths[stage + 1], 1, 1, bias=False))
            self.add_module(f"lin{stage}", nn.ModuleDict({"model": head}))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        first = [sum(2 * n + 1 for n in STAGES[:stage]) for stage in range(len(STAGES))]
        widths = [len(tensors[f"features.{place}.weight"]) for place in first]
        heads = all(HEAD.format(stage) in tensors for stage in range(len(STAGES)))
        return cls([tensors["features.0.weight"].shape[1], *widths], heads)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.ends)

    def forward(self, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
        found, start = {}, 0
        for name, end in self.ends.items():
            if name in layers:
                x = self.features[start:end](x)
                found[name], start = x, end
        return [found[name] for name in layers]

    def embed(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)

    def head(self, layer: str) -> Tensor | None:
        if not self.has_heads or layer not in self.default_layers:
            return None
        weight = self.get_buffer(HEAD.format(self.default_layers.index(layer)))
        return torch.flatten(weight)
