"""Tar files as a stream: each example once an epoch, and exactly on from anywhere."""

from __future__ import annotations

import json
import signal
import tarfile
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from messages import assert_names
from packed import FEW, packed
from test_resume import StopAt, Stopped
from torch import Tensor
from toys import fingerprint, metrics

from toolkit import ToolkitError, registry
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.datasets.shard_stream import ShardStreamDataset
from toolkit.datasets.tars.expand import expand
from toolkit.datasets.waves import WavesDataset
from toolkit.runs.folder import Run
from toolkit.stages.run import train
from toolkit.stream_batches import StreamBatches, saved_of
from toolkit.testing.dataset import assert_same
from toolkit.testing.stream import StreamSuite


def stream(root: object, **options: Any) -> ShardStreamDataset:
    return ShardStreamDataset(partial(registry.load, "dataset"), root=str(root), **options)


def write_tars(folder: Path, counts: dict[str, int]) -> None:
    """As a stranger packs arrays and classes: so many examples in each file."""
    folder.mkdir(parents=True)
    for name, count in counts.items():
        with tarfile.open(folder / name, "w") as tar:
            for i in range(count):
                x = np.random.default_rng((len(name), i)).integers(0, 8, (1, 4, 4))
                file = BytesIO()
                np.save(file, x)
                label = json.dumps({"kind": i % 3, "text": "a star"}).encode()
                for member, content in (
                    (f"d/{name[:-4]}_{i}.npy", file.getvalue()),
                    (f"d/{name[:-4]}_{i}.json", label),
                ):
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, BytesIO(content))


FOREIGN: dict[str, Any] = {"channels": 1, "axes": (4, 4), "levels": 8, "labels": {"json.kind": 3}, "shuffle": 5}


class TestForeignStream(StreamSuite):
    """Fewer files than lanes, of different lengths."""

    ranks = (1, 3)

    @pytest.fixture(autouse=True)
    def _tars(self, tmp_path: Path) -> None:
        self.root = tmp_path / "tars"
        write_tars(self.root, {"a.tar": 17, "b.tar": 23, "train-2.tar": 5, "val-0.tar": 4})

    def make(self) -> ShardStreamDataset:
        return stream(self.root, **FOREIGN)


@pytest.mark.slow
class TestStreamOfManyFiles(TestForeignStream):
    @pytest.fixture(autouse=True)
    def _tars(self, tmp_path: Path) -> None:
        self.root = tmp_path / "tars"
        write_tars(self.root, {f"{i:03}.tar": 1 + i % 5 for i in range(40)})


@pytest.mark.long
class TestPackedStream(StreamSuite):
    ranks = (1, 2)

    @pytest.fixture(autouse=True)
    def _shards(self, tmp_path: Path) -> None:
        self.root = tmp_path / "packed"
        packed(self.root, WavesDataset(**FEW))

    def make(self) -> ShardStreamDataset:
        return stream(self.root, shuffle=4)

    def test_examples_are_those_that_were_packed(self) -> None:
        waves = WavesDataset(**FEW)
        for streamed in self.make().stream("train", 3, 0, 1, None):
            index = int(streamed.key.rpartition("/")[2])
            assert_same(streamed.example, waves.example("train", index, None), "a stream and what was packed")


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    write_tars(tmp_path / "tars", {"a.tar": 30, "b.tar": 31, "val.tar": 8})
    return tmp_path / "tars"


def batches(root: Path, **options: Any) -> StreamBatches:
    given: dict[str, Any] = {"batch_size": 4, "seed": 0, "workers": 0, **options}
    return StreamBatches(stream(root, **FOREIGN), torch.device("cpu"), **given)


def taken(iterator: StreamBatches, n: int) -> Tensor:
    return torch.stack([batch.x for batch in islice(iterator, n)])


@pytest.mark.long
@pytest.mark.parametrize("workers", [2, 1, 3])
def test_any_number_of_workers_gives_the_same_batches(tars: Path, workers: int) -> None:
    """From a place in the middle on, too."""
    whole, own = batches(tars), batches(tars, workers=workers)
    assert torch.equal(taken(own, 9), taken(whole, 9))
    saved = saved_of([own.place])
    assert torch.equal(taken(batches(tars, workers=workers, saved=saved), 9), taken(whole, 9))


def test_a_change_of_ranks_is_told(tars: Path) -> None:
    parts = [batches(tars, rank=rank, ranks=2) for rank in range(2)]
    for part in parts:
        next(part)
    notes: list[str] = []
    saved = json.loads(json.dumps(saved_of([part.place for part in parts])))
    next(batches(tars, saved=saved, note=notes.append))
    assert len(notes) == 1
    assert_names(notes[0], "the stream … 2 ranks … 1")
    next(batches(tars, rank=1, ranks=2, saved=saved, note=notes.append))
    assert len(notes) == 1
    with pytest.raises(ToolkitError, match="place in the stream"):
        batches(tars, saved={"taken": 3})


def test_a_stream_with_too_few_examples(tmp_path: Path) -> None:
    write_tars(tmp_path / "few", {"a.tar": 2})
    with pytest.raises(ToolkitError, match=r"fewer examples .*toolkit pack"):
        taken(batches(tmp_path / "few"), 8)


def test_the_training_split_has_no_size(tars: Path) -> None:
    dataset = stream(tars, **FOREIGN)
    assert (dataset.size("val"), dataset.size("test")) == (8, 0)
    with pytest.raises(ToolkitError, match=r"is a stream: .* toolkit pack"):
        dataset.size("train")


def test_a_store_on_the_net_is_streamed(tars: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").put(str(tars), "/tars", recursive=True)
    far = stream("memory://tars", **FOREIGN)
    named = stream("memory://tars", shards={"train": "a.tar", "val": "val.tar"}, **FOREIGN)
    near = [streamed.key for streamed in stream(tars, **FOREIGN).stream("train", 0, 0, 1, None)]
    assert [streamed.key for streamed in far.stream("train", 0, 0, 1, None)] == near
    assert named.size("val") == 8


def test_braces_stand_for_many_files() -> None:
    assert expand("x-{008..011}.tar") == ["x-008.tar", "x-009.tar", "x-010.tar", "x-011.tar"]
    assert expand("{0..1}/{8..9}.tar") == ["0/8.tar", "0/9.tar", "1/8.tar", "1/9.tar"]
    with pytest.raises(ValueError, match="counts up"):
        expand("{9..1}")


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"member": "png"}, "{root}/a.tar, example d/a_ … .png … dataset.member"),
        ({"labels": {"cls": 3}}, "{root}/a.tar, example d/a_ … cls … json"),
        ({"labels": {"json.text": 3}}, "{root}/a.tar, example d/a_ … dataset.labels: json.text"),
        ({"labels": {"json.kind": 2}}, "{root}/a.tar, example d/a_ … is 2, of 2 classes"),
        ({"axes": (5, 4)}, "{root}/a.tar, example d/a_ … (1, 5, 4)"),
        ({"levels": None}, "{root}/a.tar, example d/a_ … int64"),
        ({"levels": 4}, "{root}/a.tar, example d/a_ … 0..3"),
    ],
)
def test_examples_of_another_form_are_told(tars: Path, options: dict[str, Any], facts: str) -> None:
    dataset = stream(tars, **{**FOREIGN, **options}, shards={"train": "a.tar"})
    with pytest.raises(ToolkitError) as caught:
        list(dataset.stream("train", 0, 0, 1, None))
    assert_names(str(caught.value), facts.format(root=tars))


def test_a_file_that_is_cut_short_or_none_is_told(tars: Path) -> None:
    whole = (tars / "a.tar").read_bytes()
    for content in (whole[:5000], b"no tar file" * 100):
        (tars / "a.tar").write_bytes(content)
        with pytest.raises(ToolkitError, match=r"a\.tar"):
            list(stream(tars, **FOREIGN).stream("train", 0, 0, 1, None))


# -- runs

PARTS = """
encoder=conv encoder.hidden=8 decoder=conv decoder.hidden=8 likelihood=categorical dim=4
quantizer=ema quantizer.codebook_size=16 stage=autoencoder
trainer.steps=12 trainer.batch_size=5 trainer.checkpoint_every=3 trainer.log_every=2 trainer.validate_every=5
trainer.accumulate=2 trainer.workers=0
dataset=shard_stream dataset.shuffle=7
"""


def words(root: Path) -> list[str]:
    return [*PARTS.split(), f"dataset.root={root}"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards") / "waves"
    packed(root, WavesDataset(axes=(8, 8), train_size=70, val_size=6, test_size=2), shard_bytes=60_000)
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(compose(words(shards)).config, folder)
    return folder


@pytest.fixture(autouse=True)
def _foreground() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.long
@pytest.mark.parametrize(("step", "how"), [(4, Stopped), (7, KeyboardInterrupt)])
def test_a_stopped_run_goes_on_exactly(
    shards: Path, whole: Path, tmp_path: Path, step: int, how: type[BaseException]
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(how):
        train(compose(words(shards)).config, folder, report=StopAt("autoencoder", step, how))
    train(reopen(Run.open(folder).config_values(), []).config, folder)
    assert fingerprint(folder) == fingerprint(whole)
    assert metrics(folder) == metrics(whole)


@pytest.mark.long
def test_stage_two_asks_for_packed_codes(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [word for word in words(shards) if not word.startswith("stage=")]
    run = [*given, "prior=categorical", "trainer.steps=1", f"hydra.run.dir={tmp_path / 'run'}"]
    assert command(["train", *run]) == 2
    assert "toolkit pack" in capsys.readouterr().err
