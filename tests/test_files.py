"""Datasets of files, of a modality that does not exist: walk, scan, cache, windows and broken files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from toolkit import Dataset, DataSpec, ToolkitError
from toolkit.datasets.files import (
    ErrorPolicy,
    cache,
    find_files,
    folder_split,
    part_name,
    require_folder,
    require_train,
    scan,
    set_aside,
    windows,
)
from toolkit.datasets.variance import estimate_variance
from toolkit.testing import DatasetSuite

HANGUL = "곡선 [1], a=b"


@pytest.fixture(autouse=True)
def memory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is remembered from test to test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def put(path: Path, numbers: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers))
    return path


def curve(length: int, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).uniform(-1, 1, length).round(3).tolist()


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    root = tmp_path / "그림 [x], y=z"
    for i in range(30):
        put(root / HANGUL / f"{i}.json", curve(10 + i, i))
    return root


class CurvesDataset(Dataset):
    """Curves of numbers, a JSON list a file, in windows."""

    suffix = ".json"

    def __init__(self, *, root: str, length: int = 8, on_error: Literal["skip", "stop"] = "stop") -> None:
        self.root = require_folder(root, "the curves are")
        self.policy = ErrorPolicy(self.root, on_error)
        paths = find_files(self.root, (".json",))
        require_train(self.root, map(folder_split, paths))
        self.lengths, failures = scan(self.root, paths, count, int, package="curves")
        self.policy.add(failures)
        self.splits = set_aside(self.lengths, folder_split, str)
        self.windows = {
            split: windows((self.lengths[path] for path in paths), length) for split, paths in self.splits.items()
        }
        self.spec = DataSpec(1, (length,), variance=0.3)

    def size(self, split: str) -> int:
        return len(self.windows[split])

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        rows, paths = self.windows[split].tolist(), self.splits[split]
        return self.policy.example(
            split, index, len(rows), lambda i: paths[rows[i][0]], lambda i: self.load(paths[rows[i][0]], rows[i][1])
        )

    def load(self, path: str, start: int) -> dict[str, Tensor]:
        numbers = json.loads((self.root / path).read_text())[start : start + self.spec.axes[0]]
        return {"x": torch.tensor(numbers).reshape(1, self.spec.axes[0])}

    @classmethod
    def read(cls, path: Path, spec: DataSpec) -> Tensor:
        return torch.tensor(json.loads(path.read_text())).reshape(spec.shape)

    @classmethod
    def write(cls, x: Tensor, spec: DataSpec, path: Path) -> None:
        path.write_text(json.dumps(x.flatten().tolist()))

    @classmethod
    def plot(cls, rows: Sequence[Tensor], spec: DataSpec, path: Path) -> None:
        from matplotlib.image import imsave

        imsave(path, torch.cat([row.flatten(1) for row in rows]).numpy())


def count(path: Path) -> int:
    return len([float(number) for number in json.loads(path.read_text())])


class TestCurves(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _files(self, curves: Path) -> None:
        self.root = curves

    def make(self) -> Dataset:
        return CurvesDataset(root=str(self.root))


# the walk


def test_files_are_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    names = ["Z/a.json", "a/B.JSON", "a/a.json", "a b/c.json", "가/a.json", "a-b/d/e/c.json", "é/a.json", "b.json"]
    for name in names:
        put(tmp_path / name, [])
    assert find_files(tmp_path, (".json",)) == sorted(names, key=str.encode)


def test_hidden_and_other_files_are_not_seen(tmp_path: Path) -> None:
    for name in (".a.json", ".b/c.json", "d/.e/f.json", "g.txt", "h.json.part"):
        put(tmp_path / name, [])
    assert find_files(tmp_path, (".json",)) == []


def test_links_to_folders_are_followed_unless_told_not_to(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "a.json", [])
    put(tmp_path / "root" / "b.json", [])
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert find_files(tmp_path / "root", (".json",)) == ["b.json", "link/a.json"]
    assert find_files(tmp_path / "root", (".json",), followlinks=False) == ["b.json"]


def test_no_folder_is_entered_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Links that lead back, around, up and out, and two to one folder: no file has two paths, and none two splits."""
    root = tmp_path / "root"
    for name in ("train/a/1.json", "train/b/2.json", "val/a/3.json"):
        put(root / name, [])
    put(tmp_path / "elsewhere" / "4.json", [])
    links = {"train/a/up": "..", "train/a/root": "../..", "val/around": "../train/b", "train/self": "self"}
    links |= {"val/out": str(tmp_path), "train/b/all": "/", "train/c": "../../elsewhere", "val/c": "../../elsewhere"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    with caplog.at_level(logging.INFO):
        paths = find_files(root, (".json",))
    assert paths == ["train/a/1.json", "train/b/2.json", "train/c/4.json", "val/a/3.json"]
    assert "6 linked folders that lead to what is read already, 1 without suffix" in caplog.text
    assert find_files(root, (".json",), within=["val"]) == ["val/a/3.json", "val/around/2.json", "val/c/4.json"]


def test_what_is_passed_over_is_counted_by_reason_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a.json", "b.txt", "c.TXT", "d/e.txt", "d/f.tiff", ".g", ".h/i.json", "README", "j.side"]
    for name in names:
        put(tmp_path / name, [])
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert find_files(tmp_path, (".json",), beside=(".side",)) == ["a.json"]
    told = f"{tmp_path}: 1 files; passed over: 3 .txt, 2 hidden, 1 .tiff, 1 without suffix"
    assert [record.getMessage() for record in caplog.records] == [told]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        put(tmp_path / "k.txt", [])
        find_files(tmp_path, (".json",), beside=(".side",))
        find_files(tmp_path / "d", (".txt", ".tiff"))
    assert [record.getMessage() for record in caplog.records] == [told.replace("3 .txt", "4 .txt")]


def test_many_reasons_are_cut_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(12):
        put(tmp_path / f"a.s{i:02}", [])
    with caplog.at_level(logging.INFO):
        find_files(tmp_path, (".json",))
    assert "1 .s07, 4 others" in caplog.text


def test_folders_beside_those_looked_into_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/a.json", "extra/b.json", "extra/deep/c.txt", "notes.txt", ".x/d.json"):
        put(tmp_path / name, [])
    with caplog.at_level(logging.INFO):
        assert find_files(tmp_path, (".json",), within=["train"]) == ["train/a.json"]
    for part in ("the folder extra", "1 .txt", "1 hidden"):
        assert part in caplog.text


@pytest.mark.parametrize("root", ["", " "])
def test_an_unset_root_is_not_the_current_folder(root: str) -> None:
    with pytest.raises(ToolkitError, match=r"dataset\.root is empty; dataset\.root=FOLDER says where the curves are"):
        require_folder(root, "the curves are")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"none: no such folder; dataset\.root=FOLDER says where the curves are"):
        require_folder(str(tmp_path / "none"), "the curves are")


# the scan


def scanned(root: Path, paths: list[str]) -> tuple[Any, list[str]]:
    """A scan, and the files it looked at."""
    looked: list[str] = []

    def look(path: Path) -> int:
        looked.append(path.relative_to(root).as_posix())
        return count(path)

    return scan(root, paths, look, int, package="curves", purpose="count"), sorted(looked)


def test_a_cache_is_equal_to_a_fresh_scan_and_only_what_changed_is_looked_at_again(curves: Path) -> None:
    paths = find_files(curves, (".json",))
    fresh, looked = scanned(curves, paths)
    assert fresh == ({path: 10 + int(Path(path).stem) for path in paths}, {})
    assert list(fresh[0]) == paths
    assert looked == sorted(paths)
    assert scanned(curves, paths) == (fresh, [])
    put(curves / paths[3], [1, 2, 3])
    os.utime(curves / paths[5], ns=(1, 1))  # the same, but who knows
    (results, _), looked = scanned(curves, paths)
    assert looked == sorted([paths[3], paths[5]])
    assert results == fresh[0] | {paths[3]: 3}
    put(curves / "new.json", [1])
    assert scanned(curves, [*paths, "new.json"]) == (({**results, "new.json": 1}, {}), ["new.json"])


def test_purposes_packages_and_roots_do_not_mix(curves: Path, tmp_path: Path) -> None:
    for root in (curves, tmp_path / "other"):
        os.utime(put(root / HANGUL / "0.json", [1]), ns=(1, 1))
    answers = []
    for root in (curves, tmp_path / "other"):
        for package in ("a", "b"):
            for purpose in ("", "c"):
                number = len(answers)
                results, _ = scan(
                    root, [f"{HANGUL}/0.json"], lambda _, n=number: n, int, package=package, purpose=purpose
                )
                answers += results.values()
    assert answers == list(range(8))


def test_a_broken_file_is_its_own_failure_and_looked_at_again(curves: Path) -> None:
    """Whatever a reader raises, and a file that is gone, or a link to nothing."""
    (curves / "link.json").symlink_to(curves / "nowhere")
    put(curves / "text.json", ["a", "b"])
    put(curves / "number.json", 3)
    paths = [*find_files(curves, (".json",)), "gone.json"]
    scanned(curves, paths)
    (results, failures), looked = scanned(curves, paths)
    assert sorted(failures) == looked == ["gone.json", "link.json", "number.json", "text.json"]
    assert len(results) == 30
    assert failures["number.json"] == f"{curves / 'number.json'}: TypeError: 'int' object is not iterable"
    assert failures["text.json"].startswith(f"{curves / 'text.json'}: ValueError: could not convert")


def test_a_toolkit_error_says_itself_which_file_it_is(curves: Path) -> None:
    def look(path: Path) -> int:
        raise ToolkitError(f"{path.name} is strange")

    _, failures = scan(curves, [f"{HANGUL}/0.json"], look, int, package="curves")
    assert failures == {f"{HANGUL}/0.json": "0.json is strange"}


@pytest.mark.parametrize("damage", ["{", "[]", "entry", "answer", "digit", "deep", "pipe", "folder"])
def test_a_damaged_cache_is_looked_past(damage: str, curves: Path, memory: Path) -> None:
    """One digit changed, it would be a cache, and wrong at each start."""
    paths = find_files(curves, (".json",))
    fresh, _ = scanned(curves, paths)
    (file,) = memory.glob("curves/*.json")
    check, _, text = file.read_text().partition("\n")
    known = json.loads(text)
    assert check == cache._check(text)
    if damage in ("entry", "answer"):
        known[paths[0]] = 3 if damage == "entry" else [known[paths[0]][0], "many"]
        text = json.dumps(known)
        file.write_text(f"{cache._check(text)}\n{text}")
    elif damage == "digit":
        known[paths[0]][1] += 10
        file.write_text(f"{check}\n{json.dumps(known, separators=(',', ':'))}")
    elif damage in ("pipe", "folder"):
        file.unlink()
        os.mkfifo(file) if damage == "pipe" else file.mkdir()
    else:
        text = "[" * 100_000 if damage == "deep" else damage
        file.write_text(f"{cache._check(text)}\n{text}")
    again, looked = scanned(curves, paths)
    assert again == fresh
    assert looked == (paths[:1] if damage in ("entry", "answer") else sorted(paths))
    assert scanned(curves, paths) == (fresh, sorted(paths) if damage == "folder" else [])
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_cache_that_cannot_be_written_is_done_without(curves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    paths = find_files(curves, (".json",))
    assert scanned(curves, paths) == scanned(curves, paths)


def test_a_long_scan_says_that_it_has_begun(
    curves: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MANY", 30)
    with caplog.at_level(logging.INFO):
        CurvesDataset(root=str(curves))
        CurvesDataset(root=str(curves))
    assert caplog.text.count("looking at 30 files, once") == 1


# the windows


@pytest.mark.parametrize("length", [1, 4, 7])
def test_windows_cover_every_file_at_even_distances(length: int) -> None:
    lengths = [0, 1, 3, 4, 5, 8, 9, 23, 100]
    rows = windows(lengths, length)
    assert rows.dtype == np.int64
    for number, whole in enumerate(lengths):
        starts = rows[rows[:, 0] == number, 1]
        assert len(starts) == -(-whole // length)
        if len(starts):
            assert (starts[0], starts[-1]) == (0, max(0, whole - length))
            assert set(range(whole)) <= {start + i for start in starts.tolist() for i in range(length)}
            assert np.ptp(np.diff(starts)) <= 1 if len(starts) > 1 else True
    assert windows([], length).shape == (0, 2)


def test_parts_of_a_file_have_names_of_their_own() -> None:
    assert part_name("a/b.c.wav", 0) == "a/b.c.wav"
    assert part_name("a/b.c.wav", 16000) == "a/b.c@16000.wav"
    assert part_name("b", 3) == "b@3"


def test_the_variance_is_that_of_the_scaled_training_examples(curves: Path) -> None:
    dataset = CurvesDataset(root=str(curves))
    x = torch.stack([dataset.example("train", i, None)["x"] for i in range(dataset.size("train"))])
    assert estimate_variance(dataset, 10_000) == pytest.approx(x.double().var(correction=0).item())
    assert estimate_variance(dataset, 5) == pytest.approx(x[:: -(-len(x) // 5)].double().var(correction=0).item())


# what cannot be used


def test_a_broken_file_stops_the_run_and_is_named(curves: Path) -> None:
    for name in ("x", "y"):
        (curves / HANGUL / f"{name}.json").write_text("{")
    with pytest.raises(
        ToolkitError, match=r"x\.json: JSONDecodeError: .* \(and 1 more files\)\ndataset\.on_error=skip"
    ):
        CurvesDataset(root=str(curves))


def test_a_broken_file_is_skipped_named_and_counted_and_no_other(
    curves: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = CurvesDataset(root=str(curves))
    for i in range(5):
        (curves / HANGUL / f"broken{i}.json").write_text("{")
    dataset = CurvesDataset(root=str(curves), on_error="skip")
    assert dataset.splits == plain.splits
    assert caplog.text.count(": skipped") == 3
    assert caplog.text.count("5 files skipped so far") == 1


def test_a_file_that_breaks_later_is_replaced_by_the_next(curves: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop, skip = (CurvesDataset(root=str(curves), on_error=on_error) for on_error in ("stop", "skip"))
    row = stop.windows["train"].tolist()
    path = stop.splits["train"][row[0][0]]
    after = next(i for i in range(len(row)) if row[i][0] != row[0][0])
    (curves / path).write_text("[1")
    with pytest.raises(ToolkitError, match=r"json: JSONDecodeError"):
        stop.example("train", 0, None)
    for _ in range(2):
        assert torch.equal(skip.example("train", 0, None)["x"], stop.example("train", after, None)["x"])
    assert skip.policy.skipped == {path}
    assert caplog.text.count("1 files skipped so far") == 1
    for path in skip.splits["val"]:
        (curves / path).unlink()
    with pytest.raises(ToolkitError, match="no file of the val split can be read"):
        skip.example("val", 0, None)
    with pytest.raises(IndexError, match="no example 400"):
        skip.example("train", 400, None)


def test_the_place_of_an_example_is_that_of_the_file_that_replaced_it(tmp_path: Path) -> None:
    policy = ErrorPolicy(tmp_path, "skip")

    def example(index: int) -> int:
        return policy.example("val", index, 4, "abcd".__getitem__, lambda i: {0: 0, 2: 2}[i])

    assert policy.place(3, 4, "abcd".__getitem__) == 3  # nobody has looked yet
    for index in range(4):
        assert example(index) == policy.place(index, 4, "abcd".__getitem__)
    assert [policy.place(index, 4, "abcd".__getitem__) for index in range(4)] == [0, 2, 2, 0]


def test_what_a_look_says_is_kept_and_where_it_raises_the_file_is_skipped(tmp_path: Path) -> None:
    policy = ErrorPolicy(tmp_path, "skip")
    assert policy.keep("123a4", int) == {"1": 1, "2": 2, "3": 3, "4": 4}
    assert policy.skipped == {"a"}
    assert policy.keep("1a", str) == {"1": "1"}
    with pytest.raises(ToolkitError, match="a: ValueError: invalid literal"):
        ErrorPolicy(tmp_path, "stop").keep("1a", int)
