"""Every numeric option of the core's parts takes numbers that work, and refuses all others."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from toolkit import registry
from toolkit.registry import CORE, Registration
from toolkit.testing import PluginSuite

pytestmark = pytest.mark.long

LINE = ("dataset.axes=[16]",)
SMALL = ("prior.hidden=8", "prior.layers=2", "prior.head=8")


class Core(PluginSuite):
    distribution = CORE
    model = (*PluginSuite.model, "dataset.axes=[8,8]")
    beside: ClassVar = {
        "objective=adversarial": ["objective.discriminator.width=4", "likelihood=normal"],
        "objective.discriminator=patch": ["likelihood=normal"],
        "objective.discriminator=unet": ["likelihood=normal"],
        "encoder=pool": ["decoder.patch=8"],
        "decoder=wavenet": [*LINE, "decoder.blocks=1", "decoder.layers=2", "decoder.context=8"],
        "decoder=pixelcnn": ["decoder.hidden=8", "decoder.head=8", "decoder.layers=2"],
        "objective=nvil": ["quantizer=categorical"],
        "objective=vimco": ["quantizer=categorical"],
        "prior=wavenet": [*LINE, "prior.hidden=8", "prior.blocks=1", "prior.layers=2"],
        "prior=maskgit": SMALL[:2],
        "prior=pixelcnn": SMALL,
        "prior=transformer": SMALL,
        "prior=scales": SMALL,
        "prior=delay": SMALL,
        "prior=random_order": SMALL,
        "prior=coarse_to_fine": [
            "prior.hidden=8",
            "prior.inner.hidden=8",
            "prior.inner.layers=2",
            "prior.inner.head=8",
        ],
        "prior=factored": ["prior.inner.hidden=8", "prior.inner.layers=2", "prior.inner.head=8"],
        "quantizer=multiscale": ["quantizer.grid=[2,2]", "quantizer.divisors=[2]"],
        "quantizer=hierarchy": ["quantizer.grid=[2,2]", "quantizer.hidden=8"],
    }


COMPONENTS = [one for kind in registry.PARTS for one in registry.registrations(kind) if one.distribution == CORE]


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda one: f"{one.kind}={one.name}")
@pytest.mark.few(10)
def test_options_refuse_numbers_or_work_with_them(component: Registration, tmp_path: Path) -> None:
    Core().test_its_options_refuse_numbers_or_work_with_them(component, tmp_path)
