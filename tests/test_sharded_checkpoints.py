"""Checkpoints of which each rank has written its part: any number of ranks, and every command, opens them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from messages import assert_names
from test_sharding import HALF, OPTIONS, alone, followed, optimized, prior_of
from torch import Tensor
from toys import SMALL, VQ, plugged_in
from two_ranks import one_of_two, run_two

import toolkit
from toolkit import __main__ as command
from toolkit import distributed
from toolkit.cli.config.compose import compose
from toolkit.errors import ToolkitError
from toolkit.hub.files import RUN
from toolkit.optimization import Optimization
from toolkit.options import AutoencoderTrainerOptions, PriorTrainerOptions
from toolkit.part_names import names_of, part_name, whole_name
from toolkit.peers import PeerError
from toolkit.runs import parts, saving
from toolkit.runs.checkpoint import FACTS, MODEL, STATE, Checkpoint, found, newest
from toolkit.runs.folder import Run
from toolkit.runs.parts import each_joined, joined_shapes
from toolkit.runs.saving import save
from toolkit.runs.tensors import each_tensor, read_shapes, write_tensors
from toolkit.sharding import is_sharded
from toolkit.stages.run import train
from toolkit.testing.ranks import as_ranks
from toolkit.training import PriorStage

TWO = [f"{stem}-0000{i}-of-00002.safetensors" for stem in ("model", "state") for i in (1, 2)]
PRIOR = ["prior=transformer", "prior.hidden=8", "prior.layers=1", "prior.heads=2", "prior.head=8"]
"""Of blocks, which are sharded."""
WORDS = [*SMALL, *VQ, *PRIOR, "trainer.ranks=2", "trainer.shard=true", "prior_trainer.allow_collapsed=true"]
SHARDED = "prior_trainer.checkpoints=sharded"


def killed_while_writing(folder: Path) -> None:
    """A second checkpoint, of which this rank writes no part: it dies."""
    optimization = optimized("shard", OPTIONS)
    kept = newest(folder, [])
    assert kept is not None
    kept.load_state(optimization)
    followed(optimization, HALF + 1)
    if distributed.rank():
        with patch.object(saving, "write_parts", lambda *_: os.kill(os.getpid(), signal.SIGKILL)):
            save(folder, optimization, {}, keep=2, whole=False)
    with pytest.raises((PeerError, ToolkitError)):
        save(folder, optimization, {}, keep=2, whole=False)
    (folder / "survived").write_text("yes")


def three(rank: int, folder: Path) -> None:
    """From what two ranks have written, by three; and from that of three."""
    with one_of_two(rank, str(folder), 3), distributed.collective_timeout(5):
        for start, to in (("sharded", "two, then three"), ("two, then three", "two, then three, then three")):
            again, kept = optimized("shard", OPTIONS), newest(folder / start, [])
            assert kept is not None
            kept.load_state(again)
            save(folder / to, again, {}, keep=1, whole=False)


def main(rank: int, folder: str, *also: str) -> None:
    """Half of the steps, saved both ways, and the rest from either; or with three ranks; or what is to be killed."""
    path, losses = Path(folder), dict[str, list[float]]()
    if also == ("three",):
        three(rank, path)
        return
    if also:
        with one_of_two(rank, folder), distributed.collective_timeout(0.5):
            killed_while_writing(path / "killed")
            os._exit(0)  # the group is broken
    with one_of_two(rank, folder), distributed.collective_timeout(5):
        optimization = optimized("shard", OPTIONS)
        losses["first"] = followed(optimization, HALF)
        for name in ("whole", "sharded", "killed"):
            save(path / name, optimization, {"note": name}, keep=1, whole=name == "whole")
        losses["rest"] = followed(optimization, OPTIONS.steps)
        for name in ("whole", "sharded"):
            again, kept = optimized("shard", OPTIONS), newest(path / name, [])
            assert kept is not None
            kept.load_state(again)
            assert is_sharded(again.module)
            save(path / f"{name}, then sharded", again, {}, keep=1, whole=False)
            losses[name] = followed(again, OPTIONS.steps)
        train(compose([*WORDS, SHARDED]).config, path / "run")
    (path / f"losses-{rank}.json").write_text(json.dumps(losses))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two ranks did."""
    folder = tmp_path_factory.mktemp("two")
    with plugged_in():
        run_two(__file__, folder)
    return folder


def opened(folder: Path) -> Checkpoint:
    checkpoint = newest(folder, [])
    assert checkpoint is not None
    return checkpoint


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All of a checkpoint but the generators' states."""
    checkpoint = opened(folder)
    read = {f"{file}: {name}": t for file in (MODEL, STATE) for name, t in checkpoint._tensors(file).items()}
    return {name: tensor for name, tensor in read.items() if "random." not in name}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def as_whole(folder: Path, to: Path) -> Path:
    """A checkpoint, loaded in one process and saved whole."""
    optimization = Optimization(PriorStage(prior_of("transformer")), OPTIONS)
    opened(folder).load_state(optimization)
    save(to, optimization, {}, keep=1)
    return to


@pytest.mark.long
def test_whole_sharded_and_whole_again_are_equal(two: Path, tmp_path: Path) -> None:
    """Bit for bit, weights, averages and moments; each is what one process has."""
    whole = tensors_of(two / "whole")
    for name in ("sharded", "whole, then sharded", "sharded, then sharded"):
        assert sorted(path.name for path in opened(two / name).path.iterdir()) == sorted([*TWO, FACTS])
        assert_equal(tensors_of(two / name), whole)
        assert_equal(tensors_of(as_whole(two / name, tmp_path / name)), whole)
    assert opened(two / "sharded").facts["note"] == "sharded"
    assert len({opened(two / name).weights_hash for name in ("sharded", "whole, then sharded")}) == 1


@pytest.mark.long
def test_three_ranks_go_on_from_two_and_one_from_three(two: Path, tmp_path: Path) -> None:
    """With the weights, averages and moments, bit for bit."""
    (two / "meeting").unlink(missing_ok=True)
    run_two(__file__, two, "three", ranks=3)
    whole = tensors_of(two / "whole")
    for name in ("two, then three", "two, then three, then three"):
        assert sum(1 for _ in opened(two / name).path.iterdir()) == 7
        assert_equal(tensors_of(two / name), whole)
        assert_equal(tensors_of(as_whole(two / name, tmp_path / name)), whole)


@pytest.mark.long
def test_ranks_go_on_from_either_as_if_nothing_had_been(two: Path) -> None:
    losses = json.loads((two / "losses-0.json").read_text())
    assert losses["whole"] == losses["sharded"] == losses["rest"]
    one = alone(two / "sharded")
    torch.testing.assert_close(torch.tensor(one), torch.tensor(losses["rest"]), rtol=1e-5, atol=0.0)


@pytest.mark.long
def test_a_part_is_half_of_the_tensors(two: Path) -> None:
    """So that what a rank writes is its own."""
    sizes = [(opened(two / "sharded").path / name).stat().st_size for name in TWO[:2]]
    assert max(sizes) < 0.75 * (opened(two / "whole").path / MODEL).stat().st_size


def rows_of(tensor: Tensor, number: int, count: int) -> Tensor:
    """What a rank has of a tensor, as torch divides it."""
    pieces = tensor.chunk(count)
    return pieces[number] if number < len(pieces) else tensor[:0]


def is_the_whole(folder: Path, count: int) -> None:
    whole = {"a": torch.randn(7, 3), "b": torch.randn(1), "c": torch.randn(2, 4).bfloat16(), "d": torch.tensor(5.0)}
    paths = [folder / part_name(MODEL, number + 1, count) for number in range(count)]
    for number, path in enumerate(paths):
        own = {name: rows_of(t, number, count) for name, t in whole.items() if t.dim()}
        write_tensors(path, own | ({} if number else {"d": whole["d"]}))
    write_tensors(folder / MODEL, whole)
    assert joined_shapes(paths) == read_shapes(folder / MODEL)
    assert_equal(dict(each_joined(paths, whole)), dict(each_tensor(folder / MODEL, whole)))
    assert names_of(MODEL, [path.name for path in reversed(paths)]) == [path.name for path in paths]
    assert {whole_name(path.name) for path in paths} == {MODEL}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_parts_is_the_whole(tmp_path: Path, count: int) -> None:
    """Rows that are not divided evenly, single ones, and what one rank alone has."""
    is_the_whole(tmp_path, count)


FAULTS: dict[str, Callable[[Any], Any]] = {
    "parts come in another order": lambda rows: rows[::-1],
    "the last part is left out": lambda rows: rows[:-1],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cat", lambda rows: CAT(FAULTS[fault](rows)))
    with pytest.raises(AssertionError):
        is_the_whole(tmp_path, 2)


CAT = torch.cat


def test_a_part_that_is_not_there_is_told() -> None:
    for there in (TWO[:1], TWO[1:2], [], ["model-00001-of-00002.safetensors", "model-00002-of-00003.safetensors"]):
        assert set(names_of(MODEL, there)) - set(there)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "another's": lambda path: shutil.copyfile(path.with_name(path.name.replace("00002-of", "00001-of")), path),
}


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_no_checkpoint(two: Path, tmp_path: Path, damage: str) -> None:
    """The one before is opened."""
    for name, step in (("whole", 1), ("sharded", 2)):
        shutil.copytree(opened(two / name).path, tmp_path / f"step-0000000{step}")
    for step in (1, 2):
        facts = tmp_path / f"step-0000000{step}" / FACTS
        values = {**json.loads(facts.read_text()), "step": step}
        values.pop("checksum")
        facts.write_text(json.dumps(values))
    assert opened(tmp_path).step == 2
    DAMAGES[damage](tmp_path / "step-00000002" / TWO[1])
    notices: list[str] = []
    checkpoint = newest(tmp_path, notices)
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert TWO[1] in notices[0]


@pytest.mark.long
def test_a_rank_that_is_killed_while_it_writes_leaves_the_former(two: Path) -> None:
    """And nothing that could be taken for a checkpoint."""
    before = tensors_of(two / "killed")
    (two / "meeting").unlink(missing_ok=True)
    with pytest.raises(AssertionError), plugged_in():
        run_two(__file__, two, "killed")
    assert (two / "killed" / "survived").read_text() == "yes"
    assert [path.name for path in found(two / "killed")] == [f"step-{HALF:08d}"]
    assert not list((two / "killed").glob(".step-*"))
    assert_equal(tensors_of(two / "killed"), before)


def test_where_a_disk_is_full_ranks_fail_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sentence on the rank whose disk it is, and nothing is left."""

    def full(path: Path, tensors: Any) -> None:
        write_tensors(path, tensors)
        if distributed.rank():
            raise OSError(28, "No space left on device")

    def saved() -> str:
        try:
            saving._write_own(tmp_path / ".step-00000003", {MODEL: {"a": torch.zeros(3)}})
        except (ToolkitError, PeerError) as e:
            return f"{type(e).__name__} {e}"
        return ""

    monkeypatch.setattr(parts, "write_tensors", full)
    first, second = as_ranks([saved, saved])
    assert first.startswith("PeerError")
    assert_names(second, "ToolkitError the checkpoint of step 3 … no space is left … kept")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_every_command_opens_it(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process; and training goes on with one rank, whose checkpoints are whole."""
    with plugged_in():
        monkeypatch.chdir(tmp_path)
        shutil.copytree(two / "run", "run")
        prior = Run(Path("run")).prior("transformer")
        assert sorted(path.name for path in found(prior)[-1].iterdir()) == sorted([*TWO, FACTS])
        assert toolkit.load("run", "cpu").prior("transformer") is not None
        for words in (
            ["sample", "run=run", "n=2"],
            ["evaluate", "run=run"],
            ["push", "run=run", "hub:somebody/mine", "license=mit", "out=pushed"],
        ):
            assert command.run(words) == 0, words
        train_on = ["run=run", "trainer.ranks=1", "trainer.shard=false", "prior_trainer.checkpoints=whole"]
        assert command.run(["train", *train_on, "prior_trainer.steps=5"]) == 0
        assert sorted(path.name for path in found(prior)[-1].iterdir()) == sorted([MODEL, STATE, FACTS])


def test_a_repository_needs_all_parts() -> None:
    names = ["config.yaml", *(f"priors/mine/step-00000003/{name}" for name in (*TWO, FACTS))]
    assert RUN.choose(names) == sorted(names)
    with pytest.raises(ToolkitError) as error:
        RUN.choose([name for name in names if "00002-of" not in name])
    assert_names(str(error.value), "it is not whole … priors/mine/step-00000003/model-00002-of-00002.safetensors")


def test_nothing_is_sharded_without_ranks_that_share(tmp_path: Path) -> None:
    from toolkit.sharding import check_sharding

    with pytest.raises(ToolkitError) as error:
        check_sharding(AutoencoderTrainerOptions(), PriorTrainerOptions(checkpoints="sharded"), "all")
    assert_names(str(error.value), "prior_trainer.checkpoints=sharded … trainer.shard=false … checkpoints=whole")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
