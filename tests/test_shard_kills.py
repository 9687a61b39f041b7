"""Kills at random moments over shards: examples and weights are those of a training that was left alone.

``TOOLKIT_MOMENTS=30`` asks for so many moments of loaders, ``TOOLKIT_KILLS=30`` for so many whole trainings; by
default a few.
"""

from __future__ import annotations

import json
import os
import random
import signal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from packed import opened, packed
from test_kills import Training
from test_shard_stream import stream
from torch import Tensor
from toys import fingerprint, metrics

from toolkit.batches import TrainBatches
from toolkit.datasets.waves import WavesDataset
from toolkit.stream_batches import StreamBatches, saved_of

MOMENTS, KILLS = int(os.environ.get("TOOLKIT_MOMENTS", "12")), int(os.environ.get("TOOLKIT_KILLS", "2"))
BATCHES, EVERY = 24, 4
"""Of a rank, and how many lie between two checkpoints."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards") / "waves"
    packed(root, WavesDataset(axes=(8, 8), train_size=90, val_size=8, test_size=2), shard_bytes=60_000)
    return root


def loader(root: Path, kind: str, rank: int, ranks: int, workers: int, start: int = 0, saved: Any = None) -> Any:
    options = {"batch_size": 5, "seed": 3, "workers": workers, "rank": rank, "ranks": ranks}
    cpu = torch.device("cpu")
    if kind == "shards":
        return TrainBatches(opened(root), cpu, start=start, **options)  # type: ignore[arg-type]
    return StreamBatches(stream(root, shuffle=7), cpu, saved=saved, **options)  # type: ignore[arg-type]


def taken(batches: Any, count: int) -> Tensor:
    """So many batches, labels beside the data."""
    rows = [torch.cat([batch.x.flatten(1), batch.conditions["pace"][:, None]], 1) for batch in islice(batches, count)]
    return torch.stack(rows)


@pytest.mark.long
def test_a_loader_that_is_killed_loses_nothing(root: Path) -> None:
    """Each moment is one of a kind of shards, a number of ranks and one of workers, before and after the kill."""
    wholes: dict[tuple[Any, ...], Tensor] = {}
    for moment in range(MOMENTS):
        kind, ranks = ("shards", "shard_stream")[moment % 2], 1 + moment // 2 % 3
        stop = random.randrange(1, BATCHES)
        last, before, after = stop // EVERY * EVERY, random.randrange(3), moment // 6 % 3
        print(f"moment {moment}: {kind}, {ranks} ranks, {before} and then {after} workers, killed after batch {stop}")
        parts = [loader(root, kind, rank, ranks, before) for rank in range(ranks)]
        for part in parts:
            taken(part, last) if last else None
        saved = json.loads(json.dumps(saved_of([part.place for part in parts]))) if kind == "shard_stream" else None
        for part in parts:  # what comes behind the checkpoint is lost
            list(islice(part, stop - last))
        del parts
        for rank in range(ranks):
            key = (kind, rank, ranks)
            if key not in wholes:
                wholes[key] = taken(loader(root, kind, rank, ranks, 0), BATCHES)
            rest = taken(loader(root, kind, rank, ranks, after, last, saved), BATCHES - last)
            assert torch.equal(rest, wholes[key][last:])


WORDS = """
encoder=conv encoder.hidden=8 decoder=conv decoder.hidden=8 likelihood=categorical dim=4
quantizer=ema quantizer.codebook_size=16 stage=autoencoder
trainer.steps=80 trainer.batch_size=4 trainer.log_every=1 trainer.checkpoint_every=10 trainer.validate_every=30
""".split()  # noqa: SIM905


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["shards", "shard_stream"])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (2, 1)])
def test_a_training_that_is_killed_ends_as_one_that_is_not(
    root: Path, tmp_path: Path, kind: str, ranks: int, workers: int
) -> None:
    given = [*WORDS, f"dataset={kind}", f"dataset.root={root}", f"trainer.workers={workers}"]
    given += [f"trainer.ranks={ranks}"] if ranks > 1 else []
    begin = partial(Training, tmp_path, ranks=ranks > 1)
    whole = begin(*given, f"hydra.run.dir={tmp_path / 'whole'}")
    assert whole.ended(250), whole.text
    assert whole.status == 0, whole.text
    for number in range(KILLS):
        folder, kills = tmp_path / f"run-{number}", 0
        training = begin(*given, f"hydra.run.dir={folder}")
        while True:
            training.wait_for("autoencoder", 1 + random.randrange(25))
            if training.ended() or kills == 3:
                break
            os.killpg(training.pid, signal.SIGKILL)
            kills += 1
            assert training.ended(30)
            words = [f"run={folder}"] if (folder / "config.yaml").is_file() else [*given, f"hydra.run.dir={folder}"]
            training = begin(*words)
        assert training.ended(250), training.text
        assert training.status == 0, training.text
        assert fingerprint(folder) == fingerprint(tmp_path / "whole")
        assert metrics(folder) == metrics(tmp_path / "whole")
