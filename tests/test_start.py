"""toolkit start: what a folder has, and an experiment for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from messages import assert_names

from toolkit import ToolkitError
from toolkit.__main__ import run
from toolkit.cli import start
from toolkit.cli.proposed import WIDTH, experiment
from toolkit.datasets.files.survey import survey
from toolkit.datasets.waves import WavesDataset
from toolkit.proposal import Choice, Proposal, counted, passes, sampling, some, spread

CHOICES = (
    Choice("dataset", "waves", "there are none"),
    Choice("prior", "pixelcnn", "learns fast"),
    Choice("dataset.root", "/x: ${y} #1", ""),
    Choice("quantizer.inner.levels", [8, 5], "fixed"),
    Choice("quantizer.inner.note", None, "word " * 40),
    Choice("quantizer.depth", 4, "few"),
    Choice("conditions.prior", ["class"], "by class"),
)


class Few(WavesDataset):
    """Proposes itself for the .a files."""

    suffixes = (".a",)

    @classmethod
    def propose(cls, root: Path) -> Proposal | None:
        files = len([*root.rglob("*.a")])
        return Proposal(f"{files} files", files, CHOICES, ("one is bent",)) if files else None


class Many(WavesDataset):
    suffixes = (".b",)

    @classmethod
    def propose(cls, root: Path) -> Proposal | None:
        files = len([*root.rglob("*.b")])
        return Proposal(f"{files} files", files, (Choice("dataset", "many", ""),)) if files else None


class Confused(WavesDataset):
    @classmethod
    def propose(cls, root: Path) -> Proposal | None:
        raise ToolkitError(f"{root}: two folders both name the split train; rename one of them")


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """The installed datasets, by name."""
    known: dict[str, type] = {"few": Few, "many": Many}
    monkeypatch.setattr(start, "names", lambda kind: tuple(known))
    monkeypatch.setattr(start, "load", lambda kind, name: known[name])
    return known


def filled(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([i]) * 9)
    return folder


def test_every_choice_is_in_the_yaml_with_its_reason() -> None:
    text = experiment("mine", Proposal("9 files", 9, CHOICES, ("a: b is wrong",)))
    assert yaml.safe_load(text) == {
        "defaults": [{"override /dataset": "waves"}, {"override /prior": "pixelcnn"}],
        "dataset": {"root": "/x: \\${y} #1"},
        "quantizer": {"inner": {"levels": [8, 5], "note": None}, "depth": 4},
        "conditions": {"prior": ["class"]},
    }
    lines = text.splitlines()
    assert lines[:3] == [
        "# @package _global_",
        "# mine: 9 files. Proposed by toolkit start: change any line.",
        "# - a: b is wrong",
    ]
    assert "  - override /prior: pixelcnn  # learns fast" in lines
    assert lines[lines.index("    note: null") - 1].startswith("    # word word")
    assert max(map(len, lines)) <= WIDTH


def test_the_dataset_of_most_files_is_taken_and_what_is_wrong_is_said(
    datasets: dict[str, type], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = filled(tmp_path / "My files", "x/1.a", "x/2.a", "3.b", "4.txt", "5.txt", ".hidden")
    (folder / "x" / "copy.a").write_bytes((folder / "x" / "1.a").read_bytes())
    out = tmp_path / "my" / "experiment" / "mine.yaml"
    assert run(["start", str(folder), f"out={out}"]) == 0
    said = capsys.readouterr().out
    assert_names(said, f"{folder}: 6 files, 54 bytes: 3 .a, 2 .txt, 1 .b … dataset=few: 3 files … one is bent … 2 .txt")
    assert "x/copy.a of x/1.a" in said
    assert said.splitlines()[-1] == str(out)
    assert f"--config-dir {tmp_path / 'my'} experiment=mine" in said
    assert yaml.safe_load(out.read_text())["defaults"][0] == {"override /dataset": "waves"}


def test_another_dataset_can_be_asked(datasets: dict[str, type], tmp_path: Path) -> None:
    folder, out = filled(tmp_path, "1.a", "2.a", "3.b"), tmp_path / "experiment" / "b.yaml"
    assert run(["start", str(folder), f"out={out}", "dataset=many"]) == 0
    assert yaml.safe_load(out.read_text())["defaults"] == [{"override /dataset": "many"}]


@pytest.mark.parametrize(
    ("files", "words", "facts"),
    [
        ([], [], "toolkit start: {root} … empty"),
        (["a.txt", "b.txt"], [], "toolkit start: {root}: no file … 2 .txt"),
        (["1.a"], ["dataset=many"], "toolkit start: {root}: no file that dataset=many reads … 1 .a"),
        (["1.a"], ["dataset=mani"], "toolkit start: dataset=mani … did you mean many"),
        (["1.a"], ["out=x.yaml"], "toolkit start: out=x.yaml … FOLDER/experiment/NAME.yaml"),
        (["1.a", "experiment/x.yaml"], ["out={root}/experiment/x.yaml"], "toolkit start: … exists already; out="),
    ],
)
def test_a_sentence_says_what_is_missing(
    datasets: dict[str, type],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    words: list[str],
    facts: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    root = filled(tmp_path / "root", *files)
    root.mkdir(exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    assert run(["start", str(root), *(word.format(root=root) for word in words)]) == 2
    said = capsys.readouterr().err
    assert_names(said, facts.format(root=root))
    assert len(said.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path, "file.png")
    for words, facts in (
        ([], "toolkit start: name one folder"),
        ([tmp_path / "none"], f"toolkit start: {tmp_path / 'none'}: no such folder"),
        ([tmp_path / "file.png"], f"toolkit start: {tmp_path / 'file.png'}: a file"),
    ):
        assert run(["start", *map(str, words)]) == 2
        assert_names(capsys.readouterr().err, facts)


def test_a_folder_in_disorder_is_said_where_nothing_else_reads_it(
    datasets: dict[str, type], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets["confused"] = Confused
    assert run(["start", str(filled(tmp_path / "root", "1.c"))]) == 2
    assert "rename one of them" in capsys.readouterr().err
    out = tmp_path / "experiment" / "x.yaml"
    assert run(["start", str(filled(tmp_path / "root", "1.a")), f"out={out}"]) == 0


def test_a_survey_names_empty_files_and_copies_alone(tmp_path: Path) -> None:
    (filled(tmp_path, "a", "b") / "c").write_bytes(bytes([0]) * 9)
    (tmp_path / "none").touch()
    (tmp_path / "nothing").touch()
    seen = survey(tmp_path)
    assert (seen.empty, seen.copies, seen.size) == (["none", "nothing"], [("c", "a")], 27)


def test_steps_are_passes_within_bounds() -> None:
    assert repr(passes(10_000, 32)) == "9000"
    assert (passes(10, 32), passes(10**9, 32)) == (3000, 100_000)
    assert (counted(1, "class"), counted(2, "class"), counted(1200, "file")) == ("1 class", "2 classes", "1,200 files")
    assert some([*"abcde"]) == "a, b, c and 2 more"
    assert spread([*"abcdef"], 3) == ["a", "c", "e"]


def test_a_prior_is_shown_labels_where_there_are_some_to_choose_from() -> None:
    (choice,) = sampling("class", {"dress", "bag"}, "folder")
    assert (choice.key, choice.value) == ("conditions.prior", ["class"])
    assert choice.reason == "sample by folder: condition.class=bag"
    assert sampling("class", ["bag"], "folder") == ()
