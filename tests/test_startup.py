"""Commands that only look import neither torch nor any plugin, however many are installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "startup.py"


def startup() -> ModuleType:
    """The benchmark, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("benchmark_startup", PATH)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    startup().write_site(tmp_path / "site", 3, 10)
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "site"


@pytest.mark.parametrize("name", ["plugins", "cfg", "completion"])
def test_nothing_is_imported(name: str, site: Path) -> None:
    modules = startup().imported(startup().COMMANDS[name], site)
    assert "toolkit.registry" in modules
    roots = {module.partition(".")[0] for module in modules}
    assert not roots & {"torch", "plugin_00", "plugin_01", "plugin_02"}


def test_all_are_listed(site: Path) -> None:

    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "plugins", "encoder"],
        env=startup().environment(site),
        capture_output=True,
        text=True,
        check=True,
    )
    listed = done.stdout.split()
    assert {f"plugin_{number:02d}_encoder_{i}" for number in range(3) for i in range(2)} <= set(listed)
    assert "broken" not in done.stdout
