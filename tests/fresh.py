"""Fresh environments, as a stranger's machine has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_BEHIND = (".git", ".venv*", "*.egg-info", "build", "outputs", "__pycache__", ".*_cache")


def run(*words: object, cwd: Path, fails: int = 0) -> str:
    """What a command prints, once it has ended as it should; its complaints, where it should fail."""
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": "", "TOOLKIT_PLUGIN_PATH": ""}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=quiet, capture_output=True, text=True)
    assert done.returncode == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def build_wheels(folder: Path, *projects: str) -> list[Path]:
    """Wheels of projects of this checkout, built from a copy so that the checkout stays clean."""
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    for project in projects:
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, folder / "source" / project, cwd=folder)
    return sorted(folder.glob("*.whl"))


def environment(folder: Path, wheels: Sequence[Path]) -> Path:
    """The ``bin`` of an environment that borrows the dependencies of this one, but not its editable installs."""
    run(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    (site,) = (folder / "env").glob("lib/python3*/site-packages")
    borrowed = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    python = folder / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--force-reinstall", *wheels, cwd=folder)
    return python.parent
