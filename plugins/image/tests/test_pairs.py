"""Every installed encoder with every installed prior: they fit, or are refused with a reason."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from toolkit import registry
from toolkit.__main__ import run

pytestmark = pytest.mark.long

SMALL = {
    "pixelcnn": ["prior.hidden=8", "prior.layers=1"],
    "wavenet": ["prior.hidden=8", "prior.layers=1"],
    "transformer": ["prior.hidden=8", "prior.layers=1"],
    "maskgit": ["prior.hidden=8", "prior.layers=1"],
}


def pairs() -> list[Any]:
    """All; those that are not of the default lane are slow: there every encoder and every prior has a pair."""
    return [
        pair if pair[0] == "image_conv" or pair[1] == "pixelcnn" else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in product(registry.names("encoder"), registry.names("prior"))
    ]


@pytest.mark.few(4)
@pytest.mark.parametrize(("encoder", "prior"), pairs())
def test_encoder_with_prior(encoder: str, prior: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The decoder takes any grid whose positions are whole numbers of the data's."""
    words = ["dataset=image_shapes", f"encoder={encoder}", "quantizer=vq", "decoder=pixelcnn", "dim=8"]
    small = ["decoder.hidden=8", "decoder.layers=1", "encoder.hidden=8"] if encoder in ("image_conv", "pool") else []
    status = run(["check", *words, *small, f"prior={prior}", *SMALL.get(prior, [])])
    told = capsys.readouterr()
    if encoder in ("image_conv", "pool") and prior != "wavenet":
        assert status == 0, told.err
        assert "the parts fit" in told.out
    else:
        assert status in (0, 2)
        assert status == 0 or any(
            name in told.err for name in (f"encoder={encoder}", f"prior={prior}", "decoder=pixelcnn")
        )
        assert "Traceback" not in told.err
