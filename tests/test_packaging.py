"""Built as wheels and installed elsewhere, the command works from an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


def run(*words: object, cwd: Path) -> str:
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": ""}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Wheels of the core and of its plugins, built from a copy so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheels")
    ignored = shutil.ignore_patterns(".git", ".venv*", "*.egg-info", "build", "outputs", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    for project in (".", "plugins/image", "plugins/audio", "plugins/video"):
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, folder / "source" / project, cwd=folder)
    return sorted(folder.glob("*.whl"))


def test_the_wheels_hold_their_yaml(wheels: list[Path]) -> None:
    names = {name for wheel in wheels for name in zipfile.ZipFile(wheel).namelist()}
    assert {"toolkit/conf/train.yaml", "toolkit/conf/__init__.py", "toolkit/py.typed"} <= names
    experiments = {path.relative_to(ROOT).parts[2:] for path in ROOT.glob("plugins/*/toolkit_*/conf/experiment/*.yaml")}
    assert {"/".join(parts) for parts in experiments} <= names
    assert not any("tests/" in name for name in names)


def test_installed_elsewhere(wheels: list[Path], tmp_path: Path) -> None:
    """In a fresh environment that borrows the dependencies of this one, but not its editable installs."""
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env").glob("lib/python3*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    run(python, "-m", "pip", "install", "--no-deps", "--force-reinstall", *wheels, cwd=tmp_path)
    (tmp_path / "empty").mkdir()
    where = run(python, "-c", "import toolkit; print(toolkit.__file__)", cwd=tmp_path / "empty")
    assert str(tmp_path / "env") in where
    toolkit = tmp_path / "env" / "bin" / "toolkit"
    assert "image_shapes" in run(toolkit, "plugins", cwd=tmp_path / "empty")
    tiny = [
        "trainer.steps=2",
        "trainer.batch_size=4",
        "stage=autoencoder",
        "dataset.train_size=8",
        "dataset.val_size=4",
    ]
    folder = run(toolkit, "train", "experiment=image_shapes", *tiny, cwd=tmp_path / "empty").splitlines()[-1]
    assert (Path(folder) / "autoencoder" / "step-00000002").is_dir()
