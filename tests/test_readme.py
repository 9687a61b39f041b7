"""The README's blocks run as they stand, on tiny overrides where they would train for minutes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_blocks import TINY, blocks, commands, write_files

from toolkit import registry
from toolkit.__main__ import COMMANDS, run

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OURS = ("discrete-toolkit", "discrete-toolkit-image", "discrete-toolkit-audio", "discrete-toolkit-video")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif("image_shapes" not in registry.names("dataset"), reason="the image plugin is not installed"),
]


@pytest.fixture
def readme_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", "")
    write_files(README, tmp_path)
    return tmp_path


def test_the_quick_start_and_the_python_block(readme_folder: Path) -> None:
    train, sample = (words for words in commands(README) if "outputs/demo" in " ".join(words))
    assert run([*train, *TINY]) == 0
    assert run(sample) == 0
    (block,) = (block for block in blocks(README, "python") if "toolkit.load" in block)
    exec(compile(block, "README.md", "exec"), {})


def test_the_new_plugin_trains(readme_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    new, train = (words for words in commands(README) if "my-parts" in words)
    assert run(new) == 0
    assert run([*train, *(word for word in TINY if not word.startswith("prior."))]) == 0


def composed() -> list[list[str]]:
    """Commands that nothing else here runs."""
    elsewhere = ("outputs/demo", "my-parts")
    return [w for w in commands(README) if w[0] in ("train", "check") and not any(e in " ".join(w) for e in elsewhere)]


@pytest.mark.parametrize("words", composed())
@pytest.mark.few(5)
def test_every_command_composes(words: list[str], readme_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would train for long is only composed, and a run that it needs is not opened."""
    if words[0] == "train":
        words = [*(w for w in words if w != "-m" and "64,128" not in w), "--cfg", "job"]
    assert run(words) == 0, capsys.readouterr().err


def test_the_readmes_plugin_passes_check(readme_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = (words for words in commands(README) if words[0] == "--plugin")
    assert run(words) == 0
    assert "my_patches" in capsys.readouterr().out


@pytest.mark.slow
def test_the_readmes_test_passes(readme_folder: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_plugin.py"]
    done = subprocess.run(words, cwd=readme_folder / "my-plugin", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_tables_name_what_is_there() -> None:
    """Every part and command of the distributions stands in the README, and the table names no other."""
    table = README[README.index("| in the box |") :].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table))
    parts = {
        name
        for kind in registry.PARTS
        for name in registry.names(kind)
        if registry.find(kind, name).distribution in OURS
    }
    assert named == parts
    for command in COMMANDS:
        assert f"toolkit {command}" in README


def test_every_linked_file_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
