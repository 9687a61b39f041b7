"""The package, as its users install it."""

from __future__ import annotations

from toolkit.testing import PluginSuite


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
