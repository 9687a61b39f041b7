"""Built as wheels and installed elsewhere, the command works from an empty folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from fresh import ROOT, build_wheels, environment, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of the core and of its plugins."""
    return build_wheels(tmp_path_factory.mktemp("wheels"), ".", "plugins/image", "plugins/audio", "plugins/video")


def test_the_wheels_hold_their_yaml(wheels: list[Path]) -> None:
    names = {name for wheel in wheels for name in zipfile.ZipFile(wheel).namelist()}
    assert {"toolkit/conf/train.yaml", "toolkit/conf/__init__.py", "toolkit/py.typed"} <= names
    experiments = {path.relative_to(ROOT).parts[2:] for path in ROOT.glob("plugins/*/toolkit_*/conf/experiment/*.yaml")}
    assert {"/".join(parts) for parts in experiments} <= names
    assert not any("tests/" in name or "hello" in name for name in names)


def test_every_wheel_holds_the_license(wheels: list[Path]) -> None:
    for wheel in wheels:
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist()), wheel


def test_installed_elsewhere(wheels: list[Path], tmp_path: Path) -> None:
    commands, empty = environment(tmp_path, wheels), tmp_path / "empty"
    empty.mkdir()
    where = run(commands / "python", "-c", "import toolkit; print(toolkit.__file__)", cwd=empty)
    assert str(tmp_path / "env") in where
    toolkit = commands / "toolkit"
    assert "image_shapes" in run(toolkit, "plugins", cwd=empty)
    tiny = [
        "trainer.steps=2",
        "trainer.batch_size=4",
        "stage=autoencoder",
        "dataset.train_size=8",
        "dataset.val_size=4",
    ]
    folder = run(toolkit, "train", "experiment=image_shapes", *tiny, cwd=empty).splitlines()[-1]
    assert (Path(folder) / "autoencoder" / "step-00000002").is_dir()
