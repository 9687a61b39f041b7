"""The package, as its users install it."""

from __future__ import annotations

from toolkit.testing import PluginSuite


class TestPackage(PluginSuite):
    distribution = "discrete-toolkit-image"
    model = (
        "dataset=image_shapes",
        "encoder=image_conv",
        "quantizer=vq",
        "decoder=image_conv",
        "likelihood=categorical",
        "prior=categorical",
    )
