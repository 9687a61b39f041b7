"""The Fréchet video distance, over a network of random weights in I3D's kind of file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchscript
from messages import assert_names
from torch import Tensor, nn

from toolkit import Autoencoder, Bound, DataSpec, Metric, ToolkitError
from toolkit.likelihoods.normal import NormalLikelihood
from toolkit.quantizer import Quantized
from toolkit.testing.metric import MetricSuite
from toolkit_video.fvd import FvdMetric

CLIPS = DataSpec(3, (10, 6, 8), levels=256)


class TinyI3D(nn.Module):
    """Called as the published file is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(3, 4, (2, 3, 3), 2)

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        if rescale:
            x = x / 127.5 - 1
        if resize:
            x = nn.functional.interpolate(x, [int(x.shape[2]), 12, 12], mode="trilinear", align_corners=False)
        x = self.layer(x)
        features = torch.cat([x.mean((2, 3, 4)), x.square().mean((2, 3, 4))], 1)
        return features if return_features else features[:, :2]


@pytest.fixture(scope="module", autouse=True)
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "i3d_torchscript.pt"
    torchscript.write(TinyI3D(), path)
    TestFvd.file = path
    return path


@pytest.mark.long
class TestFvd(MetricSuite):
    data = DataSpec(1, (11, 6, 8), levels=7)
    file: Path

    def make(self, model: Autoencoder) -> Metric:
        return FvdMetric(model.data, weights=str(self.file), frames=10)

    def test_it_computes_on_a_gpu(self) -> None:
        pytest.skip("the stand-in for a GPU does not move TorchScript")


def independent(one: np.ndarray, other: np.ndarray) -> float:
    """|m - m'|^2 + tr C + tr C' - 2 tr (C C')^1/2, with the eigenvalues of the product, which is not symmetric."""
    product = np.cov(one.T) @ np.cov(other.T)
    root = np.sqrt(np.linalg.eigvals(product).astype(complex)).real.sum()
    apart = np.square(one.mean(0) - other.mean(0)).sum()
    return float(apart + np.cov(one.T).trace() + np.cov(other.T).trace() - 2 * root)


def test_it_is_the_distance_of_the_networks_features(file: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (40, *CLIPS.shape), generator=generator).byte()
    samples = torch.randint(200, (50, *CLIPS.shape), generator=generator).byte()
    made = torch.rand(40, *CLIPS.shape, generator=generator) * 2.4 - 1.2
    metric, none = FvdMetric(CLIPS, weights=str(file)), torch.zeros(1)
    for part, mean in zip(x.split(16), made.split(16), strict=True):
        likelihood = NormalLikelihood(CLIPS, scale=1.0)(mean)
        metric.update(part, Bound(none, none, likelihood, Quantized(none, none, none, none, {})), {})
    metric.update_samples(samples, {})
    network = torchscript.read(file)

    def features(clips: Tensor) -> np.ndarray:
        with torch.no_grad():
            return network(clips.float(), rescale=True, resize=True, return_features=True).double().numpy()

    of_data = features(x)
    rounded = ((made.clamp(-1, 1) + 1) * 127.5).round()
    assert metric.compute() == {
        "rfvd_i3d_10x8x6_n40": pytest.approx(independent(of_data, features(rounded)), rel=1e-6),
        "gfvd_i3d_10x8x6_n50": pytest.approx(independent(of_data, features(samples)), rel=1e-6),
    }


def test_a_set_with_itself_is_nothing(file: Path) -> None:
    x = torch.randint(256, (20, *CLIPS.shape)).byte()
    metric = FvdMetric(CLIPS, weights=str(file))
    none, likelihood = torch.zeros(1), NormalLikelihood(CLIPS, scale=1.0)(CLIPS.scale(x))
    metric.update(x, Bound(none, none, likelihood, Quantized(none, none, none, none, {})), {})
    assert metric.compute()["rfvd_i3d_10x8x6_n20"] == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_judged_is_one_sentence(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "text.pt").write_text("no network")
    torchscript.write(nn.Conv3d(3, 4, 3), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="axes"):
        FvdMetric(DataSpec(3, (8, 8)), weights=str(file))
    with pytest.raises(ValueError, match="frames=9"):
        FvdMetric(CLIPS, weights=str(file), frames=9)
    for weights, names in {
        None: "metric=video_fvd … i3d_torchscript.pt … weights=PATH",
        f"{tmp_path}/gone.pt": f"weights={tmp_path}/gone.pt: … I3D",
        f"{tmp_path}/text.pt": f"weights={tmp_path}/text.pt: … I3D",
    }.items():
        with pytest.raises(ToolkitError) as refusal:
            FvdMetric(CLIPS, weights=weights)
        assert_names(str(refusal.value), names)
    other = FvdMetric(CLIPS, weights=f"{tmp_path}/other.pt")
    with pytest.raises(ToolkitError) as refusal:
        other.update_samples(torch.zeros(2, *CLIPS.shape).byte(), {})
    assert_names(str(refusal.value), f"{tmp_path}/other.pt … I3D")
