"""Many ranks train as one does: the same steps on the joined batch, one folder, one log, no rank left behind.

The laws of a step run in two processes that are started once, of this very file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file
from sounds import Sounds, model
from torch import Tensor, nn
from toys import TOY
from two_ranks import Codes, one_of_two, run_two

import toolkit
from toolkit import critic, distributed
from toolkit.batches import TrainBatches
from toolkit.build import build_autoencoder, build_dataset, build_objective, build_prior
from toolkit.cli.config.compose import compose
from toolkit.config import RunConfig
from toolkit.objectives.elbo import ELBO
from toolkit.optimization import Optimization
from toolkit.peers import PeerError, is_peer_failure
from toolkit.running_metrics import RunningMetrics
from toolkit.spec import CodeSpec
from toolkit.training import PriorStage, Stage, train_steps

MODEL = "dataset=toy_tiles encoder=toy_conv decoder=toy_conv likelihood=categorical dim=4 conditions.decoder=[kind]"
PRIOR = "prior=pixelcnn prior.hidden=8 prior.layers=2 prior.head=8 prior_trainer.allow_collapsed=true"
TRAINER = "trainer.batch_size=8 trainer.steps=24 trainer.learning_rate=1e-3 prior_trainer.batch_size=8"
EMA = "quantizer=ema quantizer.codebook_size=24 quantizer.dead_code_threshold=0.5 quantizer.decay=0.9"
CASES = {
    "vq": "quantizer=vq quantizer.codebook_size=16",
    "ema": EMA,
    "accumulate": f"{EMA} trainer.accumulate=3 trainer.steps=15 trainer.clip=1.0 trainer.ema=0.9",
    "odd": f"{EMA} trainer.batch_size=5",
    "critic": "quantizer=vq objective=toy_adversary trainer.steps=8 trainer.critic_start=2 trainer.accumulate=2",
    "adversarial": "quantizer=vq objective=adversarial objective.discriminator.width=8 objective.discriminator.layers=1"
    " objective.discriminator.norm=spectral objective.feature_share=0.2 objective.lecam=0.01 objective.r1=1"
    " trainer.steps=8 trainer.accumulate=2",
    "unequal": f"{EMA} trainer.batch_size=5 trainer.steps=8",
    "frozen": f"{EMA} trainer.freeze=[quantizer,decoder] trainer.steps=8",
    "prior": "quantizer=vq prior_trainer.steps=15 prior.condition_dropout=0",
}
"""What one rank must do just so with the joined batches."""
NOISY = {"nvil": "quantizer=categorical quantizer.codebook_size=8 objective=nvil"}
"""What draws numbers of its own on each rank: only that all ranks stay alike."""
SHORT = {"few vq": f"{CASES['vq']} trainer.steps=8", "few ema": f"{EMA} trainer.steps=8"}
"""In which faults are planted."""
FEW = {"statistics": "few ema", "critic": "critic"}
"""In which of them, by a word of the fault."""
QUICK = ("ema", "critic")
"""What also the default lane trains."""


@cache
def config_of(case: str) -> RunConfig:
    words = f"{MODEL} {PRIOR} {TRAINER} {(CASES | NOISY | SHORT)[case]}"
    return compose(words.split()).config


def sized(examples: Any, size: int) -> Any:
    """The same examples, but so many of them."""
    type(examples).examples = {**type(examples).examples, "train": size}
    return examples


def trained(case: str, scale: int = 1) -> dict[str, Tensor]:
    """Everything that a stage's steps left: weights, tables, counts, moments, averages."""
    torch.manual_seed(0)
    config = config_of(case)
    options = config.prior_trainer if case == "prior" else config.trainer
    options = replace(options, batch_size=options.batch_size * scale)
    module: Any
    examples: Any
    dataset = sized(build_dataset(config), 37 if case == "odd" else 48)
    if case == "unequal":
        module, examples = Stage(ELBO(), model(begun=False)), Sounds(37)
    elif case == "prior":
        module = PriorStage(build_prior(config, CodeSpec((4, 4), (16,)), dataset.spec))
        examples = Codes()
    else:
        autoencoder = build_autoencoder(config, dataset.spec)
        module = Stage(build_objective(config, autoencoder), autoencoder, options.freeze)
        examples = dataset
    distributed.seed_noise(0)
    optimization = Optimization(module, options, module.groups(options) if case != "prior" else ())
    batches = TrainBatches(
        examples,
        torch.device("cpu"),
        batch_size=options.batch_size,
        seed=0,
        workers=0,
        rank=distributed.rank(),
        ranks=distributed.ranks(),
    )
    for _ in train_steps(module, batches, optimization):
        pass
    return {**module.state_dict(), **optimization.state()}


def metrics() -> dict[str, Tensor]:
    """Of two steps, of which the second breaks on rank 1."""
    running = RunningMetrics()
    running.add(1, {"loss": torch.tensor(1.0 + distributed.rank())})
    running.average()
    good = running.state()["of.loss"]
    running.add(2, {"loss": torch.tensor(float("nan") if distributed.rank() else 1.0)})
    running.average()
    return {"mean": good, "first_bad": running._first_bad.clone()}


def agreement() -> dict[str, Tensor]:
    """What each rank raised: where rank 1 fails, where both do, and where nobody does."""
    raised = []
    for failing in ({1}, {0, 1}, {0}, set[int]()):
        try:
            with distributed.raise_together():
                if distributed.rank() in failing:
                    raise ValueError
            raised.append(0)
        except ValueError:
            raised.append(1)
        except PeerError:
            raised.append(2)
    return {"raised": torch.tensor(raised)}


def faults() -> dict[str, tuple[Callable[[], dict[str, Tensor]], Any]]:
    """What may go wrong between ranks: a case that shows it, and the patch that makes it so."""
    return {
        "statistics are each rank's own": (partial(trained, "few ema"), patch("torch.distributed.all_reduce", nothing)),
        "gradients are each rank's own": (
            partial(trained, "few vq"),
            patch("torch.nn.parallel.DistributedDataParallel", lambda module, **_: module),
        ),
        "all ranks take the same examples": (
            partial(trained, "few vq"),
            patch.object(distributed, "rank", lambda: 0),
        ),
        "ranks begin with other entries": (partial(trained, "few vq"), patch("torch.distributed.broadcast", nothing)),
        "each rank's critic learns alone": (
            partial(trained, "critic"),
            patch.object(critic, "all_reduce_mean", nothing),
        ),
        "figures are each rank's own": (metrics, patch.object(RunningMetrics, "average", nothing)),
        "a rank fails unnoticed": (agreement, patch.object(distributed, "raise_together", nullcontext)),
    }


def nothing(*_: Any, **__: Any) -> None:
    """In a collective's place."""


def main(rank: int, folder: str, what: str) -> None:
    with one_of_two(rank, folder):
        if what == "rest":
            made = {case: trained(case) for case in CASES | NOISY if case not in QUICK}
        else:
            made = {case: trained(case) for case in QUICK} | {"metrics": metrics(), "agreement": agreement()}
            for name, (act, fault) in faults().items():
                with fault:
                    made[name] = act()
    for name, tensors in made.items():
        save_file({k: v.contiguous() for k, v in tensors.items()}, f"{folder}/{name}-{rank}.safetensors")


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", str(TOY))


def _by_two(folder: Path, what: str) -> Callable[[str], list[dict[str, Tensor]]]:
    run_two(__file__, folder, what)
    return lambda name: [load_file(folder / f"{name}-{rank}.safetensors") for rank in range(2)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Tensor]]]:
    """What two ranks made, by name."""
    return _by_two(tmp_path_factory.mktemp("two"), "quick")


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[dict[str, Tensor]]]:
    """What two ranks made of the cases that are not quick."""
    return _by_two(tmp_path_factory.mktemp("rest"), "rest")


def assert_as_one(made: dict[str, Tensor], one: dict[str, Tensor]) -> None:
    """What two ranks made is what one makes of the joined batch."""
    for name, value in made.items():
        torch.testing.assert_close(value, one[name], atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


def assert_alike(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("case", QUICK)
def test_two_ranks_step_as_one_does_on_the_joined_batch(two: Callable[..., Any], case: str) -> None:
    """Weights, tables, counts, moments, averages."""
    assert_as_one(two(case)[0], trained(case, scale=2))


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES if case not in QUICK])
def test_so_they_do_in_every_case(rest: Callable[..., Any], case: str) -> None:
    """With gradients to the entries, accumulation, frozen parts, sizes that divide nothing, and unequal lengths."""
    assert_as_one(rest(case)[0], trained(case, scale=2))


@pytest.mark.parametrize("case", QUICK)
def test_ranks_stay_alike(two: Callable[..., Any], case: str) -> None:
    """Bit for bit, though each rank sees other data."""
    assert_alike(*two(case))


@pytest.mark.long
@pytest.mark.parametrize("case", [case for case in CASES | NOISY if case not in QUICK])
def test_they_stay_alike_in_every_case(rest: Callable[..., Any], case: str) -> None:
    """An objective's own parameters, too."""
    assert_alike(*rest(case))


@pytest.mark.long
def test_an_objectives_parameters_are_trained(rest: Callable[..., Any]) -> None:
    assert any(name.startswith("optimizer.exp_avg.objective.") for name in rest("nvil")[0])


@pytest.mark.long
def test_frozen_parts_stay_as_they_are_on_every_rank(rest: Callable[..., Any]) -> None:
    config = config_of("frozen")
    torch.manual_seed(0)
    before = build_autoencoder(config, build_dataset(config).spec).state_dict()
    for made in rest("frozen"):
        moved = {name for name in before if not torch.equal(made[f"model.{name}"], before[name])}
        assert {name.partition(".")[0] for name in moved} == {"encoder"}


def assert_means(*ranks: dict[str, Tensor]) -> None:
    for made in ranks:
        assert made["mean"] == 1.5
        assert made["first_bad"].tolist() == [2]


def assert_agreement(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """1 is a rank's own error, 2 says that another rank's is told."""
    assert first["raised"].tolist() == [2, 1, 1, 0]
    assert second["raised"].tolist() == [1, 2, 2, 0]


def test_figures_are_means_over_ranks(two: Callable[..., Any]) -> None:
    assert_means(*two("metrics"))


def test_all_come_through_or_none_does(two: Callable[..., Any]) -> None:
    assert_agreement(*two("agreement"))


@pytest.mark.parametrize("fault", faults())
def test_a_planted_fault_is_caught(two: Callable[..., Any], fault: str) -> None:
    def check() -> None:
        if "metrics" in fault:
            assert_means(*two(fault))
        elif "unnoticed" in fault:
            assert_agreement(*two(fault))
        else:
            assert_alike(*two(fault))
            case = next((case for word, case in FEW.items() if word in fault), "few vq")
            assert_as_one(two(fault)[0], trained(case, scale=2))

    with pytest.raises(AssertionError):
        check()


def test_a_collective_that_fails_says_that_a_peer_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    for name, call in {
        "all_reduce": lambda: distributed.all_reduce_sum(torch.zeros(1)),
        "broadcast": lambda: distributed.broadcast(torch.zeros(1)),
        "all_gather": lambda: distributed.all_gather(torch.zeros(1)),
    }.items():
        monkeypatch.setattr(torch.distributed, name, closed)
        with pytest.raises(PeerError) as error:
            call()
        assert is_peer_failure(error.value)


def test_a_killed_loading_process_is_this_ranks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler that raises it runs wherever the rank is, also in a collective."""

    def killed(*_: object, **__: object) -> None:
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")

    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", killed)
    with pytest.raises(RuntimeError, match="DataLoader worker") as error:
        distributed.all_reduce_sum(torch.zeros(1))
    assert not is_peer_failure(error.value)


@pytest.mark.parametrize(("text", "peer"), [("[/src/gloo/tcp/pair.cc:1] closed", True), ("shapes 2 and 3", False)])
def test_a_parts_own_error_in_a_pass_stays_its_own(text: str, peer: bool) -> None:
    with (
        pytest.raises(PeerError if peer else RuntimeError) as error,
        distributed.no_sync(nn.Linear(1, 1), True),
    ):
        raise RuntimeError(text)
    assert is_peer_failure(error.value) == peer


def test_ranks_do_not_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "ranks", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        toolkit.ToolkitError, match=r"ranks=4: every rank on device=cuda takes a GPU of its own.* has 2"
    ):
        distributed.check_device(torch.device("cuda"))
    distributed.check_device(torch.device("cpu"))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
