"""Ranks that share a split measure and encode what one rank does: here they are threads that take turns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import PIXELCNN, TILES, VQ

from toolkit import distributed
from toolkit.batches import split_batches, stretch
from toolkit.build import build_dataset, build_metrics, build_prior, build_stage
from toolkit.cli.config.compose import compose
from toolkit.config import RunConfig
from toolkit.evaluation import Evaluation, can_share, evaluate_parts
from toolkit.metric import Metric
from toolkit.report import Silence
from toolkit.runs.code_cache import CodeCache
from toolkit.testing.ranks import as_ranks

CPU = torch.device("cpu")
CATEGORICAL = ["quantizer=categorical", "quantizer.codebook_size=16", "objective=vimco"]


@pytest.fixture(autouse=True)
def _plugged_in(toys: None) -> None: ...


def config_of(*words: str) -> RunConfig:
    return compose([*TILES, *PIXELCNN, "metric=[reconstruction,codebook]", *words]).config


@pytest.mark.parametrize(("size", "ranks"), [(10, 1), (10, 3), (2, 3), (0, 2)])
def test_stretches_cover_everything_once(size: int, ranks: int) -> None:
    stretches = [stretch(size, rank, ranks) for rank in range(ranks)]
    assert [i for part in stretches for i in part] == list(range(size))
    assert max(map(len, stretches)) - min(map(len, stretches)) <= 1


def evaluated(config: RunConfig, rank: int, ranks: int) -> Evaluation:
    torch.manual_seed(0)
    dataset = build_dataset(config)
    stage = build_stage(config, dataset.spec, None)
    prior = build_prior(config, stage.model.code_spec, dataset.spec)
    batches = split_batches(dataset, "val", CPU, batch_size=3, workers=0, rank=rank, ranks=ranks)
    judges = build_metrics(config, stage.model)
    return evaluate_parts(stage.objective, stage.model, batches, judges, {"pixelcnn": prior}, shared=ranks > 1)


@pytest.mark.few(2)
@pytest.mark.parametrize("words", [VQ, CATEGORICAL], ids=["vq", "categorical"])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_evaluate_as_one(words: list[str], ranks: int) -> None:
    """Three batches, also for four ranks; the costs are the same bits, the metrics the same sums."""
    config = config_of(*words)
    one = evaluated(config, 0, 1)
    for shared in as_ranks([partial(evaluated, config, rank, ranks) for rank in range(ranks)]):
        assert (shared.examples, shared.nll, shared.code_nats) == (one.examples, one.nll, one.code_nats)
        assert shared.entropy == one.entropy
        assert shared.metrics == pytest.approx(one.metrics, rel=1e-6)
        assert shared.warnings == one.warnings


def encoded(config: RunConfig, folder: Path) -> None:
    torch.manual_seed(0)
    dataset = build_dataset(config)
    model = build_stage(config, dataset.spec, None).model
    CodeCache(folder, model, model.code_spec, (), CPU, 3, 0, Silence()).read(dataset)


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.few(1)
def test_ranks_encode_as_one(tmp_path: Path, ranks: int) -> None:
    """The same files, byte for byte, of sampled codes, too; no part of one is left."""
    config = config_of(*CATEGORICAL)
    encoded(config, tmp_path / "one")
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "val.rank-7.safetensors").write_bytes(b"of a run that was killed")
    as_ranks([partial(encoded, config, tmp_path / "all")] * ranks)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert (
        names == sorted(path.name for path in (tmp_path / "all").iterdir()) == ["train.safetensors", "val.safetensors"]
    )
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "all" / name).read_bytes()


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "every rank takes everything": lambda patch: patch.setattr(
        "toolkit.batches.stretch", lambda size, rank, ranks: range(size)
    ),
    "noise is numbered within a stretch": lambda patch: patch.setattr(
        "toolkit.batches.Batch.__init__", _without_number
    ),
    "the last rank's part is lost": lambda patch: patch.setattr(
        "toolkit.evaluation.all_gather_object", lambda value: distributed.all_gather_object(value)[:-1]
    ),
}


def _without_number(self: Any, tensors: dict[str, torch.Tensor], device: torch.device, number: int = 0) -> None:
    rest = dict(tensors)
    self.x, self.conditions, self.number, self.mask = rest.pop("x"), rest, 0, None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(*CATEGORICAL)
    one = evaluated(config, 0, 1)
    FAULTS[fault](monkeypatch)
    shared = as_ranks([partial(evaluated, config, rank, 2) for rank in range(2)])[0]
    assert (shared.examples, shared.nll, shared.code_nats) != (one.examples, one.nll, one.code_nats)


class Whole(Metric):
    """Counts examples, and cannot be merged."""

    def __init__(self) -> None:
        self.examples = 0

    def update(self, x: Any, output: Any, conditions: Any) -> None:
        self.examples += len(x)

    def compute(self) -> dict[str, float]:
        return {"counted": float(self.examples)}


def test_a_metric_without_merge_sees_the_whole_split() -> None:
    mergeable = build_metrics(
        config_of(*VQ), build_stage(config_of(*VQ), build_dataset(config_of(*VQ)).spec, None).model
    )
    assert not can_share(mergeable), "of one rank"
    decide = [partial(can_share, mergeable), partial(can_share, mergeable)]
    assert as_ranks(decide) == [True, True]
    assert as_ranks([partial(can_share, [*mergeable, Whole()])] * 2) == [False, False]
