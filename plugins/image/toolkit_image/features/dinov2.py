"""DINOv2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import ClassVar, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit_image.features.network import FeatureNetwork

EPSILON = 1e-6
HEAD_WIDTH = 64


@final
class Dinov2Network(FeatureNetwork):
    """The vision transformers of DINOv2 (Oquab et al. 2023, arXiv:2304.07193), S to L, as the authors' files name their
    tensors. Pictures are seen in whole patches, of 14 pixels: what is left of a side is cut off."""

    file = "dinov2_vits14_pretrain.pth"
    smallest: ClassVar[int] = 14

    def __init__(self, width: int, depth: int, places: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + places, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPSILON)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
        depth = sum(name.startswith("blocks.") and name.endswith(".ls1.gamma") for name in tensors)
        return cls(width, depth, tensors["pos_embed"].shape[1] - 1, patch)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(f"block{number + 1}" for number in range(len(self.blocks)))

    def forward(self, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
        grid = x.shape[2] // self.patch, x.shape[3] // self.patch
        tokens, found = self._tokens(x, grid), dict[str, Tensor]()
        for name, block in zip(self.layers, self.blocks, strict=True):
            if len(found) == len(set(layers)):
                break
            tokens = block(tokens)
            if name in layers:
                found[name] = tokens[:, 1:].mT.unflatten(2, grid)
        return [found[name] for name in layers]

    def embed(self, x: Tensor) -> Tensor:
        tokens = self._tokens(x, (x.shape[2] // self.patch, x.shape[3] // self.patch))
        for block in self.blocks:
            tokens = block(tokens)
        embedded: Tensor = self.norm(tokens)[:, 0]
        return embedded

    def _tokens(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(batch, 1 + patches, width)``, with their places."""
        patches = self.patch_embed["proj"](x).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1)
        return tokens + self._places(grid)

    def _places(self, grid: tuple[int, int]) -> Tensor:
        side = isqrt(self.pos_embed.shape[1] - 1)
        if grid == (side, side):
            return self.pos_embed
        square = self.pos_embed[:, 1:].mT.unflatten(2, (side, side))
        places = F.interpolate(square.float(), grid, mode="bicubic", align_corners=False).to(square.dtype)
        return torch.cat([self.pos_embed[:, :1], places.flatten(2).mT], 1)


class _Block(nn.Module):
    """A transformer's block; its scales stand by the authors' names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD_WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1, self.ls2 = _Scale(width), _Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).flatten(2)
        x = x + self.ls1.gamma * self.attn["proj"](seen)
        scaled: Tensor = self.ls2.gamma * self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + scaled


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))
