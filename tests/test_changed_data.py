"""A run knows the files that its data came from: it is never continued on others without being told to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from messages import assert_names
from toys import PIXELCNN, SIX_STEPS, VQ, fingerprint

import toolkit
from toolkit import ToolkitError
from toolkit import __main__ as command
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.dataset import SourceFile
from toolkit.runs.data import NAME, DataRecord, compare, read_record, record
from toolkit.runs.folder import Run
from toolkit.stages.run import train

PARTS = ["dataset=toy_files", "encoder=toy_conv", "decoder=toy_conv", "likelihood=categorical", "dim=4"]
WORDS = [*PARTS, *VQ, *PIXELCNN, *SIX_STEPS, "prior_trainer.allow_collapsed=true"]
COUNTS = {"train": 12, "val": 4, "test": 2}

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]


def put(path: Path, seed: int) -> Path:
    """An example of noise; all files have one size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = torch.randint(8, (2, 8, 8), generator=torch.Generator().manual_seed(seed))
    path.write_text(json.dumps(noise.tolist()))
    return path


def fill(root: Path, kinds: tuple[str, ...] = ("cat", "dog")) -> Path:
    for number, (split, count) in enumerate(COUNTS.items()):
        for i in range(count):
            put(root / split / kinds[i % 2] / f"{i:02d}.json", 100 * number + i)
    return root


def later(root: Path, seconds: int = 100) -> None:
    """Other times for all files, as a copy has them."""
    for path in root.rglob("*.json"):
        time = path.stat().st_mtime + seconds
        os.utime(path, (time, time))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toys: None) -> Path:
    """A folder with a run of both stages and its data."""
    home = tmp_path_factory.mktemp("trained")
    train(compose([*WORDS, f"dataset.root={fill(home / 'data')}"]).config, home / "run")
    return home


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """A copy of both, with the times that the files had."""
    shutil.copytree(trained, tmp_path / "home")
    return tmp_path / "home"


def run_of(home: Path, *words: str) -> int:
    return command.run(["train", f"run={home / 'run'}", f"dataset.root={home / 'data'}", *words])


# -- what is known of files


def known(files: dict[str, tuple[bytes, float, str, str]], folder: Path) -> DataRecord:
    """The record of files with a content, a time, a split and a label."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    sources = []
    for number, (name, (content, time, split, label)) in enumerate(files.items()):
        path = folder / str(number)
        path.write_bytes(content)
        os.utime(path, (time, time))
        sources.append(SourceFile(name, str(path), split, label))
    found = record(sources)
    assert found is not None
    return found


FILES = {f"cat/{i}": (b"cat%d" % i, 1000.0, "train", "cat") for i in range(3)} | {
    "dog/0": (b"dog", 1000.0, "val", "dog")
}
Files = dict[str, tuple[bytes, float, str, str]]


def changed(files: Files, name: str, place: int, value: object) -> Files:
    entry = (*files[name][:place], value, *files[name][place + 1 :])
    return {**files, name: entry}  # type: ignore[dict-item]


CHANGES: dict[str, tuple[Callable[[Files], Files], list[str], bool]] = {
    "nothing": (lambda files: files, [], False),
    "another order": (lambda files: dict(reversed(files.items())), [], False),
    "a copy": (lambda files: {name: (entry[0], 2000.0, *entry[2:]) for name, entry in files.items()}, [], True),
    "one more": (lambda files: {**files, "dog/1": (b"dog", 1.0, "val", "dog")}, ["1 file is new (dog/1)"], False),
    "two fewer": (
        lambda files: {name: entry for name, entry in files.items() if name not in ("cat/0", "cat/2")},
        ["2 files are gone (cat/0, …)"],
        False,
    ),
    "another size": (lambda files: changed(files, "cat/1", 0, b"kitten"), ["1 file is changed (cat/1)"], False),
    "another content": (lambda files: changed(files, "cat/1", 0, b"rat1"), ["1 file is changed (cat/1)"], False),
    "another time of one": (lambda files: changed(files, "cat/1", 1, 2000.0), ["1 file is changed (cat/1)"], True),
    "another split": (
        lambda files: changed(files, "cat/1", 2, "val"),
        ["1 file is of another split or label (cat/1)"],
        False,
    ),
    "another label": (
        lambda files: changed(files, "cat/1", 3, "dog"),
        ["1 file is of another split or label (cat/1)"],
        False,
    ),
    "a class renamed": (
        lambda files: {
            name.replace("cat", "kitten"): (*entry[:3], entry[3].replace("cat", "kitten"))
            for name, entry in files.items()
        },
        ["cat is called kitten now (3 files)"],
        False,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_told(tmp_path: Path, change: str) -> None:
    act, data, times = CHANGES[change]
    before, after = known(FILES, tmp_path / "files"), known(act(FILES), tmp_path / "files")
    assert compare(before, after) == (data, times)


def test_replaced_files_of_one_size_are_no_copy(tmp_path: Path) -> None:
    """Though all have other times, some are compared by content."""
    before = known(FILES, tmp_path / "files")
    other: Files = {name: (entry[0].upper(), 2000.0, *entry[2:]) for name, entry in FILES.items()}
    assert compare(before, known(other, tmp_path / "files")).data == ["4 files are changed (cat/0, …)"]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    before = known({**FILES, "고양이/\udcff": (b"", 3.0, "", "")}, tmp_path / "files")
    assert read_record(tmp_path) is None
    before.write(tmp_path)
    assert read_record(tmp_path) == before
    text = (tmp_path / NAME).read_bytes()
    for damage in (text.replace(b"cat/0", b"rat/0", 1), text[:-9], b"", b"[]", b'{"files": [[1]]}', b"\xff"):
        (tmp_path / NAME).write_bytes(damage)
        with pytest.raises(ToolkitError, match=r"data.json is damaged"):
            read_record(tmp_path)


def test_data_without_files_has_no_record(toy_run: Path) -> None:
    assert record([]) is None
    assert not (toy_run / NAME).exists()


# -- what a run does with it

REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "one more": (lambda root: put(root / "train" / "cat" / "99.json", 99), "1 file is new (train/cat/99.json)"),
    "one fewer": (lambda root: (root / "val" / "dog" / "01.json").unlink(), "1 file is gone (val/dog/01.json)"),
    "one replaced": (lambda root: put(root / "train" / "cat" / "02.json", 77), "1 file is changed (train/cat/02.json)"),
}


@pytest.mark.parametrize("words", [(), ("stage=prior",)], ids=["both", "prior"])
@pytest.mark.parametrize("change", REFUSED)
@pytest.mark.few(2)
def test_a_continuation_on_changed_data_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], change: str, words: tuple[str, ...]
) -> None:
    """Before anything is written; with the cure it goes on, encodes again, and needs no cure from then on."""
    act, what = REFUSED[change]
    act(home / "data")
    before = {path: path.read_bytes() for path in (home / "run").rglob("*") if path.is_file()}
    assert run_of(home, *words) == 2
    assert_names(
        capsys.readouterr().err,
        f"toolkit train: {home / 'run'}: the data has changed since it was trained on: {what} … "
        "trainer.allow_changed_data=true goes on",
    )
    assert {path: path.read_bytes() for path in (home / "run").rglob("*") if path.is_file()} == before
    assert run_of(home, *words, "trainer.allow_changed_data=true", "prior_trainer.steps=4") == 0
    said = capsys.readouterr().out
    assert f"goes on with changed data: {what}" in said
    assert said.count("holds codes of other weights or data: encoding again") == 2
    assert not Run(home / "run").config().trainer.allow_changed_data
    assert run_of(home, *words, "prior_trainer.steps=5") == 0
    assert "encoding again" not in capsys.readouterr().out


def test_a_copy_goes_on_with_a_note(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And ends as the original does; its codes are encoded again, once."""
    later(home / "data")
    assert run_of(home, "prior_trainer.steps=5") == 0
    said = capsys.readouterr().out
    assert "other times and the same sizes: taken for a copy" in said
    assert said.count("encoding again") == 2
    assert run_of(home) == 0
    assert "taken for a copy" not in capsys.readouterr().out


def test_a_renamed_class_is_told_as_that(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a part sees the label, it has to be called as before; else the data may change."""
    for split in COUNTS:
        (home / "data" / split / "cat").rename(home / "data" / split / "kitten")
    assert run_of(home) == 2
    assert "cat is called kitten now (9 files)" in capsys.readouterr().err
    assert run_of(home, "conditions.prior=[kind]", "trainer.allow_changed_data=true") == 2
    assert_names(
        capsys.readouterr().err,
        f"toolkit train: {home / 'run'} was trained with other labels, which its parts see: kind: cat is gone, kitten"
        " is new … call them as before",
    )
    assert run_of(home, "trainer.allow_changed_data=true") == 0


def test_evaluation_and_reconstruction_say_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "data" / "test" / "cat" / "00.json").unlink()
    says = "this is not the data that the run was trained on: 1 file is gone (test/cat/00.json)"
    for name in ("evaluate", "reconstruct"):
        assert command.run([name, f"run={home / 'run'}", f"dataset.root={home / 'data'}", "examples=1"]) == 0
        assert says in capsys.readouterr().err


def test_a_run_that_was_not_trained_yet_takes_any_data(home: Path) -> None:
    shutil.rmtree(home / "run" / "autoencoder")
    shutil.rmtree(home / "run" / "priors")
    put(home / "data" / "train" / "cat" / "99.json", 99)
    assert run_of(home) == 0
    found = read_record(home / "run")
    assert found is not None
    assert "train/cat/99.json" in found.files


@pytest.mark.parametrize("text", [None, "[]"])
@pytest.mark.few(1)
def test_a_run_without_a_whole_record_goes_on(home: Path, capsys: pytest.CaptureFixture[str], text: str | None) -> None:
    """As one of an older version does; from then on it has one."""
    path = home / "run" / NAME
    path.unlink()
    if text is not None:
        path.write_text(text)
    put(home / "data" / "train" / "cat" / "99.json", 99)
    assert run_of(home) == 0
    assert ("data.json is damaged" in capsys.readouterr().out) == (text is not None)
    (home / "data" / "train" / "cat" / "99.json").unlink()
    assert run_of(home) == 2


@pytest.mark.slow
def test_a_prior_with_data_of_its_own_is_compared_with_that(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = fill(home / "own", ("cat", "dog"))
    words = (f"prior_dataset.root={own}", "prior_trainer.steps=4", "stage=prior")
    assert run_of(home, *words, "prior=categorical") == 0
    put(own / "train" / "cat" / "99.json", 99)
    capsys.readouterr()
    more = (*words, "prior=categorical", "prior_trainer.steps=6")
    assert run_of(home, *more) == 2
    assert "categorical: the data has changed since it was trained on: 1 file is new" in capsys.readouterr().err
    assert run_of(home, *more, "trainer.allow_changed_data=true") == 0
    assert run_of(home, *more) == 0


def test_codes_of_changed_data_are_no_data_unnoticed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run over another run's codes is a second stage of it."""
    (home / "data" / "test" / "cat" / "00.json").unlink()
    config = replace(Run(home / "run").config(), stage="autoencoder")
    words = ["dataset=codes", f"dataset.run={home / 'run'}", "encoder=pool", "encoder.hidden=8", "decoder=pixelcnn"]
    (home / "run" / "config-9.yaml").write_text(
        (home / "run" / "config.yaml").read_text().replace(config.dataset.options["root"], str(home / "data"))
    )
    small = ["decoder.hidden=8", "decoder.layers=2", "decoder.head=8", "dim=4", "stage=autoencoder", *VQ, *SIX_STEPS]
    composed = compose([*words, *small]).config
    with pytest.raises(ToolkitError, match="data has changed since it was trained on: 1 file is gone"):
        train(composed, home / "second")
    assert not (home / "second").exists()
    allowed = compose([*words, *small, "trainer.allow_changed_data=true"]).config
    train(allowed, home / "second")
    assert (home / "second" / NAME).is_file()


# -- where the data is


def test_roots_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder, with other data of that name, a run finds its own; where it is gone, the cure is told."""
    (tmp_path / "there").mkdir()
    fill(tmp_path / "photos", ("cat", "dog"))
    put(fill(tmp_path / "there" / "photos") / "train" / "cat" / "99.json", 99)
    monkeypatch.chdir(tmp_path)
    train(compose([*WORDS, "dataset.root=photos", "stage=autoencoder"]).config, Path("run"))
    config = Run(tmp_path / "run").config()
    assert config.dataset.options["root"] == str(tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "there")
    train(reopen(Run(tmp_path / "run").config_values(), ["stage=all"]).config, tmp_path / "run")
    assert toolkit.load(tmp_path / "run").dataset.size("train") == COUNTS["train"]
    (tmp_path / "photos").rename(tmp_path / "pictures")
    with pytest.raises(ToolkitError, match=r"photos: no such folder; dataset.root=FOLDER says where"):
        train(Run(tmp_path / "run").config(), tmp_path / "run")


def test_init_is_kept_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    train(compose([*WORDS, "dataset.root=data", "stage=autoencoder", "init=run"]).config, Path("second"))
    assert Run(home / "second").config().init == str(home / "run")


@pytest.mark.slow
def test_a_copy_of_run_and_data_ends_alike(home: Path, trained: Path) -> None:
    """On another machine, at another place, bit for bit."""
    assert run_of(home, "prior_trainer.steps=5") == 0
    assert run_of(trained, "prior_trainer.steps=5") == 0
    one, other = fingerprint(home / "run"), fingerprint(trained / "run")
    weights = [name for name in one if "codes" not in name]
    assert {name: one[name] for name in weights} == {name: other[name] for name in weights}
