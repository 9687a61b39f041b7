"""A prior that is divided over the ranks: the same steps as of one process, and the same checkpoints.

Two processes, of this very file, train in every way; what they did is compared with one process on the joined batch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from messages import assert_names
from torch import Tensor
from two_ranks import Codes, one_of_two, run_two

from toolkit import distributed, sharding
from toolkit.batches import Batch, TrainBatches
from toolkit.config import PartConfig
from toolkit.errors import ToolkitError
from toolkit.optimization import Optimization
from toolkit.options import AutoencoderTrainerOptions, PriorTrainerOptions
from toolkit.part import make
from toolkit.peers import PeerError
from toolkit.prior import Prior
from toolkit.runs import gathered
from toolkit.runs.checkpoint import newest
from toolkit.runs.saving import save
from toolkit.runs.tensors import read_shapes, write_tensors
from toolkit.sharding import check_sharding, checkpoint_activations, shard
from toolkit.spec import CodeSpec, Condition
from toolkit.stages.staging import Staging
from toolkit.testing.ranks import as_ranks
from toolkit.training import PriorStage, train_steps

CPU = torch.device("cpu")
OPTIONS = PriorTrainerOptions(steps=20, batch_size=4, learning_rate=3e-3, clip=1.0, ema=0.9)
HALF = 10
"""Steps to the checkpoint."""
KIND = Condition("kind", 3)
NETWORK = {"hidden": 12, "layers": 3, "heads": 2, "condition_dropout": 0.0}
PRIORS = {
    "transformer": PartConfig("transformer", {**NETWORK, "head": 9}),
    "pixelcnn": PartConfig("pixelcnn", {"hidden": 8, "layers": 2, "head": 8, "condition_dropout": 0.0}),
}
"""One of blocks, whose sizes two ranks do not share evenly, and one without."""


def prior_of(name: str) -> Prior:
    torch.manual_seed(0)
    part = make("prior", PRIORS[name], code_spec=CodeSpec((4, 4), (15,)), conditions=(KIND,))
    assert isinstance(part, Prior)
    return part


class Small(Codes):
    """Codes of fifteen entries."""

    def example(self, split: str, index: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        example = super().example(split, index, generator)
        return {**example, "x": example["x"] % 15}


def optimized(how: str, options: PriorTrainerOptions, name: str = "transformer") -> Optimization:
    """A prior's, ``how`` it is trained: ``shard``, ``again`` (the same with activations computed again), ``ddp``."""
    prior = prior_of(name)
    if how == "again":
        checkpoint_activations(prior)
    if how != "ddp":
        shard(prior, CPU, options.precision)
    return Optimization(PriorStage(prior), options)


def followed(optimization: Optimization, steps: int, scale: int = 1) -> list[float]:
    """The losses of the steps up to one, of all ranks, with a validation in between that sees the averages."""
    options, stage, losses = optimization.options, optimization.module, list[float]()
    assert isinstance(stage, PriorStage)
    batches = TrainBatches(
        Small(),
        CPU,
        batch_size=options.batch_size * scale,
        seed=0,
        start=optimization.step,
        workers=0,
        rank=distributed.rank(),
        ranks=distributed.ranks(),
    )
    for metrics in train_steps(stage, batches, optimization):
        loss = metrics["loss"].clone()
        distributed.all_reduce_mean(loss)
        losses.append(float(loss))
        if optimization.step % 4 == 0:
            losses.append(validated(optimization, stage))
        if optimization.step == steps:
            break
    return losses


def validated(optimization: Optimization, stage: PriorStage) -> float:
    example = Small().example("val", 99, None)
    with optimization.averaged(), torch.no_grad():
        stage.eval()
        loss = float(stage.model.loss(example["x"].unsqueeze(0), {"kind": example["kind"].unsqueeze(0)}))
        sharding.drop_gathered(stage.model)
    stage.train()
    return loss


def saved(folder: Path, how: str, options: PriorTrainerOptions = OPTIONS, name: str = "transformer") -> list[float]:
    """Trains half of the steps, saves, and trains the rest."""
    optimization = optimized(how, options, name)
    first = followed(optimization, HALF)
    save(folder, optimization, {}, keep=1)
    return first + followed(optimization, options.steps)


def resumed(folder: Path, how: str, options: PriorTrainerOptions = OPTIONS, name: str = "transformer") -> list[float]:
    """The rest of the steps from a checkpoint."""
    optimization, kept = optimized(how, options, name), newest(folder, [])
    assert kept is not None
    kept.load_state(optimization)
    return followed(optimization, options.steps)


def alone(folder: Path | None = None, options: PriorTrainerOptions = OPTIONS, name: str = "transformer") -> list[float]:
    """What one process does with the joined batch, from the start or from a checkpoint."""
    optimization = Optimization(PriorStage(prior_of(name)), options)
    if folder is not None and (kept := newest(folder, [])) is not None:
        kept.load_state(optimization)
    return followed(optimization, options.steps, scale=2)


def missed(tensor: Tensor) -> Tensor:
    """A gathered tensor in which the second rank's shard is not what it is."""
    full = WHOLE(tensor)
    if sharding.is_shard(tensor) and len(full) > 1:
        full = full.clone()
        full[-(len(full) // 2) :] = 0
    return full


def own(tensor: Tensor) -> Tensor:
    """What rank 0 has, in the place of all."""
    if not sharding.is_shard(tensor) or not tensor.dim():
        return WHOLE(tensor)
    return torch.cat([sharding.local(tensor).new_zeros(0), sharding.local(tensor)]).resize_(tensor.shape)


def of_weights(optimization: Optimization) -> dict[str, Tensor]:
    """A state in which the averages are the weights."""
    state = STATE(optimization)
    return {name: optimization.parameters.get(name.removeprefix("average."), value) for name, value in state.items()}


WHOLE, STATE = sharding.whole, Optimization.state
FAULTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "a rank's shards are missing": lambda: patch.object(gathered, "whole", missed),
    "only rank 0's shards are saved": lambda: patch.object(gathered, "whole", own),
    "the averages are not gathered": lambda: patch.object(Optimization, "state", of_weights),
}
"""What may go wrong in a checkpoint."""
STALE = "weights that were gathered for a validation stay"
EXTRA = {
    "bf16": replace(OPTIONS, precision="bf16"),
    "accumulate": replace(OPTIONS, accumulate=2, optimizer="adamw", weight_decay=0.1),
    "sgd": replace(OPTIONS, optimizer="sgd"),
}


def main(rank: int, folder: str) -> None:
    losses: dict[str, list[float]] = {}
    path = Path(folder)
    with one_of_two(rank, folder), distributed.collective_timeout(5):
        for how in ("shard", "ddp", "again"):
            losses[how] = saved(path / how, how)
        losses["shard from ddp"] = resumed(path / "ddp", "shard")
        losses["ddp from shard"] = resumed(path / "shard", "ddp")
        for name, options in EXTRA.items():
            for how in ("shard", "ddp"):
                losses[f"{name} {how}"] = saved(path / f"{name} {how}", how, options)
        losses["pixelcnn"] = saved(path / "pixelcnn", "shard", name="pixelcnn")
        for name, fault in FAULTS.items():
            with fault():
                saved(path / name, "shard")
        with patch.object(sharding, "drop_gathered", lambda module: None):
            losses[STALE] = saved(path / "stale", "shard")
    (path / f"losses-{rank}.json").write_text(json.dumps(losses))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two ranks did."""
    folder = tmp_path_factory.mktemp("two")
    run_two(__file__, folder)
    return folder


def losses_of(folder: Path, rank: int = 0) -> dict[str, list[float]]:
    losses: dict[str, list[float]] = json.loads((folder / f"losses-{rank}.json").read_text())
    return losses


def assert_close(losses: list[float], others: list[float], within: float = 1e-5) -> None:
    """Relative to the losses, which are those of 16 codes."""
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(others), rtol=within, atol=0.0)


@cache
def one() -> list[float]:
    return alone()


REST = slice(HALF + HALF // 4, None)
"""The losses from the checkpoint on."""


@pytest.mark.long
@pytest.mark.parametrize("how", ["shard", "ddp", "again"])
def test_ranks_step_as_one_process_does(two: Path, how: str) -> None:
    """Losses of twenty steps and of validations over the averages, clipped, on the joined batch."""
    assert_close(losses_of(two)[how], one())
    assert losses_of(two, 1)[how] == losses_of(two)[how]


@pytest.mark.long
def test_activations_computed_again_change_nothing(two: Path) -> None:
    assert losses_of(two)["again"] == losses_of(two)["shard"]


@pytest.mark.long
def test_checkpoints_go_both_ways(two: Path) -> None:
    """One process, ranks with whole priors and ranks with shards go on from each other's."""
    assert_close(losses_of(two)["shard from ddp"], one()[REST])
    assert_close(losses_of(two)["ddp from shard"], one()[REST])
    assert_close(alone(two / "shard"), one()[REST])


def test_a_file_that_is_written_as_it_is_gathered_is_the_same(tmp_path: Path) -> None:
    """Byte for byte; types of every width, and names of any letters."""
    tensors = {
        "weights.b": torch.randn(3, 5).T,
        "weights.a": torch.tensor(2.0),
        'é "quoted"': torch.zeros(0, 3),
        "half": torch.randn(7).bfloat16(),
        "flags": torch.tensor([True, False, True]),
        "count": torch.tensor([5, 6]),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    write_tensors(tmp_path / "plain", tensors)
    gathered.write_gathered(tmp_path / "gathered", tensors)
    assert (tmp_path / "gathered").read_bytes() == (tmp_path / "plain").read_bytes()


def test_ranks_fail_together_where_the_disk_is_full(tmp_path: Path) -> None:
    """Rank 0 says why, the other that it failed, and both have gathered every tensor."""
    taken = [0, 0]

    def counted(tensor: Tensor) -> Tensor:
        taken[distributed.rank()] += 1
        return tensor

    def write() -> str:
        try:
            gathered.write_gathered(tmp_path / "no folder" / "file", {name: torch.zeros(2) for name in "abc"})
        except (OSError, PeerError) as e:
            return type(e).__name__
        return ""

    with patch.object(gathered, "whole", counted):
        assert as_ranks([write, write]) == ["FileNotFoundError", "PeerError"]
    assert taken == [3, 3]


@pytest.mark.long
def test_a_checkpoint_has_the_same_files(two: Path) -> None:
    """Names, shapes and types are those of a prior that is not sharded."""
    files = [next((two / how).glob("step-*")) for how in ("shard", "ddp")]
    for name in ("model.safetensors", "state.safetensors"):
        sharded, plain = (read_shapes(path / name) for path in files)
        assert sharded == plain


@pytest.mark.long
@pytest.mark.parametrize("name", ["accumulate", "sgd"])
def test_other_options_shard_as_well(two: Path, name: str) -> None:
    assert_close(losses_of(two)[f"{name} shard"], losses_of(two)[f"{name} ddp"])


@pytest.mark.long
def test_bf16_is_near(two: Path) -> None:
    """Blocks round what they hand on, which autocast alone does not."""
    assert_close(losses_of(two)["bf16 shard"], losses_of(two)["bf16 ddp"], within=2e-2)
    assert losses_of(two)["bf16 shard"] != losses_of(two)["shard"]


@pytest.mark.long
def test_a_prior_without_blocks_is_sharded_as_one(two: Path) -> None:
    assert_close(losses_of(two)["pixelcnn"], alone(name="pixelcnn"))


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_checkpoint_is_caught(two: Path, fault: str) -> None:
    with pytest.raises(AssertionError):
        assert_close(alone(two / fault), one()[REST])


@pytest.mark.long
def test_stale_weights_are_caught(two: Path) -> None:
    with pytest.raises(AssertionError):
        assert_close(losses_of(two)[STALE], one())


def test_activations_are_computed_again_in_one_process() -> None:
    """Dropout, too: the same numbers, bit for bit, and fewer tensors that are kept."""
    gradients, kept = list[list[Tensor]](), list[int]()
    for again in (False, True):
        torch.manual_seed(0)
        options = {**PRIORS["transformer"].options, "dropout": 0.3}
        prior = make("prior", PartConfig("transformer", options), code_spec=CodeSpec((4,), (5,)), conditions=())
        if again:
            checkpoint_activations(prior)
        numbers = list[int]()
        with torch.autograd.graph.saved_tensors_hooks(lambda t, n=numbers: n.append(t.numel()) or t, lambda t: t):  # type: ignore[misc]
            loss = prior.loss(torch.arange(8).view(2, 1, 4) % 5, {}).sum()
        loss.backward()
        gradients.append([p.grad for p in prior.parameters()])
        kept.append(sum(numbers))
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert kept[1] < kept[0] / 2


def test_a_prior_without_blocks_computes_nothing_again() -> None:
    with pytest.raises(ToolkitError) as error:
        checkpoint_activations(prior_of("pixelcnn"))
    assert_names(str(error.value), "trainer.checkpoint_activations=true … PixelCNNPrior … leave it out")


@pytest.mark.parametrize(
    ("trainer", "prior_trainer", "stage", "words"),
    [
        ({"shard": True}, {}, "autoencoder", "trainer.shard=true … stage=autoencoder"),
        (
            {},
            {"checkpoints": "sharded"},
            "autoencoder",
            "prior_trainer.checkpoints=sharded … stage=autoencoder … leave it",
        ),
        (
            {"shard": True},
            {"compile": True},
            "all",
            "trainer.shard=true with prior_trainer.compile=True … compile=false",
        ),
        ({"shard": True}, {"graph": True}, "prior", "trainer.shard=true with prior_trainer.graph=True … graph=false"),
        ({"shard": True}, {"optimizer": "muon"}, "all", "trainer.shard=true with prior_trainer.optimizer=muon … adam"),
        ({"shard": True}, {"precision": "fp16"}, "all", "trainer.shard=true with prior_trainer.precision=fp16 … bf16"),
        (
            {"checkpoint_activations": True},
            {"graph": True},
            "all",
            "trainer.checkpoint_activations=true with prior_trainer.graph=true … choose one",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    trainer: dict[str, Any], prior_trainer: dict[str, Any], stage: str, words: str
) -> None:
    with pytest.raises(ToolkitError) as error:
        check_sharding(AutoencoderTrainerOptions(**trainer), PriorTrainerOptions(**prior_trainer), stage)
    assert_names(str(error.value), words)


@pytest.mark.parametrize("name", ["transformer", "maskgit", "scales", "delay", "random_order", "factored"])
def test_transformers_have_blocks(name: str) -> None:
    options = {"inner": {"name": "transformer", **NETWORK}} if name == "factored" else NETWORK
    prior = make("prior", PartConfig(name, options), code_spec=CodeSpec((4,), (6, 6)), conditions=())
    assert len(prior.blocks_in_order()) == NETWORK["layers"]


def in_step(size: int, batch_size: int, ranks: int) -> list[list[tuple[int, bool]]]:
    """What each rank's validation sees: numbers of batches, with whether they count."""
    options = replace(OPTIONS, batch_size=batch_size)
    staging = Staging.__new__(Staging)
    return [[(batch.number, counts) for batch, counts in taken(staging, size, options, r, ranks)] for r in range(ranks)]


def taken(staging: Staging, size: int, options: Any, rank: int, ranks: int) -> Iterator[tuple[Batch, bool]]:
    class Few(Small):
        def size(self, split: str) -> int:
            return size

    module = "toolkit.stages.staging"
    with (
        patch(f"{module}.rank", lambda: rank),
        patch(f"{module}.ranks", lambda: ranks),
        patch(f"{module}.all_gather_object", lambda value: [value]),
    ):
        yield from staging.in_step(Few(), "val", options)


@pytest.mark.parametrize("size", [1, 5, 8, 13, 24])
def test_ranks_validate_in_step(size: int) -> None:
    """As many passes on each, and every batch counted once, or, where they are fewer than ranks, once on each."""
    seen = in_step(size, 4, 3)
    assert len({len(passes) for passes in seen}) == 1
    count = -(-size // 4)
    counted = sorted(number for passes in seen for number, counts in passes if counts)
    assert counted == sorted(list(range(count)) * (1 if count >= 3 else 3))
    assert all(before[0] <= after[0] for passes in seen for before, after in pairwise(passes))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
