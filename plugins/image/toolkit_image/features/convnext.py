"""ConvNeXt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit_image.features.network import FeatureNetwork

STAGES = 4
EPSILON = 1e-6


@final
class ConvnextNetwork(FeatureNetwork):
    """ConvNeXt (Liu et al. 2022, arXiv:2201.03545) of any size, as torchvision names its tensors; trained on ImageNet.
    Tokenizers are trained against its features since MaskBit (Weber et al. 2024, arXiv:2409.16211)."""

    file = "convnext_tiny-983f1562.pth"
    default_layers = ("stage1", "stage2", "stage3", "stage4")
    smallest: ClassVar[int] = 32

    def __init__(self, depths: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), _ChannelNorm(widths[0]))]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage:
                before = widths[stage - 1]
                parts.append(nn.Sequential(_ChannelNorm(before), nn.Conv2d(before, width, 2, 2)))
            parts.append(nn.Sequential(*(_Block(width) for _ in range(depth))))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(_ChannelNorm(widths[-1]))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        names = [f"features.{2 * stage + 1}." for stage in range(STAGES)]
        depths = [sum(key.startswith(name) and key.endswith("layer_scale") for key in tensors) for name in names]
        return cls(depths, [len(tensors[f"{name}0.layer_scale"]) for name in names])

    @property
    def layers(self) -> tuple[str, ...]:
        return self.default_layers

    def forward(self, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
        found: dict[str, Tensor] = {}
        for stage in range(max(self.layers.index(name) for name in layers) + 1):
            x = self.features[2 * stage : 2 * stage + 2](x)
            found[f"stage{stage + 1}"] = x
        return [found[name] for name in layers]

    def embed(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.classifier(self.features(x).mean((2, 3), keepdim=True))
        return pooled.flatten(1)


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of ``(batch, channels, height, width)``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.ModuleDict(
            {
                "0": nn.Conv2d(width, width, 7, padding=3, groups=width),
                "2": nn.LayerNorm(width, EPSILON),
                "3": nn.Linear(width, 4 * width),
                "5": nn.Linear(4 * width, width),
            }
        )
        self.layer_scale = nn.Parameter(torch.empty(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.block["2"](self.block["0"](x).movedim(1, -1))
        y = self.block["5"](F.gelu(self.block["3"](y))).movedim(-1, 1)
        scaled: Tensor = self.layer_scale * y
        return x + scaled
