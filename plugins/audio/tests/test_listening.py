"""Metrics that ask packages with models of listeners: over stand-ins for these, and over themselves where they are."""

from __future__ import annotations

import sys
from math import pi
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from toolkit import Autoencoder, DataSpec, Metric, ToolkitError
from toolkit.objectives.elbo import ELBO
from toolkit.testing.metric import MetricSuite
from toolkit.testing.parts import point_autoencoder, random_data
from toolkit_audio.mos import MOSMetric
from toolkit_audio.visqol import ViSQOLMetric

SOUND = DataSpec(1, (800,), levels=256, rates=(8000.0,))


class _Visqol:
    def create(self, mode: str) -> None:
        self.rate = {"audio": 48000, "speech": 16000}[mode]

    def measure_from_arrays(self, reference: np.ndarray, degraded: np.ndarray, rate: int) -> Any:
        assert rate == self.rate
        assert reference.shape == degraded.shape == (800 * rate // 8000,)
        return SimpleNamespace(moslqo=5 - np.abs(reference - degraded).mean())


def _rated(sound: np.ndarray, rate: int) -> dict[str, float]:
    assert rate == 16000
    assert sound.shape == (1600,)
    return {"ovrl_mos": float(np.abs(sound).mean()), "sig_mos": 2.0, "bak_mos": 3.0, "p808_mos": 4.0}


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "visqol.api", _module("visqol.api", VisqolApi=_Visqol))
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", _module("speechmos.dnsmos", run=_rated))


@pytest.mark.usefixtures("stand_ins")
class TestVisqol(MetricSuite):
    data: ClassVar[DataSpec] = SOUND

    def make(self, model: Autoencoder) -> Metric:
        return ViSQOLMetric(model.data)


@pytest.mark.usefixtures("stand_ins")
class TestMOS(MetricSuite):
    data: ClassVar[DataSpec] = SOUND

    def make(self, model: Autoencoder) -> Metric:
        return MOSMetric(model.data)


def measured(metric: Metric, data: DataSpec, x: torch.Tensor) -> dict[str, float]:
    model = point_autoencoder(data).eval()
    with torch.inference_mode():
        metric.update(x, ELBO().bound(model, x, {}), {})
    return metric.compute()


@pytest.mark.usefixtures("stand_ins")
def test_each_mode_has_its_name_and_silence_no_figure() -> None:
    x = random_data(SOUND, 2)
    assert set(measured(ViSQOLMetric(SOUND), SOUND, x)) == {"visqol"}
    assert set(measured(ViSQOLMetric(SOUND, speech=True), SOUND, x)) == {"visqol_speech"}
    figures = measured(MOSMetric(SOUND), SOUND, x)
    assert figures["dnsmos_signal_of_data"] == 2.0
    assert figures["dnsmos_of_data"] != figures["dnsmos"]
    floats = DataSpec(1, (800,), rates=(8000.0,))
    assert measured(ViSQOLMetric(floats), floats, torch.zeros(1, 1, 800)) == {}


@pytest.mark.parametrize(("make", "module"), [(ViSQOLMetric, "visqol.api"), (MOSMetric, "speechmos.dnsmos")])
def test_what_is_missing_is_named(make: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ToolkitError, match=rf"needs the module {module}.*pip install 'discrete-toolkit-audio\["):
        make(SOUND)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "module"), [(ViSQOLMetric, "visqol.api"), (MOSMetric, "speechmos.dnsmos")])
def test_the_packages_judge(make: Any, module: str) -> None:
    """A tone under noise is rated from 1 to 5, and lower than the tone."""
    pytest.importorskip(module)
    data = DataSpec(1, (16000,), rates=(16000.0,))
    x = (0.3 * torch.sin(2 * pi * 300 * torch.arange(16000) / 16000)).view(1, 1, -1)
    figures = measured(make(data), data, x)
    assert figures
    assert all(1 <= value <= 5 for value in figures.values())
