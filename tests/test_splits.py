"""Which split a file is in: as its folder says, or by its hash."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from toolkit import ToolkitError
from toolkit.datasets.files import (
    folder_split,
    require_train,
    set_aside,
    split_folders,
    split_named,
    split_sizes,
)

HANGUL = "곡선 [1], a=b"


def put(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("[]")


def test_every_file_is_in_one_split() -> None:
    paths = [f"{i}/{j}.json" for i in range(50) for j in range(40)]
    splits = set_aside(paths, folder_split, str)
    assert sorted(path for split in splits.values() for path in split) == sorted(paths)
    for split, share in (("val", 0.05), ("test", 0.05)):
        assert len(splits[split]) == pytest.approx(share * 2000, rel=0.35)
        assert splits[split] == [path for path in paths if path in set(splits[split])]
    assert split_sizes(splits) == f"{len(splits['train'])} train, {len(splits['val'])} val, {len(splits['test'])} test"


def test_a_file_stays_in_its_split_when_others_come_and_go() -> None:
    paths = [f"{i}/{i * i}.json" for i in range(4000)]
    whole = set_aside(paths, folder_split, str)
    for some in (paths[:2000], paths[::-1], paths[1::3]):
        part = set_aside(some, folder_split, str)
        assert all(set(part[split]) == set(whole[split]) & set(some) for split in whole)


def test_the_hash_never_changes() -> None:
    """Or files of an old run's test split would become training files."""
    splits = set_aside([f"{HANGUL}/{i}.json" for i in range(60)], folder_split, str)
    numbers = {split: [int(Path(path).stem) for path in paths] for split, paths in splits.items()}
    assert (numbers["test"], numbers["val"]) == ([35], [31])


def test_what_belongs_together_stays_together() -> None:
    paths = [f"{i}/{j}.json" for i in range(200) for j in range(5)]
    splits = set_aside(paths, folder_split, lambda path: path.partition("/")[0])
    people = Counter(person for paths in splits.values() for person in {path.partition("/")[0] for path in paths})
    assert set(people.values()) == {1}
    assert all(splits.values())


def test_of_few_files_one_is_set_aside_and_never_all() -> None:
    sizes = [[len(each) for each in set_aside(list("abcdef")[:n], folder_split, str).values()] for n in (0, 1, 2, 3)]
    assert sizes == [[0, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 1]]
    assert all(set_aside([str(i)], folder_split, str)["train"] for i in range(100))


def test_folders_name_splits_and_only_what_is_missing_is_set_aside(tmp_path: Path) -> None:
    paths = [f"train/{i}.json" for i in range(100)] + ["val/a.json", "other/b.json", "test.json"]
    splits = set_aside(paths, folder_split, str)
    assert splits["val"] == ["val/a.json"]
    assert "val/a.json" not in splits["train"] + splits["test"]
    assert splits["test"]
    with pytest.raises(ToolkitError, match=r"there is val and test but no train"):
        require_train(tmp_path, ["test", None, "val"])
    require_train(tmp_path, ["train", "val"])
    require_train(tmp_path, [None])
    assert folder_split("test") is None


SAID = {"train": "Train TRAIN training", "val": "VAL valid Validation dev eval", "test": "Test testing"}


@pytest.mark.parametrize(("split", "word"), [(split, word) for split, words in SAID.items() for word in words.split()])
def test_other_words_for_a_split_are_read_as_it(
    split: str, word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = {name: name for name in SAID if name != split}
    for folder in (word, *others):
        put(tmp_path / folder / "a.json")
    with caplog.at_level(logging.INFO):
        assert split_folders(tmp_path) == {**others, split: word}
    assert f"{word} is read as {split}" in caplog.text
    assert folder_split(f"{word}/a.json") == split_named(word) == split
    require_train(tmp_path, ["train", "val", "test"])


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["train", "Train"], ["Train and train both name the split train"]),
        (["train", "val", "dev"], ["dev and val both name the split val"]),
        (["train", "test_images"], ["test_images: looks like a split"]),
        (["train1", "train2"], ["train1: looks like a split"]),
        (["train-clean-100", "dev-clean"], ["dev-clean: looks like a split"]),
        (["anna", "TestSet"], ["TestSet: looks like a split"]),
        (["trainval"], ["trainval: looks like a split"]),
        (["test" + "1" * 200], ["looks like a split"]),
    ],
)
def test_what_looks_like_a_split_and_is_none_is_refused(folders: list[str], names: list[str], tmp_path: Path) -> None:
    for folder in folders:
        put(tmp_path / folder / "a.json")
    with pytest.raises(ToolkitError) as caught:
        require_train(tmp_path, [None])
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize("name", ["trains", "testimony", "validator", "devil", "evaluate me", "test" + "1" * 200 + "x"])
def test_other_folders_do_not_look_like_splits(name: str, tmp_path: Path) -> None:
    put(tmp_path / name / "a.json")
    assert split_folders(tmp_path) == {}
    (tmp_path / "test_data").write_text("a file is no split")
    require_train(tmp_path, [None])


def test_another_rule_chooses() -> None:
    def odd(keys: set[str], split: str) -> set[str]:
        return {key for key in keys if split == "test" and int(key) % 2}

    assert set_aside(list("1234"), folder_split, str, odd) == {"train": ["2", "4"], "val": [], "test": ["1", "3"]}
