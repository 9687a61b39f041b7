"""The discriminator of frames and motion."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from toolkit import DataSpec, Discriminator
from toolkit.testing.discriminator import DiscriminatorSuite
from toolkit_video.motion_discriminator import MotionDiscriminator


class TestMotion(DiscriminatorSuite):
    data: ClassVar[DataSpec] = DataSpec(3, (4, 8, 8), levels=256)

    def make(self, data: DataSpec) -> Discriminator:
        return MotionDiscriminator(data, width=4, layers=1)


@torch.no_grad()
def test_frames_are_judged_in_any_order_and_motion_whatever_stands_still() -> None:
    judge = MotionDiscriminator(DataSpec(2, (5, 8, 8)), width=4, layers=1)
    x = torch.randn(2, 2, 5, 8, 8)
    frames, motion = judge(x, {})
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled, other_motion = judge(x[:, :, order], {})
    torch.testing.assert_close(shuffled.logits, frames.logits[:, order])
    assert not torch.allclose(other_motion.logits, motion.logits)
    other_frames, same = judge(x + torch.randn(2, 2, 1, 8, 8), {})
    torch.testing.assert_close(same.logits, motion.logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(other_frames.logits, frames.logits)


@pytest.mark.parametrize("axes", [(8, 8), (1, 8, 8)])
def test_pictures_have_no_motion(axes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="has no motion"):
        MotionDiscriminator(DataSpec(1, axes))
