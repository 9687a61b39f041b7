"""What the interfaces leave open, used end to end: a critic, the optimizer's step, frozen parts, other optimizers."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import assert_catches
from safetensors.torch import load_file
from test_resume import resume, stop
from torch import Tensor, nn
from toy.toy_openings import AdversarialObjective, AnnealedQuantizer
from toys import PIXELCNN, TILES, VQ, fingerprint, metrics, trainers

import toolkit
from toolkit import DataSpec, Objective, Quantizer, ToolkitError
from toolkit.batches import TrainBatches
from toolkit.build import build_dataset, build_stage
from toolkit.cli.config.compose import compose
from toolkit.muon import Muon
from toolkit.objective import CriticLoss
from toolkit.optimization import Optimization
from toolkit.options import AutoencoderTrainerOptions
from toolkit.report import Silence
from toolkit.runs.folder import Run
from toolkit.stages.run import train
from toolkit.testing import ObjectiveSuite, QuantizerSuite
from toolkit.training import Stage, train_steps

pytestmark = pytest.mark.usefixtures("toys")
SHORT = [*TILES, *PIXELCNN, *trainers("steps=6", "batch_size=4", "workers=0", "log_every=2", "checkpoint_every=2")]
ADVERSARY = ["objective=toy_adversary", "likelihood=normal", *VQ, "stage=autoencoder"]
CRITIC = "objective.critic."


class TestAdversarialObjective(ObjectiveSuite):
    data = DataSpec(2, (6,), levels=None)

    def make(self, data: DataSpec) -> Objective:
        return AdversarialObjective(data)


class TestAnnealedQuantizer(QuantizerSuite):
    def make(self, dim: int) -> Quantizer:
        return AnnealedQuantizer(dim, codebook_size=5)


def stage_of(*words: str) -> tuple[Stage, TrainBatches, Optimization]:
    """Stage one of a configuration, ready to be trained."""
    config = compose([*SHORT, *words]).config
    torch.manual_seed(0)
    dataset = build_dataset(config)
    stage = build_stage(config, dataset.spec, None)
    batches = TrainBatches(dataset, torch.device("cpu"), batch_size=4, seed=0, workers=0)
    return stage, batches, Optimization(stage, config.trainer, stage.groups(config.trainer))


def weights(stage: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in stage.state_dict().items()}


def changed(stage: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in stage.state_dict().items() if not torch.equal(value, before[name])}


def trained(folder: Path, *words: str) -> Path:
    train(compose([*SHORT, *words]).config, folder, report=Silence())
    return folder


def newest(run: Path, file: str) -> dict[str, Tensor]:
    return load_file(max((run / "autoencoder").glob("step-*")) / f"{file}.safetensors")


def assert_continues(tmp_path: Path, *words: str) -> Path:
    """A run that is stopped after step 4 and continued ends as one that is not, bit for bit."""
    whole = trained(tmp_path / "whole", *words)
    stop([*SHORT, *words], tmp_path / "stopped", "autoencoder", 5)
    resume(tmp_path / "stopped")
    assert fingerprint(tmp_path / "stopped") == fingerprint(whole)
    assert metrics(tmp_path / "stopped") == metrics(whole)
    return whole


# -- a critic


@pytest.mark.long
def test_a_run_with_a_critic_continues_exactly(tmp_path: Path) -> None:
    words = ["trainer.critic_learning_rate=1e-3", "trainer.critic_betas=[0.5,0.9]", "trainer.critic_start=3"]
    run = assert_continues(tmp_path, *ADVERSARY, *words, "trainer.accumulate=2", "trainer.ema=0.9")
    lines = [line for line in metrics(run) if line["split"] == "train"]
    assert [line["critic_loss"] > 0 for line in lines] == [False, True, True]
    assert [line["critic_grad_norm"] > 0 for line in lines] == [False, True, True]
    state = newest(run, "state")
    assert state[f"optimizer.step.{CRITIC}0.weight"] == 3
    assert state["optimizer.step.model.encoder.out.weight"] == 6
    assert not any(name.startswith(f"average.{CRITIC}") for name in state)


def test_critic_and_generator_learn_apart() -> None:
    """Before its first step the critic stays as it is; the generator feels it all the time."""
    stage, batches, optimization = stage_of(*ADVERSARY, "trainer.critic_start=1")
    before = weights(stage)
    next(updates := train_steps(stage, batches, optimization))
    assert not any(name.startswith(CRITIC) for name in changed(stage, before))
    assert all(parameter.requires_grad for parameter in stage.parameters())
    next(updates)
    assert {f"{CRITIC}0.weight", f"{CRITIC}2.weight"} <= changed(stage, before)
    without, batches, optimization = stage_of(*ADVERSARY, "objective.weight=0")
    next(train_steps(without, batches, optimization))
    assert not torch.equal(without.model.encoder.out.weight, stage.model.encoder.out.weight)


def test_the_critic_has_options_of_its_own() -> None:
    """In Adam's first step every number moves by the learning rate, unless its gradient is far below 1e-8."""
    learning_rates = ["trainer.critic_learning_rate=0.01", "trainer.learning_rate=0.001"]
    for clip, moves in ((0.0, 0.01), (1e-12, 0.0)):
        stage, batches, optimization = stage_of(*ADVERSARY, *learning_rates, f"trainer.critic_clip={clip}")
        before = weights(stage)
        norms = next(train_steps(stage, batches, optimization))
        moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in stage.named_parameters()}
        assert moved[f"{CRITIC}2.weight"] == pytest.approx(moves, abs=1e-4)
        assert moved["model.encoder.out.weight"] == pytest.approx(0.001, rel=1e-2)
        assert norms["critic_grad_norm"] > 1e-3


class Undetached(TestAdversarialObjective):
    """Its critic's loss reaches the decoder."""

    def make(self, data: DataSpec) -> Objective:
        objective = AdversarialObjective(data)
        objective.critic_loss = lambda autoencoder, x, conditions, output: CriticLoss(
            objective._judge(output.likelihood.mean).mean(), {}
        )
        return objective


class Uncritical(TestAdversarialObjective):
    """One of its critic's parameters learns nothing."""

    def make(self, data: DataSpec) -> Objective:
        objective = AdversarialObjective(data)
        objective.critic.register_parameter("spare", nn.Parameter(torch.zeros(1)))
        return objective


@pytest.mark.parametrize("broken", [Undetached, Uncritical])
def test_a_planted_critic_is_caught(broken: type[TestAdversarialObjective]) -> None:
    assert_catches(TestAdversarialObjective(), broken(), "the critics loss trains the critic alone")


def test_a_critic_that_the_generator_trains_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.step.frozen", lambda module: nullcontext())
    with pytest.raises(AssertionError):
        test_critic_and_generator_learn_apart()


def test_a_leaking_critic_trains_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop takes the critic's gradients alone, whatever an objective forgets to detach."""
    plain, batches, optimization = stage_of(*ADVERSARY)
    next(train_steps(plain, batches, optimization))
    leaking, batches, optimization = stage_of(*ADVERSARY)

    def leak(autoencoder: Any, x: Tensor, conditions: Any, output: Any) -> CriticLoss:
        own = AdversarialObjective.critic_loss(leaking.objective, autoencoder, x, conditions, output).loss
        leak = 0 * leaking.objective.critic[0].weight.sum() + autoencoder.encoder.out.weight.square().sum()
        return CriticLoss(own + leak, {})

    monkeypatch.setattr(leaking.objective, "critic_loss", leak)
    next(train_steps(leaking, batches, optimization))
    assert torch.equal(leaking.model.encoder.out.weight, plain.model.encoder.out.weight)


# -- the step


@pytest.mark.long
def test_parts_are_told_the_step_also_where_passes_are_accumulated(tmp_path: Path) -> None:
    stage, batches, optimization = stage_of("quantizer=toy_annealed", "trainer.accumulate=3")
    for _ in train_steps(stage, batches, optimization):
        pass
    assert stage.model.quantizer.steps == [1, 2, 3, 4, 5, 6]
    assert_continues(tmp_path, "quantizer=toy_annealed", "trainer.accumulate=3", "stage=autoencoder")


class Counting(TestAnnealedQuantizer):
    """It counts how often it is told."""

    def make(self, dim: int) -> Quantizer:
        quantizer = AnnealedQuantizer(dim, codebook_size=5)
        quantizer.at_step = lambda step: quantizer.scale.mul_(0.5)
        return quantizer


def test_a_planted_count_is_caught() -> None:
    assert_catches(TestAnnealedQuantizer(), Counting(), "the step alone decides what it changes")


@pytest.mark.long
def test_a_temperature_falls_alike_however_a_step_is_divided(tmp_path: Path) -> None:
    words = ["quantizer=categorical", "quantizer.codebook_size=8", "stage=autoencoder"]
    one = trained(tmp_path / "one", *words)
    three = trained(tmp_path / "three", *words, "trainer.accumulate=3")
    assert newest(one, "model")["model.quantizer.step"] == newest(three, "model")["model.quantizer.step"] == 6


# -- frozen parts, and parts with a learning rate of their own


@pytest.mark.parametrize("part", ["encoder", "quantizer", "decoder"])
def test_a_frozen_part_stays_as_it_is(part: str) -> None:
    """Its parameters, and what it updates itself; the others learn."""
    stage, batches, optimization = stage_of("quantizer=ema", "quantizer.codebook_size=16", f"trainer.freeze=[{part}]")
    before = weights(stage)
    for _ in train_steps(stage, batches, optimization):
        pass
    learned = {name.split(".")[1] for name in changed(stage, before)}
    assert learned == {"encoder", "quantizer", "decoder"} - {part}


@pytest.mark.parametrize(("part", "fault"), [("quantizer", "train"), ("encoder", "requires_grad_")])
def test_a_planted_thaw_is_caught(part: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A codebook that learns all the same, and weights that get gradients."""
    if fault == "train":
        monkeypatch.setattr(Stage, "train", nn.Module.train)
    else:
        monkeypatch.setattr(nn.Module, "requires_grad_", lambda module, _=True: module)
    with pytest.raises(AssertionError):
        test_a_frozen_part_stays_as_it_is(part)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["encoder", "quantizer"])
def test_a_frozen_part_stays_as_it_is_compiled(part: str) -> None:
    words = ["quantizer=ema", "quantizer.codebook_size=16", f"trainer.freeze=[{part}]", "trainer.compile=true"]
    stage, batches, optimization = stage_of(*words)
    before = weights(stage)
    for _ in train_steps(stage, batches, optimization):
        pass
    assert part not in {name.split(".")[1] for name in changed(stage, before)}


@pytest.mark.long
def test_a_frozen_encoder_beside_a_slow_decoder_continues_exactly(tmp_path: Path) -> None:
    words = [*VQ, "trainer.freeze=[encoder]", "trainer.learning_rate_factors={decoder: 0.1}", "stage=autoencoder"]
    run = assert_continues(tmp_path, *words)
    assert not any("encoder" in name for name in newest(run, "state"))


def test_a_factor_multiplies_a_parts_learning_rate() -> None:
    moved = {}
    for factor in (1.0, 0.25):
        stage, batches, optimization = stage_of(*VQ, f"trainer.learning_rate_factors={{encoder: {factor}}}")
        before = weights(stage)
        next(train_steps(stage, batches, optimization))
        moved[factor] = {name: value.detach() - before[name] for name, value in stage.named_parameters()}
    for name, change in moved[1.0].items():
        scale = 0.25 if name.startswith("model.encoder.") else 1.0
        torch.testing.assert_close(moved[0.25][name], scale * change, atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate_factors": {"prior": 0.1}}, "learning_rate_factors.prior: not a part"),
        ({"learning_rate_factors": {"encoder": 0.0}}, "learning_rate_factors.encoder=0.0: must be above 0"),
        ({"critic_learning_rate": 0.0}, "critic_learning_rate=0.0: must be above 0"),
        ({"critic_betas": (0.5, 1.0)}, "critic_betas"),
        ({"floor": 1.5}, "floor=1.5: must be at most 1"),
        ({"steps": -1}, "steps=-1: must be at least 0"),
    ],
    ids=str,
)
def test_wrong_values_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolkitError, match=message):
        AutoencoderTrainerOptions(**options)


# -- no step at all


@pytest.mark.long
def test_no_step_saves_what_is_there_and_trains_a_prior_on_it(tmp_path: Path) -> None:
    """As parts with weights from elsewhere are used."""
    words = [*VQ, "quantizer.init=random", "trainer.steps=0", "prior_trainer.allow_collapsed=true"]
    run = trained(tmp_path / "run", *words)
    assert [path.name for path in (run / "autoencoder").iterdir()] == ["step-00000000"]
    assert [line["step"] for line in metrics(run) if line["stage"] == "autoencoder"] == [0]
    model = toolkit.load(run)
    assert model.sample(2).x.shape == (2, 2, 8, 8)
    again = json.loads(json.dumps(metrics(run)))
    resume(run)
    assert metrics(run) == again


def test_nothing_to_train_is_said(tmp_path: Path) -> None:
    frozen = "trainer.freeze=[encoder,quantizer,decoder,objective]"
    with pytest.raises(ToolkitError, match="steps=6: there is nothing to train"):
        trained(tmp_path / "run", *VQ, frozen, "stage=autoencoder")
    assert not (tmp_path / "run").exists()
    run = trained(tmp_path / "none", *VQ, frozen, "trainer.steps=0", "stage=autoencoder", "quantizer.init=random")
    assert (run / "autoencoder" / "step-00000000").is_dir()


# -- optimizers and schedules


@pytest.mark.long
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.few(1)
def test_a_run_under_another_optimizer_continues_exactly(tmp_path: Path, optimizer: str) -> None:
    words = [f"trainer.optimizer={optimizer}", "trainer.schedule=linear", "trainer.floor=0.1", "trainer.warmup=2"]
    encoder = ["encoder=patch", "encoder.hidden=8", "decoder=patch", "decoder.hidden=8"]
    run = assert_continues(tmp_path, *VQ, *encoder, *words, "stage=autoencoder")
    kinds = {name.split(".")[1] for name in newest(run, "state") if name.startswith("optimizer.")}
    assert kinds == (
        {"momentum_buffer"} if optimizer == "sgd" else {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"}
    )


def test_sgd_is_a_step_along_the_gradient() -> None:
    module = nn.Linear(2, 1, bias=False)
    before = module.weight.detach().clone()
    optimization = Optimization(module, AutoencoderTrainerOptions(optimizer="sgd", learning_rate=0.5, betas=(0.9, 0.9)))
    for _ in range(2):
        module.weight.grad = torch.tensor([[1.0, -2.0]])
        optimization.update()
    torch.testing.assert_close(module.weight, before - 0.5 * (1 + 1.9) * torch.tensor([[1.0, -2.0]]))


def test_muon_orthogonalizes_the_weights_of_linear_maps_alone() -> None:
    module = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Embedding(4, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimization = Optimization(module, AutoencoderTrainerOptions(optimizer="muon", learning_rate=0.1))
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimization.update()
    steps = {name: value - before[name] for name, value in module.state_dict().items()}
    singular = torch.linalg.svdvals(steps["0.weight"])
    assert singular.min() > 0.5 * singular.max()
    torch.testing.assert_close(steps["1.weight"].abs(), torch.full((4, 4), 0.1), atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (8, 8)])
def test_muon_takes_pytorchs_steps(shape: tuple[int, int]) -> None:
    """Up to what bfloat16 rounds: of a tall, a wide and a square matrix, over steps with momentum and decay."""
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    rows = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}
    own = Muon([{"params": [ours], **rows}])
    other = torch.optim.Muon([{"params": [theirs], **rows}], adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        own.step()
        other.step()
    torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0)
    assert ours.abs().mean() < 0.97, "no step, or no decay"
    torch.testing.assert_close(own.state[ours]["momentum_buffer"], other.state[theirs]["momentum_buffer"])


def test_moments_of_another_optimizer_are_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *VQ, "stage=autoencoder")
    config = Run(run).config()
    other = replace(config, trainer=replace(config.trainer, optimizer="sgd", steps=8))
    with pytest.raises(ToolkitError, match="optimizer"):
        train(other, run, report=Silence())
