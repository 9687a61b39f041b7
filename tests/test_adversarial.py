"""The adversarial objective: its laws, its terms' shares, its critic, and what evaluation says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from on_stand_in import train_quietly
from test_openings import assert_continues, changed, stage_of, weights
from torch import Tensor, nn
from toys import TILES, VQ, trainers

from toolkit import DataSpec, Objective, ToolkitError, load
from toolkit.adversary import PATIENCE, CriticWatch
from toolkit.cli.config.compose import compose
from toolkit.discriminator import Discriminator
from toolkit.discriminators.patch import PatchDiscriminator
from toolkit.objectives.adversarial import AdversarialObjective
from toolkit.objectives.elbo import ELBO
from toolkit.objectives.games import GAMES
from toolkit.objectives.shares import Share, measured_at
from toolkit.objectives.vimco import VIMCO
from toolkit.options import AutoencoderTrainerOptions
from toolkit.quantizer import Quantizer
from toolkit.quantizers.categorical import CategoricalQuantizer
from toolkit.report import Silence
from toolkit.scoring import measure
from toolkit.stages.run import train
from toolkit.testing import ObjectiveSuite
from toolkit.testing.parts import point_autoencoder, random_data
from toolkit.training import train_steps

pytestmark = pytest.mark.usefixtures("toys")
LEVELS = DataSpec(2, (6,), levels=5)
FLOATS = DataSpec(2, (6,))
CRITIC = ["objective.discriminator.width=8", "objective.discriminator.layers=1"]
WORDS = ["objective=adversarial", *CRITIC, "likelihood=normal", *VQ, "stage=autoencoder"]


def adversarial(data: DataSpec, **options: Any) -> AdversarialObjective:
    """With a small critic."""
    critic: Callable[[], Any] = partial(PatchDiscriminator, data, width=8, layers=1)
    return AdversarialObjective(data, discriminator=critic, **options)


class AdversarialSuite(ObjectiveSuite):
    options: ClassVar[dict[str, Any]] = {}

    def make(self, data: DataSpec) -> Objective:
        return adversarial(data, **self.options)

    @pytest.mark.slow
    def test_it_compiles_whole(self) -> None:
        super().test_it_compiles_whole()


class TestShares(AdversarialSuite):
    data, options = FLOATS, {"feature_share": 0.2, "r1": 1.0, "lecam": 0.001, "ramp": 4}


class TestSharesOfLogits(AdversarialSuite):
    """The likelihood's mean is no part of its log_prob."""

    options: ClassVar = {"loss": "non_saturating"}


class TestAdaptive(AdversarialSuite):
    data, options = FLOATS, {"balance": "adaptive", "loss": "least_squares"}


class TestWeight(AdversarialSuite):
    options: ClassVar = {"balance": "weight", "weight": 0.1}


class TestWeights(AdversarialSuite):
    """As they are published."""

    data, options = FLOATS, {"balance": "weight", "weight": 2.0, "feature_weight": 2.0, "loss": "least_squares"}


class TestAroundVIMCO(AdversarialSuite):
    options: ClassVar = {"inner": partial(VIMCO, samples=2)}

    def quantizer(self) -> Quantizer:
        return CategoricalQuantizer(4, codebook_size=3)


# -- shares


@pytest.mark.parametrize(
    ("data", "options", "steps"),
    [
        pytest.param(LEVELS, {"loss": "least_squares"}, 40, marks=pytest.mark.long),
        pytest.param(FLOATS, {"feature_share": 0.2}, 200, marks=pytest.mark.slow),
        pytest.param(LEVELS, {"loss": "least_squares"}, 200, marks=pytest.mark.slow),
        pytest.param(LEVELS, {"inner": partial(VIMCO, samples=2)}, 200, marks=pytest.mark.slow),
    ],
    ids=["few steps", "elbo", "logits", "vimco"],
)
def test_the_share_that_is_asked_is_the_share_that_is_measured(
    data: DataSpec, options: dict[str, Any], steps: int
) -> None:
    """As the mean over steps, while all learn."""
    quantizer = CategoricalQuantizer(4, codebook_size=3) if "inner" in options else None
    autoencoder, objective = point_autoencoder(data, quantizer=quantizer), adversarial(data, share=0.3, **options)
    both = [nn.ParameterList(autoencoder.parameters()), objective.critic]
    optimizers, seen = [torch.optim.Adam(part.parameters(), 1e-2) for part in both], []
    for step in range(steps):
        output = objective(autoencoder, x := random_data(data, 8, seed=step), {})
        seen.append([output.terms["adversarial_share"], output.terms.get("features_share", torch.tensor(0.2))])
        gradients = torch.autograd.grad(output.loss, list(autoencoder.parameters()), retain_graph=True)
        loss = objective.critic_loss(autoencoder, x, {}, output).loss
        of_critic = torch.autograd.grad(loss, list(objective.critic.parameters()))
        for part, of_part, optimizer in zip(both, (gradients, of_critic), optimizers, strict=True):
            for parameter, gradient in zip(part.parameters(), of_part, strict=True):
                parameter.grad = gradient
            optimizer.step()
    means = torch.tensor(seen).mean(0).tolist()
    assert means == pytest.approx([0.3, 0.2], abs=0.05)


def shares(steps: int, *words: str) -> dict[str, float]:
    """The means of the terms' shares over a training."""
    stage, batches, optimization = stage_of(*WORDS, "trainer.learning_rate=1e-3", f"trainer.steps={steps}", *words)
    lines = list(train_steps(stage, batches, optimization))
    return {name: sum(float(line[name]) for line in lines) / steps for name in lines[0] if name.endswith("_share")}


@pytest.mark.parametrize(
    "words",
    [
        ["objective.loss=hinge", "objective.feature_share=0.2"],
        ["objective.loss=least_squares", "likelihood=categorical", "objective.discriminator=unet"],
        ["objective.loss=non_saturating", "objective.inner=vimco", "quantizer=categorical", "likelihood=logistic"],
    ],
    ids=["elbo", "logits", "vimco"],
)
@pytest.mark.slow
def test_the_share_that_is_asked_is_the_share_that_is_measured_in_a_run(words: list[str]) -> None:
    measured = shares(200, "objective.share=0.3", *words)
    assert measured.pop("adversarial_share") == pytest.approx(0.3, abs=0.05)
    assert not measured or measured["features_share"] == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("data", [FLOATS, LEVELS], ids=["normal", "categorical"])
def test_a_share_is_of_the_gradient(data: DataSpec) -> None:
    """By its definition: the norms of each part's gradient at the likelihood's parameters, as autograd gives them."""
    autoencoder, x = point_autoencoder(data).double(), random_data(data, 6)
    x = x.double() if data.levels is None else x
    objective = adversarial(data, share=0.25).double().train()
    output = objective(autoencoder, x, {})
    at = measured_at(output.likelihood)
    (whole,) = torch.autograd.grad(output.loss, at, retain_graph=True)
    (inner,) = torch.autograd.grad(-output.likelihood.log_prob(x).mean(), at)
    norms = [gradient.flatten(1).norm(dim=1).mean() for gradient in (inner, whole - inner)]
    assert norms[1] / (norms[0] + norms[1]) == pytest.approx(0.25, abs=1e-6)
    assert output.terms["adversarial_share"].item() == pytest.approx(0.25, abs=1e-6)
    assert output.loss.item() == pytest.approx(
        ELBO()(autoencoder, x, {}).loss.item()
        + (output.terms["adversarial"] * output.terms["adversarial_weight"]).item()
    )


def test_a_term_without_a_gradient_gets_no_weight_beyond_its_share_when_it_has_one() -> None:
    share, at = Share(0.5).train(), torch.randn(4, 3, requires_grad=True)
    for _ in range(3):
        nothing = share(at.square().sum(1).mean(), 0 * at.sum(), at)
        assert nothing.weight == 0
    risen = share(at.square().sum(1).mean(), at.sum(1).mean(), at)
    assert risen.share.item() == pytest.approx(0.5)


def test_what_is_not_finite_is_not_remembered() -> None:
    share, at = Share(0.5).train(), torch.randn(4, 3, requires_grad=True)
    share(at.square().sum(1).mean(), at.sum(1).mean(), at)
    for infinite in (at * torch.inf, at / 0):
        assert not share(at.square().sum(1).mean(), infinite.sum(1).mean(), at).loss.isfinite()
        assert share.latest.isfinite()
    good = share(at.square().sum(1).mean(), at.sum(1).mean(), at)
    assert good.share.item() == pytest.approx(0.5)
    with torch.no_grad():
        assert share(at.square().sum(), at.sum(), at).weight == good.weight


def test_vqgans_weight_is_the_ratio_at_the_last_layer() -> None:
    autoencoder, x = point_autoencoder(FLOATS).double(), random_data(FLOATS, 6).double()
    objective = adversarial(FLOATS, balance="adaptive", weight=0.8).double().train()
    terms, last = objective(autoencoder, x, {}).terms, autoencoder.decoder.linear.weight
    inner = ELBO()(autoencoder, x, {})
    (of_inner,) = torch.autograd.grad(inner.loss, last, retain_graph=True)
    logits = objective.critic(inner.likelihood.mean, {})[0].logits
    (of_term,) = torch.autograd.grad(-logits.mean(), last)
    wanted = 0.8 * of_inner.norm() / (of_term.norm() + 1e-4)
    assert terms["adversarial_weight"].item() == pytest.approx(wanted.item(), rel=1e-6)


def test_features_by_weight_are_a_sum_over_layers() -> None:
    """HiFi-GAN's equation: the mean absolute difference of each layer's features, times the weight."""
    autoencoder, x = point_autoencoder(FLOATS).double(), random_data(FLOATS, 6).double()
    plain, weighed = (adversarial(FLOATS, feature_weight=w, share=0).double().train() for w in (0.0, 2.0))
    weighed.load_state_dict(plain.state_dict())
    without, output = plain(autoencoder, x, {}), weighed(autoencoder, x, {})
    fake, real = (plain.critic(values, {})[0].features for values in (output.likelihood.mean, x))
    wanted = sum((one - other).abs().mean().item() for one, other in zip(fake, real, strict=True))
    assert output.terms["features"].item() == pytest.approx(wanted)
    assert (output.loss - without.loss).item() == pytest.approx(2 * wanted)
    assert 0 < output.terms["features_share"] < 1
    with pytest.raises(ValueError, match=r"feature_weight=2\.0: .* feature_share=0\.1"):
        adversarial(FLOATS, feature_weight=2.0, feature_share=0.1)


@pytest.mark.long
def test_vqgans_weight_needs_a_decoder_that_learns() -> None:
    updates = train_steps(*stage_of(*WORDS, "objective.balance=adaptive", "trainer.freeze=[decoder]"))
    with pytest.raises(ToolkitError, match=r"balance=adaptive .* choose balance=share"):
        next(updates)


@pytest.mark.long
def test_the_generator_follows_from_its_step_on() -> None:
    stage, batches, optimization = stage_of(*WORDS, "objective.start=2", "objective.ramp=2")
    torch.manual_seed(0)
    lines = list(train_steps(stage, batches, optimization))
    assert [float(line["adversarial_share"]) > 0 for line in lines] == [False, False, True, True, True, True]
    assert lines[2]["adversarial_share"] < lines[3]["adversarial_share"]
    assert all(float(line["critic_grad_norm"]) > 0 for line in lines)
    plain, batches, optimization = stage_of(*WORDS[1 + len(CRITIC) :], "objective=elbo")
    torch.manual_seed(0)
    updates = train_steps(plain, batches, optimization)
    for _, line in zip(range(3), lines, strict=False):
        assert next(updates)["nll"] == line["nll"]
    assert next(updates)["nll"] != lines[3]["nll"]


# -- the critic


def test_games_are_those_of_the_papers() -> None:
    logits = torch.linspace(-1, 1, 13, dtype=torch.float64, requires_grad=True)
    for name, game in GAMES.items():
        assert (torch.autograd.grad(game.real(logits).sum(), logits)[0] <= 0).all(), name
        assert (torch.autograd.grad(game.fake(logits).sum(), logits)[0][6:] >= 0).all(), name
        assert (torch.autograd.grad(game.generator(logits).sum(), logits)[0][:7] < 0).all(), name
    torch.testing.assert_close(GAMES["non_saturating"].real(logits), -logits.sigmoid().log())


def test_r1_is_the_squared_slope_at_data() -> None:
    autoencoder, x = point_autoencoder(FLOATS).double(), random_data(FLOATS, 4).double()
    plain, penalized = (adversarial(FLOATS, r1=r1).double() for r1 in (0.0, 3.0))
    penalized.load_state_dict(plain.state_dict())
    output = plain(autoencoder, x, {})
    given = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(plain.critic(given, {})[0].logits.flatten(1).mean(1).sum(), given)
    wanted = slope.square().flatten(1).sum(1).mean().item()
    losses = [objective.critic_loss(autoencoder, x, {}, output) for objective in (plain, penalized)]
    assert losses[1].metrics["critic_r1"].item() == pytest.approx(wanted)
    assert (losses[1].loss - losses[0].loss).item() == pytest.approx(1.5 * wanted)


def test_lecam_remembers_the_other_side() -> None:
    autoencoder, x = point_autoencoder(FLOATS).double(), random_data(FLOATS, 4).double()
    objective = adversarial(FLOATS, lecam=1.0).double().train()
    output = objective(autoencoder, x, {})
    real = objective.critic(x, {})[0].logits
    fake = objective.critic(output.likelihood.mean, {})[0].logits
    wanted = (real - fake.mean()).relu().square().mean() + (real.mean() - fake).relu().square().mean()
    loss = objective.critic_loss(autoencoder, x, {}, output)
    assert loss.metrics["critic_lecam"].item() == pytest.approx(wanted.item())
    torch.testing.assert_close(objective.lecam.means, torch.stack([real.mean(), fake.mean()]))


def learns_to_tell(objective: AdversarialObjective) -> float:
    """The critic's accuracy after some steps against a generator that stands still."""
    autoencoder, x = point_autoencoder(FLOATS).eval(), random_data(FLOATS, 32)
    optimizer = torch.optim.Adam(objective.critic.parameters(), 0.01)
    for _ in range(40):
        output = objective(autoencoder, x, {})
        loss, metrics = objective.critic_loss(autoencoder, x, {}, output)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(metrics["critic_real_accuracy"] + metrics["critic_fake_accuracy"]) / 2


@pytest.mark.parametrize("loss", GAMES)
@pytest.mark.few(1)
def test_the_critic_learns_to_tell(loss: str) -> None:
    assert learns_to_tell(adversarial(FLOATS, loss=loss)) > 0.9


@pytest.mark.parametrize("loss", GAMES)
@pytest.mark.few(1)
def test_the_generator_learns_to_pass(loss: str) -> None:
    """The logits of reconstructions rise under the adversarial term alone."""
    autoencoder, x = point_autoencoder(FLOATS), random_data(FLOATS, 32)
    objective = adversarial(FLOATS, loss=loss, share=0.99)
    optimizer, logits = torch.optim.Adam(autoencoder.decoder.parameters(), 0.01), []
    for _ in range(30):
        output = objective(autoencoder, x, {})
        logits.append(objective.critic(output.likelihood.mean, {})[0].logits.mean().item())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert logits[-1] > logits[0] + 0.02


class Dead(Discriminator):
    """Its logits depend on nothing."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        self.inside = PatchDiscriminator(data, width=8, layers=1)

    def forward(self, x: Tensor, conditions: Any) -> Any:
        return [one._replace(logits=0 * one.logits) for one in self.inside(x, conditions)]


def test_a_dead_critic_is_caught() -> None:
    objective = AdversarialObjective(FLOATS, discriminator=lambda: Dead(FLOATS))
    with pytest.raises(AssertionError):
        assert learns_to_tell(objective) > 0.9


def test_a_critic_with_the_generators_gradient_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns to take reconstructions for data."""
    swapped = GAMES["hinge"]._replace(fake=GAMES["hinge"].generator, real=lambda t: t)
    monkeypatch.setitem(GAMES, "hinge", swapped)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        test_the_critic_learns_to_tell("hinge")


def test_a_generator_with_the_critics_gradient_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns to be told from data."""
    monkeypatch.setitem(GAMES, "hinge", GAMES["hinge"]._replace(generator=GAMES["hinge"].fake))  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        test_the_generator_learns_to_pass("hinge")


def line(real: float, fake: float, norm: float = 1.0) -> dict[str, float]:
    return {"critic_real_accuracy": real, "critic_fake_accuracy": fake, "critic_grad_norm": norm}


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (line(0.99, 1.0), ["wins", "trainer.critic_learning_rate=0.00025", "objective.r1"]),
        (line(1.0, 1.0, norm=0.0), ["wins"]),
        (line(0.9, 0.1), ["loses", "trainer.critic_learning_rate=0.004", "objective.start"]),
        (line(0.9, 0.6, norm=0.0), ["does not move", "objective.loss"]),
    ],
)
def test_a_critic_of_no_use_is_noted_once(seen: dict[str, float], words: list[str]) -> None:
    watch = CriticWatch(AutoencoderTrainerOptions(learning_rate=1e-3))
    assert watch(PATIENCE - 1, seen) is None
    assert watch(1, line(0.8, 0.7)) is None
    assert watch(PATIENCE - 1, seen) is None
    text = watch(1, seen)
    assert text is not None
    assert all(word in text for word in words), text
    assert watch(PATIENCE, seen) is None


@pytest.mark.parametrize("seen", [{}, {"loss": 1.0}, line(0.7, 0.8)])
def test_all_else_is_not_noted(seen: dict[str, float]) -> None:
    assert CriticWatch(AutoencoderTrainerOptions())(10 * PATIENCE, seen) is None


class Heard(Silence):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.long
def test_a_training_notes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.adversary.PATIENCE", 4)
    heard, words = Heard(), [*trainers("steps=6", "batch_size=4", "workers=0", "log_every=2")]
    never = "trainer.critic_learning_rate=1e-30"
    train(compose([*TILES, *WORDS, *words, never]).config, tmp_path, report=heard)
    assert [note for note in heard.notes if "the critic" in note and "trainer.critic_learning_rate" in note]


# -- in a run


@pytest.mark.long
def test_a_run_continues_exactly(tmp_path: Path) -> None:
    """Both optimizers, the latest weights, and the averages of the critic's logits."""
    words = ["objective.feature_share=0.1", "objective.r1=1", "objective.lecam=0.01", "objective.ramp=3"]
    words += ["objective.discriminator.norm=spectral"]
    run = assert_continues(tmp_path, *WORDS, *words)
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    wanted = {"critic_loss", "critic_real_accuracy", "critic_fake_accuracy", "adversarial", "adversarial_share"}
    assert wanted | {"features_share", "critic_r1", "critic_lecam"} <= set(lines[0])


@pytest.mark.slow
def test_no_step_waits_for_a_device(tmp_path: Path) -> None:
    words = [*TILES, *WORDS, "objective.feature_share=0.1", "objective.lecam=0.01", "objective.r1=1"]
    train_quietly([*words, *trainers("batch_size=4", "workers=0")], tmp_path, steps=4, stages=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["trainer.precision=bf16"], ["trainer.precision=fp16"], ["trainer.compile=true"], ["trainer.accumulate=2"]],
    ids=["bf16", "fp16", "compile", "accumulate"],
)
def test_it_trains(words: list[str]) -> None:
    stage, batches, optimization = stage_of(*WORDS, "objective.feature_share=0.1", *words)
    before = weights(stage)
    lines = list(train_steps(stage, batches, optimization))
    assert all(value.isfinite() for line in lines for value in line.values())
    assert sum(float(line["adversarial_share"]) for line in lines) / 6 == pytest.approx(0.3, abs=0.1)
    assert any(name.startswith("objective.critic") for name in changed(stage, before))


def test_the_bound_is_the_inner_objectives(tmp_path: Path) -> None:
    """And evaluation says what else was trained for."""
    words = [*TILES, *WORDS, *trainers("steps=2", "batch_size=4", "workers=0")]
    train(compose(words).config, tmp_path / "run")
    model = load(tmp_path / "run")
    with_critic = measure(model, model.dataset, [], "test")
    assert any("an adversary" in note and "bits" in note for note in with_critic.notices)
    alone = load(tmp_path / "run")
    object.__setattr__(alone, "objective", ELBO())
    without = measure(alone, alone.dataset, [], "test")
    assert without.metrics == with_critic.metrics
    assert not any("an adversary" in note for note in without.notices)


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["decoder=pixelcnn", "likelihood=null"], "judges the likelihood's mean"),
        (["trainer.critic_start=3"], "trainer.critic_start=3: take objective.start"),
        (["objective.inner=adversarial"], "has a critic, which learns only in the outermost"),
        (["objective.share=1"], "objective.share=1"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ToolkitError, match=said):
        stage_of(*WORDS, *words)


def test_a_mean_beside_the_log_prob_is_refused() -> None:
    """What a distribution says that it was given is another tensor."""
    autoencoder, x = point_autoencoder(FLOATS), random_data(FLOATS, 2)
    decode = autoencoder.decode

    def apart(z: Tensor, conditions: Any) -> Any:
        distribution = decode(z, conditions)
        distribution.given = distribution.mean * 1.0
        return distribution

    autoencoder.decode = apart  # type: ignore[method-assign]
    with pytest.raises(ToolkitError, match="no part of the computation of its log_prob"):
        adversarial(FLOATS)(autoencoder, x, {})
