"""One file of a run is damaged at random: nothing is trained or sampled on in silence, nothing whole is given up.

Each case damages one file of a copied run of both stages and then samples from the copy and continues it. Either
everything comes out as from the whole run, bit for bit, or it is said which file is wrong.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_changed_data import WORDS, fill
from toys import fingerprint

from toolkit import __main__ as command
from toolkit.cli.config.compose import compose
from toolkit.stages.run import train

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]

LONGER = ["prior_trainer.steps=6", "prior_trainer.checkpoint_every=3"]
UNREAD = ("log.txt", "evaluation.json")
"""Files that nothing goes by."""
Damage = Callable[[Path, random.Random, Path], object]


def flip(path: Path, chance: random.Random, older: Path) -> None:
    content = bytearray(path.read_bytes())
    place = chance.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(bytes(content))


def cut(path: Path, chance: random.Random, older: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


def append(path: Path, chance: random.Random, older: Path) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randrange(1, 40)))


def zero(path: Path, chance: random.Random, older: Path) -> None:
    """A stretch of zeros, as a lost block leaves it."""
    content = bytearray(path.read_bytes())
    begin = chance.randrange(len(content))
    end = min(len(content), begin + chance.randrange(1, 4096))
    content[begin:end] = bytes(end - begin)
    path.write_bytes(bytes(content))


def remove(path: Path, chance: random.Random, older: Path) -> None:
    path.unlink()


def replace(path: Path, chance: random.Random, older: Path) -> None:
    """By what it was before."""
    if older.is_file():
        shutil.copy(older, path)


KINDS: tuple[Damage, ...] = (flip, cut, append, zero, remove, replace)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, toys: None) -> tuple[Path, Path]:
    """A run with two checkpoints of each stage and data in files, and the same run when it was younger."""
    home = tmp_path_factory.mktemp("damage")
    root = f"dataset.root={fill(home / 'data')}"
    young = ["trainer.steps=3", "prior_trainer.steps=3", "seed=1"]
    words = [*WORDS, root, "prior_trainer.checkpoint_every=3"]
    train(compose([*words, *young]).config, home / "young")
    train(compose([*words, *LONGER]).config, home / "whole")
    return home / "whole", home / "young"


def older_of(run: Path, young: Path, name: Path) -> Path:
    """What a file may have been before: that of the checkpoint before, or of another run."""
    step = name.parent.name
    if step.startswith("step-") and step != "step-00000003":
        return run / name.parent.with_name("step-00000003") / name.name
    return young / name


def sampled(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, bytes | None]:
    """Status, words and codes of a sample."""
    out = run.parent / f"{run.name}-samples"
    shutil.rmtree(out, ignore_errors=True)
    status = command.run(["sample", f"run={run}", "n=2", f"out={out}"])
    said = "".join(capsys.readouterr())
    codes = load_file(out / "samples.safetensors")["codes"].numpy().tobytes() if status == 0 else None
    return status, said, codes


def continued(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = command.run(["train", f"run={run}"])
    return status, "".join(capsys.readouterr())


def outcome(run: Path, name: Path, whole: Path, expected: bytes | None, capsys: pytest.CaptureFixture[str]) -> str:
    """What came of a damaged run, in a word; AssertionError for what may not come of it."""
    words = (name.name, *([name.parent.name] if name.parent.name.startswith("step-") else []))
    status, said, codes = sampled(run, capsys)
    assert status in (0, 2), f"status {status}: {said}"
    assert codes == expected or any(word in said for word in words), f"sampled in silence: {said}"
    if name.parts[0] in ("autoencoder", "priors") and name.parent.name.startswith("step-"):
        assert status == 0, f"stuck though a checkpoint is whole: {said}"
    first = "sampled alike" if codes == expected else "sampled otherwise, and said so" if status == 0 else "refused"
    status, said = continued(run, capsys)
    assert status in (0, 2), f"status {status}: {said}"
    if status:
        assert any(word in said for word in words), f"refused for another reason: {said}"
        assert not name.parent.name.startswith("step-"), f"stuck though a checkpoint is whole: {said}"
        return f"{first}; refused"
    same = fingerprint(run) == fingerprint(whole)
    if not same:
        assert any(word in said for word in words), f"trained on in silence: {said}"
    return f"{first}; {'mended' if same else 'trained otherwise, and said so'}"


def damaged(number: int, runs: tuple[Path, Path], folder: Path) -> tuple[Path, Path, Damage]:
    """A copy of the run with one file damaged: the copy, the file's name in it, and how."""
    whole, young = runs
    chance = random.Random(number)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    name, act = chance.choice([name for name in names if name.name not in UNREAD]), KINDS[number % len(KINDS)]
    shutil.copytree(whole, folder / "run")
    act(folder / "run" / name, chance, older_of(folder / "run", young, name))
    return folder / "run", name, act


@pytest.mark.parametrize(
    "numbers", [range(3), pytest.param(range(3, 206), marks=pytest.mark.slow)], ids=["a few", "203"]
)
def test_damage_is_told_or_mended(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: range
) -> None:
    whole, _ = runs
    offset = int(os.environ.get("TOOLKIT_DAMAGE_SEED", "0"))
    expected = sampled(whole, capsys)[2]
    table, faults = Counter[str](), []
    for number in (offset + number for number in numbers):
        folder = tmp_path / str(number)
        run, name, act = damaged(number, runs, folder)
        try:
            table[outcome(run, name, whole, expected, capsys)] += 1
        except AssertionError as e:
            faults.append(f"{number}: {act.__name__} {name}: {' / '.join(str(e).splitlines())[:1000]}")
        shutil.rmtree(folder)
    print(*(f"{count:4} {words}" for words, count in table.most_common()), *faults, sep="\n")
    assert not faults
