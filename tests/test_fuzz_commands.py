"""Every command with words at random: it is done or refused in words, whatever the words."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fuzz_words
import pytest
import torch
from fuzz_outcome import outcome
from published import publish
from safetensors.torch import save_file
from test_changed_data import fill
from test_damage import KINDS

from toolkit import __main__ as command

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]

SEED = int(os.environ.get("TOOLKIT_FUZZ_SEED", "0"))
"""Where the numbers of the cases begin: another one gives other cases."""


@pytest.fixture(scope="module")
def folder(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every case begins with: a run, files and folders to read, and what cannot be read."""
    here = tmp_path_factory.mktemp("fuzz") / "home" / "here"
    shutil.copytree(toy_run, here / "run")
    fill(here / "data")
    for name in ("x.json", "y.json", "full/x.json", "a\nb.json", "\udcff.json"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(json.dumps(torch.randint(8, (2, 8, 8)).tolist()))
    (here / "empty").mkdir()
    (here / "odd.json").write_bytes(b"\xff\xfe\x00")
    (here / "deep.json").write_text("[" * 100_000)
    (here / "long.json").write_text("[" + "9" * 10_000 + "]")
    (here / "lost").symlink_to("nowhere")
    (here / "loop").symlink_to("loop")
    assert (
        command.run(["encode", f"run={here / 'run'}", str(here / "x.json"), f"out={here / 'codes.safetensors'}"]) == 0
    )
    publish(here / "theirs")
    assert command.run(["adopt", "toy_kin", str(here / "theirs"), f"out={here / 'theirs-run'}"]) == 0
    save_file({"codes": torch.zeros(2, 1, 9, 4, dtype=torch.long)}, here / "odd.safetensors")
    return here.parent


@pytest.fixture
def home(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


def prepare(folder: Path, home: Path, number: int) -> Path:
    """A new copy of the folder, with a run of which one file is damaged."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(folder, home, symlinks=True)
    here, chance = home / "here", random.Random(number)
    os.mkfifo(here / "pipe")
    shutil.copytree(here / "run", here / "broken")
    file = chance.choice(sorted(path for path in (here / "broken").rglob("*") if path.is_file()))
    chance.choice(KINDS)(file, chance, here / "run" / "spec.json")
    shutil.copytree(here / "theirs", here / "torn")
    torn = chance.choice(sorted((here / "torn").iterdir()))
    chance.choice(KINDS)(torn, chance, here / "run" / "spec.json")
    return here


@pytest.mark.parametrize(
    "numbers", [range(20), pytest.param(range(20, 520), marks=pytest.mark.slow)], ids=["20", "500"]
)
def test_any_words(
    folder: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, numbers: range
) -> None:
    table, faults, longest = Counter[str](), list[str](), 0.0
    for number in (SEED + number for number in numbers):
        monkeypatch.chdir(prepare(folder, home, number))
        words = fuzz_words.line(number)
        done = outcome(words, home, capsys)
        table[f"{words[0] if words else '':.12} {done.status}"] += 1
        longest = max(longest, done.seconds)
        if done.faults:
            faults.append(f"{number}: {words}\n    {'; '.join(done.faults)}\n    {done.said[-600:]!r}")
            with capsys.disabled():  # at once, as the others may take minutes
                print(faults[-1], flush=True)
        monkeypatch.chdir(home.parent / "elsewhere")
    print(*(f"{count:4} {what!r}" for what, count in sorted(table.items())), f"longest {longest:.1f} s", sep="\n")
    assert not faults, f"{len(faults)} of {len(numbers)}\n" + "\n".join(faults)
