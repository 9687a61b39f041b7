"""The package, as its users install it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from toolkit.nn.scripted import Scripted
from toolkit.testing import PluginSuite

VIDTOK = [
    f"{kind}.{option}"
    for kind in ("encoder", "decoder")
    for option in ("hidden=2", "blocks=1", "multipliers=[1,1]", "strides=[[2,2,2]]")
]
"""Both halves, small: each fits the other alone."""


@pytest.fixture(autouse=True)
def _weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of I3D, which the metric reads when it is built."""
    monkeypatch.setattr("toolkit_video.fvd._cached", lambda: "i3d_torchscript.pt")
    monkeypatch.setattr(Scripted, "load", lambda path, what: Scripted(None, Path(path), ""))


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
