"""Speaker similarity, over a network of random weights in Resemblyzer's kind of file."""

from __future__ import annotations

import sys
from math import pi
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
from messages import assert_names
from torch import Tensor

from toolkit import Autoencoder, Bound, Condition, DataSpec, Metric, ToolkitError
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizer import Quantized
from toolkit.testing.metric import MetricSuite
from toolkit_audio.speaker import SpeakerMetric
from toolkit_audio.voice_encoder import VoiceEncoder, auditory_filters

SPEAKER = Condition("speaker", 3, ("ann", "bob", "cat"))
SOUND = DataSpec(1, (4000,), rates=(16000.0,), conditions=(SPEAKER,))


@pytest.fixture(scope="module", autouse=True)
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "pretrained.pt"
    state = {name: value * 4 for name, value in VoiceEncoder().state_dict().items()}
    torch.save({"model_state": state, "step": 1}, path)
    TestSpeaker.file = path
    return path


@pytest.mark.long
class TestSpeaker(MetricSuite):
    data: ClassVar[DataSpec] = DataSpec(1, (800,), levels=256, rates=(8000.0,), conditions=(SPEAKER,))
    file: Path

    def make(self, model: Autoencoder) -> Metric:
        return SpeakerMetric(model.data, weights=str(self.file))


def judged(metric: SpeakerMetric, x: Tensor, mean: Tensor, speakers: Tensor) -> dict[str, float]:
    none, likelihood = torch.zeros(1), NormalLikelihood(SOUND, scale=1.0)(mean)
    metric.update(x, Bound(none, none, likelihood, Quantized(none, none, none, none, {})), {"speaker": speakers})
    return metric.compute()


def test_similarities_are_cosines(file: Path) -> None:
    """Of a sound with itself 1; of samples with the mean voice of their speaker."""
    x, speakers = torch.randn(4, *SOUND.shape) * 0.1, torch.tensor([0, 1, 1, 3])
    metric, encoder = SpeakerMetric(SOUND, weights=str(file)), VoiceEncoder.load(str(file))
    assert judged(metric, x, x, speakers) == {"speaker_similarity": pytest.approx(1)}
    mean, samples = torch.rand(4, *SOUND.shape) - 0.5, torch.rand(3, *SOUND.shape) - 0.5
    metric = SpeakerMetric(SOUND, weights=str(file))
    metric.update_samples(samples, {"speaker": torch.tensor([1, 2, 3])})
    voices, others, drawn = (encoder(waves[:, 0]) for waves in (x, mean, samples))
    of_bob = (voices[1] + voices[2]) / (voices[1] + voices[2]).norm()
    figures = judged(metric, x, mean, speakers)
    assert figures["speaker_similarity"] == pytest.approx((voices * others).sum(1).mean().item(), rel=1e-5)
    assert figures["sample_speaker_similarity"] == pytest.approx((of_bob * drawn[0]).sum().item(), rel=1e-5)


def test_silence_has_no_voice(file: Path) -> None:
    x = torch.zeros(2, *SOUND.shape)
    assert judged(SpeakerMetric(SOUND, weights=str(file)), x, x, torch.tensor([0, 1])) == {}


def test_weights_that_are_missing_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.pt").write_text("no network")
    monkeypatch.setattr("toolkit_audio.voice_encoder.find_spec", lambda name: None)
    for weights, names in {
        None: "metric=audio_speaker … Resemblyzer … pip install … weights=PATH",
        f"{tmp_path}/gone.pt": f"weights={tmp_path}/gone.pt: … pretrained.pt",
        f"{tmp_path}/text.pt": f"{tmp_path}/text.pt … Resemblyzer",
    }.items():
        with pytest.raises(ToolkitError) as refusal:
            SpeakerMetric(SOUND, weights=weights)
        assert_names(str(refusal.value), names)


def test_auditory_filters_are_torchaudios(functional: ModuleType) -> None:
    theirs = functional.melscale_fbanks(201, 0, 8000, 40, 16000, norm="slaney", mel_scale="slaney")
    torch.testing.assert_close(auditory_filters(40, 400, 16000), theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
def test_it_is_resemblyzers_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its package, but for the silences that it cuts out first."""
    pytest.importorskip("librosa")
    spec = pytest.importorskip("importlib.util").find_spec("resemblyzer")
    if spec is None:
        pytest.skip("the package resemblyzer is not installed")
    monkeypatch.setitem(sys.modules, "webrtcvad", ModuleType("webrtcvad"))
    morphology = ModuleType("scipy.ndimage.morphology")
    vars(morphology)["binary_dilation"] = None
    monkeypatch.setitem(sys.modules, "scipy.ndimage.morphology", morphology)
    theirs = pytest.importorskip("resemblyzer")
    time = np.arange(50000) / 16000
    sound = (0.2 * np.sin(2 * pi * 140 * time * (1 + 0.1 * time)) + 0.02 * np.random.randn(50000)).astype(np.float32)
    for samples in (50000, 26000, 8000):
        wanted = theirs.VoiceEncoder("cpu", verbose=False).embed_utterance(sound[:samples])
        ours = VoiceEncoder.load()(torch.from_numpy(sound[:samples])[None])[0]
        assert np.abs(ours.numpy() - wanted).max() < 1e-4
