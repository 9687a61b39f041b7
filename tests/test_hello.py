"""A stranger's package, examples/toolkit-hello: used from its folder, and installed, used and uninstalled."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from fresh import ROOT, build_wheels, environment
from fresh import run as run_elsewhere

from toolkit import registry
from toolkit.__main__ import run

pytestmark = pytest.mark.long

HELLO = ROOT / "examples" / "toolkit-hello"
PARTS = {
    "dataset": "hello_lissajous",
    "quantizer": "hello_dither",
    "prior": "hello_markov",
    "metric": "hello_spectrum",
}
TINY = [
    "trainer.steps=2",
    "trainer.batch_size=4",
    "trainer.validate_examples=8",
    "prior_trainer.steps=2",
    "prior_trainer.batch_size=4",
    "prior_trainer.validate_examples=8",
    "prior_trainer.allow_collapsed=true",  # two steps teach no codebook anything
    "dataset.train_size=16",
    "dataset.val_size=8",
]


def test_it_works_from_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is installed, and without the folder its run says whose parts are missing."""
    monkeypatch.setenv(registry.PLUGIN_PATH, str(HELLO))
    for kind, name in PARTS.items():
        assert registry.find(kind, name).distribution == "toolkit-hello"
        assert registry.load(kind, name).__doc__
    folder = tmp_path / "run"
    assert run(["check", "experiment=hello"]) == 0
    assert run(["train", "experiment=hello", *TINY, f"hydra.run.dir={folder}"]) == 0
    assert run(["sample", f"run={folder}", "n=2", "condition.ratio=3:4"]) == 0
    assert len(list((folder / "samples").glob("*/sample-*.csv"))) == 2
    monkeypatch.setenv(registry.PLUGIN_PATH, "")
    capsys.readouterr()
    assert run(["sample", f"run={folder}", "n=2"]) == 2
    assert "toolkit-hello" in capsys.readouterr().err


@pytest.mark.slow
def test_its_whole_life(tmp_path: Path) -> None:
    """A wheel, an environment, its own tests there, a run; and once it is uninstalled, nothing but the run is left."""
    wheels = build_wheels(tmp_path, ".", "examples/toolkit-hello")
    (hello,) = (wheel for wheel in wheels if wheel.name.startswith("toolkit_hello"))
    names = set(zipfile.ZipFile(hello).namelist())
    assert {f"toolkit_hello/conf/{path}.yaml" for path in ("experiment/hello", "quantizer/hello_projected")} <= names
    assert not any("tests" in name for name in names)

    commands, empty = environment(tmp_path, wheels), tmp_path / "empty"
    python, toolkit = commands / "python", commands / "toolkit"
    shutil.copytree(HELLO / "tests", empty / "tests")
    shutil.copy(HELLO / "pyproject.toml", tmp_path / "pyproject.toml")  # what pytest is told there
    where = run_elsewhere(python, "-c", "import toolkit_hello; print(toolkit_hello.__file__)", cwd=empty)
    assert str(tmp_path / "env") in where
    words = ["-q", "-p", "no:cacheprovider", "-c", tmp_path / "pyproject.toml", "--rootdir", empty, "tests"]
    assert " passed" in run_elsewhere(python, "-m", "pytest", *words, cwd=empty)

    listed = json.loads(run_elsewhere(toolkit, "plugins", "--json", cwd=empty))["components"]
    hers = {row["kind"]: (row["name"], row["problem"]) for row in listed if row["distribution"] == "toolkit-hello"}
    assert hers == {kind: (name, "") for kind, name in PARTS.items()}
    run_elsewhere(toolkit, "train", "experiment=hello", *TINY, "hydra.run.dir=run", cwd=empty)
    run_elsewhere(toolkit, "sample", "run=run", "n=2", cwd=empty)
    assert len(list((empty / "run" / "samples").glob("*/sample-*.csv"))) == 2

    run_elsewhere(python, "-m", "pip", "uninstall", "-y", "toolkit-hello", cwd=empty)
    assert "hello" not in run_elsewhere(toolkit, "plugins", cwd=empty)
    assert "experiment=hello" in run_elsewhere(toolkit, "check", "experiment=hello", cwd=empty, fails=2)
    assert "toolkit-hello" in run_elsewhere(toolkit, "sample", "run=run", "n=2", cwd=empty, fails=2)
