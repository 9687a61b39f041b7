"""The package, as its users install it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import ClassVar
from unittest.mock import MagicMock

import pytest

from toolkit.testing import PluginSuite
from toolkit_audio.voice_encoder import VoiceEncoder


@pytest.fixture(autouse=True)
def _packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of extras, which metrics ask for when they are built."""
    for name, member in (("visqol.api", "VisqolApi"), ("speechmos.dnsmos", "run")):
        module = ModuleType(name)
        setattr(module, member, MagicMock())
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(VoiceEncoder, "load", lambda weights: VoiceEncoder())


class TestPackage(PluginSuite):
    distribution = "discrete-toolkit-audio"
    model = (
        "dataset=audio_vowels",
        "encoder=audio_conv",
        "quantizer=vq",
        "decoder=audio_conv",
        "likelihood=categorical",
        "prior=categorical",
    )
    beside: ClassVar = {
        "encoder=audio_mel": ["decoder=wavenet", "dataset.seconds=1.28"],
        "encoder=audio_logmel": ["decoder=wavenet", "dataset.seconds=1.28"],
        "encoder=audio_seanet": ["decoder=audio_seanet"],
        "decoder=audio_seanet": ["encoder=audio_seanet"],
        "encoder=audio_dac": ["decoder=audio_dac", "dataset.seconds=1.024", "decoder.hidden=64"],
        "decoder=audio_dac": ["encoder=audio_dac", "dataset.seconds=1.024", "decoder.hidden=64"],
        "encoder=audio_mimi": [
            "decoder=audio_mimi",
            "dataset.seconds=0.96",
            "encoder.hidden=8",
            "decoder.hidden=8",
            "encoder.layers=1",
            "decoder.layers=1",
        ],
        "decoder=audio_mimi": [
            "encoder=audio_mimi",
            "dataset.seconds=0.96",
            "encoder.hidden=8",
            "decoder.hidden=8",
            "encoder.layers=1",
            "decoder.layers=1",
        ],
        "encoder=audio_snac": ["decoder=audio_snac", "dataset.seconds=1.024", "decoder.hidden=64"],
        "decoder=audio_snac": ["encoder=audio_snac", "dataset.seconds=1.024", "decoder.hidden=64"],
        "objective=audio_distillation": ["objective.weights=teacher.pt"],
        "decoder=audio_vocos": ["decoder.hop=64", "decoder.window=256"],
    }
