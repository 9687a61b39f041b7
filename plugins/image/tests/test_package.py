"""The package, as its users install it."""

from __future__ import annotations

from typing import ClassVar

from toolkit.testing import PluginSuite

SMALL = {
    "image_vqgan": ["hidden=32", "bottleneck=32"],
    "image_vit": ["hidden=32", "heads=2", "layers=1"],
    "image_latents": ["hidden=32", "heads=2", "layers=1"],
}
"""Parts of published sizes, each of which fits its own other half alone."""


def both(name: str) -> list[str]:
    """Encoder and decoder of one name, small."""
    sizes = [f"{kind}.{option}" for kind in ("encoder", "decoder") for option in SMALL[name]]
    return [f"encoder={name}", f"decoder={name}", *sizes]


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
    beside: ClassVar = {f"{kind}={name}": both(name) for name in SMALL for kind in ("encoder", "decoder")}
