"""What is measured of sound and of its codes, against what can be worked out."""

from __future__ import annotations

import sys
from math import log, log10, pi
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from torch import Tensor

from toolkit import Autoencoder, Bound, CodeSpec, Condition, DataSpec, Metric, Quantized, ToolkitError
from toolkit.likelihoods.normal import NormalDistribution
from toolkit.testing.metric import MetricSuite
from toolkit_audio.phones import PhonesMetric, kmeans, most_frequent
from toolkit_audio.quality import QualityMetric, si_sdr

RATE = 8000
PHONE = Condition("phone", 3, ("sil", "a", "i"), per_step=True, stride=80)
SOUND = DataSpec(1, (800,), levels=256, rates=(float(RATE),), conditions=(PHONE,))
FLOATS = DataSpec(1, (4000,), rates=(float(RATE),))
CODES = CodeSpec((10,), (16,))


class TestQualityMetric(MetricSuite):
    data: ClassVar[DataSpec] = SOUND

    def make(self, model: Autoencoder) -> Metric:
        return QualityMetric(model.data, model.code_spec)


class TestPhonesMetric(MetricSuite):
    data: ClassVar[DataSpec] = SOUND

    def make(self, model: Autoencoder) -> Metric:
        return PhonesMetric(model.data, model.code_spec)


def made_of(mean: Tensor, data: DataSpec, codes: Tensor | None = None) -> Bound:
    nothing = torch.zeros(len(mean))
    codes = torch.zeros(len(mean), 1, *CODES.grid, dtype=torch.int64) if codes is None else codes
    quantized = Quantized(codes.float(), codes, nothing, nothing, {})
    return Bound(nothing, nothing, NormalDistribution(mean, torch.tensor(0.0), data), quantized)


def judged(mean: Tensor, x: Tensor, **options: bool) -> dict[str, float]:
    metric = QualityMetric(FLOATS, CODES, **options)
    metric.update(x, made_of(mean, FLOATS), {})
    return metric.compute()


def tone(frequency: float = 440) -> Tensor:
    return 0.5 * torch.sin(2 * pi * frequency * torch.arange(4000) / RATE).view(1, 1, -1)


def test_si_sdr_is_ten_times_the_log_of_signal_over_noise_whatever_the_scale() -> None:
    target = torch.randn(3, 4000, dtype=torch.float64)
    noise = torch.randn(3, 4000, dtype=torch.float64)
    noise -= target * ((noise * target).sum(1) / target.square().sum(1)).unsqueeze(1)
    noise -= noise.mean(1, keepdim=True)
    expected = 10 * (target.square().sum(1) / (0.1 * noise).square().sum(1)).log10()
    for scale in (1.0, 0.01, 30.0):
        torch.testing.assert_close(si_sdr(scale * (target + 0.1 * noise), target), expected, rtol=1e-3, atol=1e-3)


def test_si_sdr_is_torchmetrics() -> None:
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as theirs

    made, target = torch.randn(2, 5, 1000, dtype=torch.float64)
    torch.testing.assert_close(si_sdr(made, target), theirs(made, target, zero_mean=True))


def test_a_perfect_reconstruction() -> None:
    metrics = judged(tone(), tone())
    assert metrics == {"si_sdr": 100.0, "stft_distance": 0.0, "mel_distance": 0.0, "kbit_per_second": 0.08}


def test_half_as_loud_is_as_alike_and_log_two_away() -> None:
    noise = torch.rand(1, 1, 4000) - 0.5
    metrics = judged(noise / 2, noise)
    assert metrics["si_sdr"] == pytest.approx(100, abs=5)
    assert metrics["mel_distance"] == pytest.approx(log(2), rel=0.01)
    assert metrics["stft_distance"] == pytest.approx(0.5 + log(2), rel=0.01)


def test_what_is_heard_of_mu_law_levels_is_judged_as_a_waveform() -> None:
    x = torch.randint(256, (2, 1, 800))
    metric = QualityMetric(SOUND, CODES)
    metric.update(x, made_of(SOUND.scale(x), SOUND), {})
    assert metric.compute()["si_sdr"] == pytest.approx(100)


def test_silence_has_no_ratio() -> None:
    assert "si_sdr" not in judged(tone(), torch.zeros(1, 1, 4000))
    both = judged(torch.cat([tone(), tone()]), torch.cat([torch.zeros(1, 1, 4000), tone()]))
    assert both["si_sdr"] == 100


def test_kilobits_are_those_of_the_codes() -> None:
    """640 bits in a tenth of a second."""
    code_spec = CodeSpec((10, 2), (256, 256, 256, 256))
    assert QualityMetric(SOUND, code_spec).compute() == {"kbit_per_second": pytest.approx(6.4)}


@pytest.mark.parametrize("name", ["pesq", "stoi"])
def test_judges_of_other_packages(name: str, monkeypatch: pytest.MonkeyPatch, speech: Path) -> None:
    package = "pystoi" if name == "stoi" else name
    pytest.importorskip(package)
    from toolkit_audio.reading import read_span

    data = DataSpec(1, (48000,), rates=(16000.0,))
    path = sorted(speech.glob("LibriSpeech/*/*/*/*.flac"))[0]
    x = torch.from_numpy(read_span(path, 16000, 64000, 16000)).view(1, 1, -1)
    noisy = (x + 0.05 * torch.randn_like(x)).clamp(-1, 1)
    metrics = []
    for mean in (x, noisy):
        metric = QualityMetric(data, CodeSpec((75,), (1024,)), pesq=name == "pesq", stoi=name == "stoi")
        metric.update(x, made_of(mean, data), {})
        metrics.append(metric.compute()[name])
    assert metrics[0] == pytest.approx({"pesq": 4.64, "stoi": 1.0}[name], abs=0.01)
    assert metrics[1] < 0.95 * metrics[0]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ToolkitError, match=rf"audio_quality.{name} needs the package.*pip install"):
        judged(tone(), tone(), **{name: True})


def test_pesq_is_of_two_rates() -> None:
    with pytest.raises(ValueError, match="8000 and 16000 samples per second, not 24000"):
        QualityMetric(DataSpec(1, (100,), rates=(24000.0,)), CODES, pesq=True)


def phones_of(metric: PhonesMetric, codes: list[int], phones: list[int], fit: bool = False) -> PhonesMetric:
    x = torch.randint(256, (1, 1, 800))
    output = made_of(SOUND.scale(x), SOUND, torch.tensor(codes).view(1, 1, -1))
    (metric.fit if fit else metric.update)(x, output, {"phone": torch.tensor([phones])})
    return metric


def test_a_code_stands_for_the_phone_it_falls_on_most_often() -> None:
    metric = PhonesMetric(SOUND, CODES)
    phones_of(metric, [1, 1, 1, 2, 2, 2, 3, 3, 3, 3], [0, 0, 1, 1, 1, 1, 2, 2, 2, 2], fit=True)
    # 1 stands for 0, 2 for 1, 3 for 2; 7 was never seen and stands for 1, the first of the most frequent; 3 is "none"
    phones_of(metric, [1, 1, 2, 2, 3, 3, 7, 7, 1, 1], [0, 1, 1, 2, 2, 2, 1, 0, 3, 3])
    metrics = metric.compute()
    assert metrics["phone_accuracy"] == pytest.approx(5 / 8)
    assert metrics["phone_majority"] == pytest.approx(3 / 8)


def test_k_means_hears_what_differs() -> None:
    """Loud, soft and silent are told apart by their spectra, whatever the codes say."""
    data = DataSpec(1, (800,), rates=(float(RATE),), conditions=(PHONE,))
    metric, generator = PhonesMetric(data, CODES), torch.Generator().manual_seed(0)
    for take in (metric.fit, metric.update):
        for _ in range(10):
            phones = torch.randint(3, (2, 10), generator=generator)
            level = torch.tensor([0.0, 0.9, 0.01])[phones].repeat_interleave(80, 1).unsqueeze(1)
            x = level * (torch.rand(2, 1, 800, generator=generator) - 0.5)
            take(x, made_of(x, data), {"phone": phones})
    metrics = metric.compute()
    assert metrics["phone_kmeans"] > 0.75
    assert metrics["phone_accuracy"] == metrics["phone_majority"] < 0.5


def test_silence_is_left_out_of_the_second_figures() -> None:
    """Of the frames that count, and of what codes stand for: code 1 is silence or a, code 2 silence or i."""
    metric = PhonesMetric(SOUND, CODES)
    phones_of(metric, [1] * 5 + [2] * 5, [0, 0, 0, 1, 1, 0, 0, 2, 2, 2], fit=True)
    phones_of(metric, [1] * 5 + [2] * 5, [0, 1, 1, 2, 3, 0, 2, 2, 2, 1])
    told = metric.compute()
    assert told["phone_accuracy"] == pytest.approx(4 / 9)
    assert told["phone_accuracy_without_silence"] == pytest.approx(5 / 7)
    assert told["phone_majority_without_silence"] == pytest.approx(4 / 7)
    assert 0 <= told["phone_kmeans_without_silence"] <= 1
    silent = PhonesMetric(SOUND, CODES)
    phones_of(silent, [1] * 10, [0] * 10, fit=True)
    phones_of(silent, [1] * 10, [0] * 10)
    assert set(silent.compute()) == {"phone_accuracy", "phone_majority", "phone_kmeans"}


def test_a_code_has_the_phone_of_its_middle() -> None:
    metric = PhonesMetric(SOUND, CodeSpec((5,), (16,)))
    x = torch.randint(256, (1, 1, 800))
    for take in (metric.fit, metric.update):
        output = made_of(SOUND.scale(x), SOUND, torch.tensor([[[0, 1, 0, 1, 0]]]))
        take(x, output, {"phone": torch.tensor([[2, 0, 2, 1, 2, 0, 2, 1, 2, 0]])})
    assert metric.compute()["phone_accuracy"] == 1


def test_most_frequent() -> None:
    codes, phones = torch.tensor([0, 0, 0, 2, 2, 2, 2]), torch.tensor([1, 1, 0, 2, 2, 2, 0])
    assert most_frequent(codes, phones, entries=4, classes=3).tolist() == [1, 2, 2, 2]


def test_k_means_finds_the_middle_of_clusters() -> None:
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    rows = middles.repeat(50, 1) + 0.1 * torch.randn(150, 2)
    found = kmeans(rows, 3)
    assert torch.cdist(middles, found).amin(1).max() < 0.1
    assert len(kmeans(rows[:2], 16)) == 2


def test_the_picture_shows_who_is_taken_for_whom(tmp_path: Path) -> None:
    metric = PhonesMetric(SOUND, CODES)
    phones_of(metric, [1] * 5 + [2] * 5, [0] * 5 + [1] * 5, fit=True)
    phones_of(metric, [1] * 5 + [2] * 5, [0] * 4 + [1] * 6)
    (path,) = metric.plot(tmp_path)
    with Image.open(path) as image:
        assert min(image.size) > 150


@pytest.mark.parametrize(
    ("data", "code_spec", "why"),
    [
        (FLOATS, CODES, r"no condition phone.*dataset.phones=FOLDER"),
        (SOUND, CodeSpec((10,), ()), "a continuous bottleneck has no codes"),
        (SOUND, CodeSpec((21,), (16,), ((1,), (20,))), "codes over time, and these lie flat"),
    ],
)
def test_phones_need_phones_and_codes(data: DataSpec, code_spec: CodeSpec, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PhonesMetric(data, code_spec)


def test_decibels_of_the_ratio_end_somewhere() -> None:
    one = torch.randn(1, 100)
    assert float(si_sdr(one, one)) == 100
    assert float(si_sdr(torch.randn(1, 100) * 0, one)) == pytest.approx(10 * log10(1e-10))
