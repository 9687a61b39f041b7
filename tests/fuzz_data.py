"""Commands over data that was damaged at random: they end as ``fuzz_outcome`` says."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from fuzz_files import disturb
from fuzz_outcome import outcome

SEED = int(os.environ.get("TOOLKIT_FUZZ_SEED", "0"))
"""Where the numbers of the cases begin: another one gives other cases."""
SHORT = ["trainer.steps=1", "trainer.batch_size=2", "trainer.workers=0", "trainer.validate_examples=2"]


class Data(NamedTuple):
    """A folder with ``data``, files of it, and ``run``, trained on it."""

    home: Path
    words: list[str]
    """Which train such a run, but for the folder of the data."""
    roots: tuple[str, ...] = ("dataset.root=data",)
    """Words that name the folders of the data, which are relative."""
    errors: bool = True
    """Whether the dataset has ``on_error``."""


def ends(
    data: Data,
    numbers: range,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path, random.Random], list[str]] = disturb,
) -> None:
    """Every case ends in words; AssertionError names those that do not."""
    table, faults, longest = Counter[str](), list[str](), 0.0
    for number in (SEED + number for number in numbers):
        chance, home = random.Random(number), folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(data.home, home, symlinks=True)
        changed = change(home / "data", chance)
        words = _words(data, home, chance)
        before = Path.cwd()
        os.chdir(home)
        try:
            done = outcome(words, home, capsys)
        finally:
            os.chdir(before)
        table[f"{words[0]} {done.status}"] += 1
        longest = max(longest, done.seconds)
        if done.faults:
            short = [word for word in words if word not in data.words]
            faults.append(f"{number}: {changed} {short}\n    {'; '.join(done.faults)}\n    {done.said[-600:]!r}")
            with capsys.disabled():  # at once, as the others may take minutes
                print(faults[-1], flush=True)
    shutil.rmtree(folder / "home", ignore_errors=True)
    print(*(f"{count:4} {what!r}" for what, count in sorted(table.items())), f"longest {longest:.1f} s", sep="\n")
    assert not faults, f"{len(faults)} of {len(numbers)}\n" + "\n".join(faults)


def _words(data: Data, home: Path, chance: random.Random) -> list[str]:
    """A command that reads the data, or one file of it."""
    files = sorted(str(path.relative_to(home)) for path in (home / "data").rglob("*") if not path.is_dir())
    file = chance.choice(files or ["data"])
    errors = [f"dataset.on_error={chance.choice(['stop', 'skip'])}"] if data.errors else []
    train = ["train", *data.words, *SHORT, *data.roots, *errors, "hydra.run.dir=new"]
    check = ["check", *data.words, *data.roots, *errors]
    evaluate = ["evaluate", "run=run", *data.roots, *errors, "examples=2", "split=train"]
    return chance.choice(
        [
            *(train, train, train, check, evaluate),
            ["encode", "run=run", file, "out=f.safetensors"],
            ["encode", "run=run", "data", "out=f.safetensors"],
            ["reconstruct", "run=run", file, "out=out"],
        ]
    )
