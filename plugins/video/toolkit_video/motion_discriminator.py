"""A discriminator of what is seen, and of what changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from toolkit import DataSpec, Discriminator, Judgement
from toolkit.discriminators.patch import PatchDiscriminator
from toolkit.nn.critic_conv import Norm
from toolkit.ranges import NonNegativeInt, PositiveInt


@final
class MotionDiscriminator(Discriminator):
    """Judges every frame by itself, and the motion over all of them, with two networks of patches.

    Two critics, one of frames and one of clips, are MoCoGAN's (Tulyakov et al. 2018, arXiv:1707.04993, section 3.3); as
    in DVD-GAN (Clark et al. 2019, arXiv:1907.06571, section 3.2) the second is kept from what the first sees. There its
    frames are smaller; here it gets the differences of each frame and the one before, so that what stands still is
    nothing to it. Each network is that of ``patch``, of two axes and of three.

    Args:
        width: channels of the first layer of both.
        layers: layers that halve the axes, also time where differences are judged.
    """

    def __init__(
        self, data: DataSpec, *, width: PositiveInt = 64, layers: NonNegativeInt = 3, norm: Norm = "group"
    ) -> None:
        super().__init__()
        if data.rank != 3 or data.axes[0] < 2:
            raise ValueError(
                f"data {data.shape} has no motion: axes of time, height and width are needed, and two frames"
            )
        time, *frame = data.axes
        still = DataSpec(data.channels, tuple(frame), ordered=data.ordered)
        change = DataSpec(data.channels, (time - 1, *frame), ordered=data.ordered)
        self.frames = PatchDiscriminator(still, width=width, layers=layers, norm=norm)
        self.motion = PatchDiscriminator(change, width=width, layers=layers, norm=norm)

    def forward(self, x: Tensor, conditions: Mapping[str, Tensor]) -> list[Judgement]:
        """x ``(batch, channels, time, height, width)``; of the frames logits and features are ``(batch, time, …)``."""
        of_frames = self.frames(x.transpose(1, 2).flatten(0, 1), {})
        by_example = [_by_example(judgement, x.shape[2]) for judgement in of_frames]
        return [*by_example, *self.motion(x.diff(dim=2), {})]


def _by_example(judgement: Judgement, frames: int) -> Judgement:
    logits, *features = (tensor.unflatten(0, (-1, frames)) for tensor in (judgement.logits, *judgement.features))
    return Judgement(logits, tuple(features))
