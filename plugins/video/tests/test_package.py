"""The package, as its users install it."""

from __future__ import annotations

from typing import ClassVar

from toolkit.testing import PluginSuite

VIDTOK = [
    f"{kind}.{option}"
    for kind in ("encoder", "decoder")
    for option in ("hidden=2", "blocks=1", "multipliers=[1,1]", "strides=[[2,2,2]]")
]
"""Both halves, small: each fits the other alone."""


class TestPackage(PluginSuite):
    distribution = "discrete-toolkit-video"
    model = (
        "dataset=video_sprites",
        "encoder=video_conv",
        "quantizer=vq",
        "decoder=video_conv",
        "likelihood=categorical",
        "prior=categorical",
    )
    beside: ClassVar = {
        "encoder=video_vidtok": ["decoder=video_vidtok", *VIDTOK],
        "decoder=video_vidtok": ["encoder=video_vidtok", *VIDTOK],
    }
