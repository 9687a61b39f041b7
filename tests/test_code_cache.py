"""A corpus is encoded by all ranks into files, and what was killed goes on with those that are missing."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from sounds import Sounds, model
from torch import Tensor

from toolkit.errors import Interrupted, ToolkitError
from toolkit.nn.noise import seeded
from toolkit.peers import PeerError
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.report import Silence
from toolkit.runs import code_cache
from toolkit.runs import codes as files
from toolkit.runs.code_cache import CodeCache
from toolkit.runs.codes import CachedCodes
from toolkit.runs.joined import Joined
from toolkit.spec import DataSpec
from toolkit.testing.parts import point_autoencoder
from toolkit.testing.ranks import as_ranks

CPU, DATA = torch.device("cpu"), DataSpec(1, (6,), levels=5)
SIZE, BATCH, ROWS = 37, 4, 8
WHOLE = 10**9


class Numbers:
    """Data to encode; it tells which examples were asked for, and may fail at one of them."""

    def __init__(self, fails: Callable[[int], None] = lambda taken: None, nap: float = 0.0) -> None:
        self.fails, self.nap, self.taken = fails, nap, list[int]()

    def size(self, split: str) -> int:
        return {"train": SIZE, "val": 3}.get(split, 0)

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        if split == "train":
            self.fails(len(self.taken))
            self.taken.append(index)
        time.sleep(self.nap)
        drawn = torch.Generator().manual_seed(index)
        return {"x": torch.randint(5, (1, 6), generator=drawn), "kind": torch.tensor(index % 3)}


class Heard:
    """What was noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, stage: str, step: int, steps: int) -> None: ...

    def step(self, step: int) -> None: ...


def encoded(
    folder: Path,
    examples: Any = None,
    rows: int = ROWS,
    heard: Any = None,
    batch: int = BATCH,
    of: Sequence[str] = ("train", "val"),
) -> CachedCodes:
    """By a model whose codes are drawn; ``rows`` examples to a file."""
    torch.manual_seed(0)
    parts = point_autoencoder(DATA, quantizer=CategoricalQuantizer(4, codebook_size=3))
    cache = CodeCache(folder, parts, parts.code_spec, (), CPU, batch, 0, heard or Silence(), shard=rows * 6)
    return cache.read(examples or Numbers(), of)


def all_of(codes: CachedCodes) -> dict[str, Tensor]:
    return codes.batch("train", range(codes.size("train")), None)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_equal(codes: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert codes.keys() == others.keys()
    assert all(torch.equal(codes[name], others[name]) for name in codes)


def test_a_small_split_is_one_file_and_a_large_one_several(tmp_path: Path) -> None:
    encoded(tmp_path / "one", rows=WHOLE)
    assert list(contents(tmp_path / "one")) == ["train.safetensors", "val.safetensors"]
    encoded(tmp_path / "several")
    shards = [f"train-0000{number}-of-00005.safetensors" for number in range(5)]
    assert list(contents(tmp_path / "several")) == [*shards, "val.safetensors"]


def test_no_split_has_more_files_than_a_process_can_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "MOST", 3)
    encoded(tmp_path, rows=1)
    assert sum(1 for _ in tmp_path.glob("train-*")) == 3


def files_are_the_split(folder: Path) -> None:
    """The same codes, drawn as they are, however many ranks encode them into however many files."""
    whole = all_of(encoded(folder / "whole", rows=WHOLE))
    for ranks in (1, 2, 3):
        parts = as_ranks([partial(encoded, folder / str(ranks))] * ranks)
        for codes in parts:
            assert_equal(all_of(codes), whole)
        assert contents(folder / str(ranks)) == contents(folder / "1")


def killed_anywhere(folder: Path) -> None:
    """What was encoded until then stays; the rest is encoded by another number of ranks: the same bytes."""
    encoded(folder / "uninterrupted")
    for stop in (0, 3, 9, 17, 30, 36):

        def fails(taken: int, stop: int = stop) -> None:
            if taken == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            encoded(folder / str(stop), Numbers(fails))
        there = sum(1 for _ in (folder / str(stop)).glob("train-*"))
        assert there == stop // ROWS
        again, heard = Numbers(), Heard()
        as_ranks([partial(encoded, folder / str(stop), again, heard=heard)] * (1 + stop % 3))
        assert sorted(again.taken) == list(range(there * ROWS, SIZE)), "none twice, none left out"
        assert contents(folder / str(stop)) == contents(folder / "uninterrupted")
        assert any(f"{there} of 5 files" in note for note in heard.notes) == (there > 0)


def one_is_damaged(folder: Path) -> None:
    """A file that is damaged, or is another one's, is encoded again, and no other."""
    encoded(folder)
    good = contents(folder)
    for number, damage in ((1, flip_codes), (3, partial(swap, good))):
        damage(folder / f"train-0000{number}-of-00005.safetensors")
        again, heard = Numbers(), Heard()
        encoded(folder, again, heard=heard)
        assert sorted(again.taken) == list(range(number * ROWS, (number + 1) * ROWS))
        assert contents(folder) == good
        assert "encoding again" in heard.notes[0]


def flip_codes(path: Path) -> None:
    """Changes the last code, to another of the three."""
    content = bytearray(path.read_bytes())
    content[-1] = (content[-1] + 1) % 3
    path.write_bytes(bytes(content))


def swap(good: dict[str, bytes], path: Path) -> None:
    path.write_bytes(good["train-00002-of-00005.safetensors"])


def few_may_be_open(folder: Path) -> None:
    """A split of many files is encoded and read by a process that may open few."""
    (soft, hard), free = resource.getrlimit(resource.RLIMIT_NOFILE), os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 20, hard))
    try:
        rows = all_of(encoded(folder, rows=1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(1 for _ in folder.glob("train-*")) == SIZE
    assert torch.equal(rows["kind"], torch.arange(SIZE) % 3)


def none_is_drawn_as_another(folder: Path) -> None:
    """No two batches of a split have one seed, though they end elsewhere than files do, or where lengths change."""
    for batch in (1, 3, BATCH, 5, 16):
        seeds = Seeds()
        with patch.object(files, "seeded", seeds):
            encoded(folder / str(batch), batch=batch, of=("train",))
        assert seeds.drawn == sorted(set(seeds.drawn))
        assert len(seeds.drawn) == sum(-(-rows // batch) for rows in (ROWS, ROWS, ROWS, ROWS, SIZE % ROWS))
        if ROWS % batch == 0:
            assert seeds.drawn == list(range(-(-SIZE // batch))), "as in one file"
    sounds, parts, seeds = Sounds(), model("categorical"), Seeds()
    sounds.one_length = True  # type: ignore[attr-defined]
    with patch.object(files, "seeded", seeds):
        CodeCache(folder, parts, parts.code_spec, (), CPU, 3, 0, Silence(), shard=5 * 8).read(sounds, ["train"])
    assert len(seeds.drawn) == len(set(seeds.drawn)) > 7


class Seeds:
    """What each batch's codes were drawn from."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def __call__(self, seed: int) -> AbstractContextManager[None]:
        self.drawn.append(seed)
        return seeded(seed)


LAWS = {
    "drawn": none_is_drawn_as_another,
    "open": few_may_be_open,
    "split": files_are_the_split,
    "killed": killed_anywhere,
    "damaged": one_is_damaged,
}


@pytest.mark.parametrize("law", LAWS)
def test_law(law: str, tmp_path: Path) -> None:
    LAWS[law](tmp_path)


def test_codes_of_unequal_lengths_are_the_same_in_several_files(tmp_path: Path) -> None:
    """With the lengths of each, and in their places."""
    parts, rows = model("ema"), list[list[dict[str, Tensor]]]()
    for shard, ranks in ((WHOLE, 1), (5 * 8, 2)):
        cache = CodeCache(tmp_path / str(shard), parts, parts.code_spec, (), CPU, 3, 0, Silence(), shard=shard)
        codes = as_ranks([partial(cache.read, Sounds())] * ranks)[0]
        assert codes.lengths("train") == [length // 4 for length in Sounds().lengths("train")]
        rows.append([codes.example("train", index, None) for index in range(20)])
        for index in range(20):
            assert torch.equal(rows[-1][index]["pitch"], Sounds().example("train", index, None)["pitch"])
    for one, other in zip(*rows, strict=True):
        assert_equal(one, other)


def test_files_of_before_and_of_other_sizes(tmp_path: Path) -> None:
    """One file of all codes is read as it is; what another number of files has left is removed."""
    before, again = all_of(encoded(tmp_path, rows=WHOLE)), Numbers()
    assert_equal(all_of(encoded(tmp_path, again)), before)
    assert not again.taken
    (tmp_path / "train.safetensors").write_bytes(b"spoilt")
    (tmp_path / "train.rank-3.safetensors").write_bytes(b"of a version of before")
    assert_equal(all_of(encoded(tmp_path)), before)
    assert len(list(tmp_path.glob("train*"))) == 5
    encoded(tmp_path, rows=32)
    assert [path.name for path in sorted(tmp_path.glob("train*"))] == [
        "train-00000-of-00002.safetensors",
        "train-00001-of-00002.safetensors",
    ]


def test_a_signal_leaves_what_all_ranks_have_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stop together, and go on as if nothing had been."""
    encoded(tmp_path / "uninterrupted")
    examples = Numbers()
    monkeypatch.setattr("toolkit.interrupts.asked", lambda: 15 if len(examples.taken) > 20 else 0)

    def stopped() -> bool:
        with suppress(Interrupted):
            encoded(tmp_path / "run", examples)
            return False
        return True

    assert as_ranks([stopped, stopped]) == [True, True]
    assert 0 < sum(1 for _ in (tmp_path / "run").glob("train-*")) < 5
    monkeypatch.undo()
    as_ranks([partial(encoded, tmp_path / "run")] * 2)
    assert contents(tmp_path / "run") == contents(tmp_path / "uninterrupted")


def test_a_rank_that_fails_is_waited_for_no_longer_than_a_file(tmp_path: Path) -> None:
    """It raises its own error and the others theirs, and what was written whole stays."""
    others = Numbers()

    def broken(taken: int) -> None:
        if taken == ROWS + 1:
            raise ToolkitError("example 9 is cut short")

    def told(examples: Numbers) -> str:
        with pytest.raises((ToolkitError, PeerError)) as error:
            encoded(tmp_path / "run", examples)
        return str(error.value)

    assert as_ranks([partial(told, others), partial(told, Numbers(broken))]) == [
        "rank 1 failed",
        "example 9 is cut short",
    ]
    assert len(others.taken) <= 2 * ROWS + BATCH
    as_ranks([partial(encoded, tmp_path / "run")] * 2)
    encoded(tmp_path / "uninterrupted")
    assert contents(tmp_path / "run") == contents(tmp_path / "uninterrupted")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_killed_process_leaves_whole_files(tmp_path: Path) -> None:
    """By SIGKILL, at moments of which nobody knows what it writes just then."""
    encoded(tmp_path / "uninterrupted", rows=2)
    moments, run, kills = random.Random(0), tmp_path / "run", 0
    while (there := len(list(run.glob("train-*")))) < 10:
        kills += 1
        pid = os.fork()
        if not pid:
            with suppress(BaseException):
                torch.set_num_threads(1)
                encoded(run, Numbers(nap=0.003), rows=2)
            os._exit(0)
        time.sleep(moments.uniform(0.02, 0.02 + 0.01 * kills))  # later and later, however busy the machine
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(there, "of 19 files are there after", kills, "kills")
    again = Numbers()
    encoded(run, again, rows=2)
    assert len(again.taken) == SIZE - min(SIZE, 2 * there)
    assert contents(run) == contents(tmp_path / "uninterrupted")


FAULTS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "noise is numbered within a rank": (
        "split",
        lambda p: p.setattr(code_cache, "_renumbered", lambda batches, numbers: batches),
    ),
    "a file is taken for another": (
        "damaged",
        lambda p: p.setattr(CodeCache, "_key", lambda self, split, size, *of: split),
    ),
    "a damaged file is taken": (
        "damaged",
        lambda p: p.setattr(code_cache, "is_as_written", lambda path: True),
    ),
    "two batches have one number": ("drawn", lambda p: p.setattr(CodeCache, "_first", by_start)),
    "a file is kept open": ("open", lambda p: p.setattr(files, "_arrays", kept_open)),
    "the first file stands for all": (
        "split",
        lambda p: p.setattr(Joined, "__getitem__", first_alone),
    ),
}


def by_start(self: CodeCache, places: range, size: int, one_length: bool) -> int:
    """The number that a batch would have in a split of one file."""
    return -(-places.start // self.batch_size)


def kept_open(path: Path, start: int, header: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays as NumPy maps them."""
    return {name: files._map(path, start, entry) for name, entry in header.items()}


def first_alone(self: Joined, key: Any) -> np.ndarray:
    """Rows of the first file, in the place of all."""
    rows: np.ndarray = self._arrays[0][np.asarray(key) % self._rows]
    return rows


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    law, plant = FAULTS[fault]
    plant(monkeypatch)
    with pytest.raises((AssertionError, OSError, pytest.fail.Exception)):
        LAWS[law](tmp_path)


@pytest.mark.parametrize("sizes", [[3], [4, 4, 1], [2, 2, 2]])
def test_joined_arrays_are_one(sizes: list[int]) -> None:
    arrays = [np.random.default_rng(i).integers(9, size=(size, 2, 3)) for i, size in enumerate(sizes)]
    joined, whole = Joined(arrays), np.concatenate(arrays)
    assert (joined.shape, joined.dtype, len(joined)) == (whole.shape, whole.dtype, len(whole))
    assert np.array_equal(np.array(joined), whole)
    assert np.array_equal(np.array(joined, np.float32), whole.astype(np.float32))
    for key in (0, len(whole) - 1, slice(1, 3), slice(0, 99), np.array([2, 0, 2]), np.array([], np.int64)):
        assert np.array_equal(joined[key], whole[key])
