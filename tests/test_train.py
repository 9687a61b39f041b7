"""What training promises beside its loops: figures, switches, stops, and what a run is judged by."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from math import log
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys import SMALL, VQ, weights

import toolkit
from toolkit import ToolkitError, registry
from toolkit import __main__ as command
from toolkit.cli.config.compose import compose
from toolkit.optimization import Optimization
from toolkit.options import AutoencoderTrainerOptions
from toolkit.runs.folder import Run
from toolkit.stages.recorder import CLOCKED
from toolkit.stages.run import train

pytestmark = pytest.mark.usefixtures("toys")


def test_the_run_folder(toy_run: Path) -> None:
    run = Run(toy_run)
    assert {p.name for p in run.path.iterdir()} == {
        "config.yaml",
        "components.json",
        "spec.json",
        "autoencoder",
        "priors",
        "codes",
        "samples",
        "metrics.jsonl",
        "log.txt",
    }
    parts = json.loads((run.path / "components.json").read_text())
    kinds = {"dataset", "encoder", "quantizer", "decoder", "likelihood", "objective", "prior"}
    assert set(parts) == kinds | {"metric.codebook", "metric.reconstruction"}
    assert parts["quantizer"] == {
        "name": "vq",
        "distribution": "discrete-toolkit",
        "version": toolkit.__version__,
        "parameters": 64,
    }
    assert parts["encoder"]["distribution"] == "toy-plugin"
    assert [p.name for p in sorted(run.autoencoder.iterdir())] == ["step-00000003", "step-00000006"]


@pytest.mark.long
def test_the_logs_figures(train_toy: Callable[..., Run]) -> None:
    lines = list(train_toy("likelihood=normal", "stage=autoencoder").log)
    logged = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in logged] == [2, 4, 6]
    names = {
        "stage",
        "split",
        "step",
        "loss",
        "nll",
        "kl",
        "quantizer",
        "quantization_error",
        "batch_perplexity",
        "batch_usage",
        "mse",
        "nmse",
    }
    assert set(logged[0]) == names | {"grad_norm", "learning_rate", "total_steps", *CLOCKED}
    assert all(line["learning_rate"] == 3e-4 and line["total_steps"] == 6 for line in logged)
    for line in logged:
        assert line["examples_per_second"] == pytest.approx(4 * line["steps_per_second"])
        assert line["positions_per_second"] == pytest.approx(64 * line["examples_per_second"])
        assert 0 < line["peak_memory_gib"] < 100
    assert logged[0]["seconds_left"] > logged[-1]["seconds_left"] == 0
    assert {"nll", "usage", "perplexity", "mse", "psnr", "nmse"} <= set(lines[-1])


def test_bf16_keeps_weights_and_codebook_in_fp32(train_toy: Callable[..., Run]) -> None:
    made = weights(train_toy("trainer.precision=bf16", "stage=autoencoder"))
    assert {t.dtype for t in made.values() if t.is_floating_point()} == {torch.float32}
    assert all(t.isfinite().all() for t in made.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::torch")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "quantizer",
    [
        "vq quantizer.init=random",
        "ema quantizer.init=random quantizer.dead_code_threshold=0",
        "product quantizer.inner.init=random",
    ],
)
def test_compiled_training_equals_eager(train_toy: Callable[..., Run], quantizer: str) -> None:
    """Where nothing is drawn at random: the compiler draws other numbers."""
    words = [*f"quantizer={quantizer}".split(), "stage=autoencoder"]
    eager = weights(train_toy(*words, name="eager"))
    compiled = weights(train_toy(*words, "trainer.compile=true", name="compiled"))
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.long
def test_accumulated_steps_equal_larger_batches(train_toy: Callable[..., Run]) -> None:
    """Two forward passes of four examples make the step that one of eight does.

    Adam forgives a gradient's scale; its moments do not.
    """
    words = ["stage=autoencoder", "quantizer.init=random", "quantizer.commitment=1.0"]
    whole = train_toy(*words, "trainer.batch_size=8", name="whole")
    halves = train_toy(*words, "trainer.batch_size=4", "trainer.accumulate=2", name="halves")
    for name, value in weights(whole).items():
        if name != "model.quantizer.counts":  # they follow every pass
            torch.testing.assert_close(weights(halves)[name], value, atol=1e-5, rtol=1e-4)
    one, other = (load_file(run.autoencoder / "step-00000006" / "state.safetensors") for run in (whole, halves))
    for name in (name for name in one if name.startswith("optimizer.exp_avg.")):
        torch.testing.assert_close(other[name], one[name], atol=1e-4, rtol=1e-3)


def test_a_broken_loss_stops_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step and the term are named, the last good checkpoint too, and no bad one is written."""
    from toolkit.quantizers.vq import VectorQuantizer

    forward, calls = VectorQuantizer.forward, []

    def breaks(self: VectorQuantizer, z: torch.Tensor) -> object:
        calls.append(self.training)
        made = forward(self, z)
        return made._replace(loss=made.loss * float("nan")) if sum(calls) == 5 else made

    monkeypatch.setattr(VectorQuantizer, "forward", breaks)
    words = ["trainer.steps=20", "trainer.log_every=20", "stage=autoencoder"]
    with pytest.raises(ToolkitError, match=r"quantizer became NaN or infinite at step 5; the last good checkpoint is"):
        train(compose([*SMALL, *VQ, *words]).config, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "autoencoder").iterdir()] == ["step-00000003"]


def test_a_second_run_of_the_same_words_is_the_same(train_toy: Callable[..., Run]) -> None:
    one, other = weights(train_toy(name="one")), weights(train_toy(name="other"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    different = weights(train_toy("seed=1", name="different"))
    assert not all(torch.equal(one[name], different[name]) for name in one)


def test_weights_that_break_in_the_update_are_not_saved(tmp_path: Path) -> None:
    """The loss of a step is measured before its update: the checkpoint looks at what it saves."""
    words = ["trainer.learning_rate=1e38", "trainer.checkpoint_every=1", "stage=autoencoder"]
    with pytest.raises(ToolkitError, match="weights became NaN or infinite after step 1; no checkpoint"):
        train(compose([*SMALL, *VQ, *words]).config, tmp_path / "run")


@pytest.mark.long
def test_without_validation_data_both_stages_train(
    train_toy: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.load("dataset", "toy_tiles"), "examples", {"train": 48, "val": 0, "test": 8})
    assert toolkit.load(train_toy().path).priors.keys() == {"pixelcnn"}


@pytest.mark.long
def test_a_prior_of_larger_examples_samples_them(train_toy: Callable[..., Run]) -> None:
    run = train_toy("prior_dataset.size=16", "conditions.prior=[kind]")
    assert command.run(["sample", f"run={run.path}", "n=2", "condition.kind=한 글"]) == 0
    assert toolkit.load(run.path).sample(2).x.shape == (2, 2, 16, 16)
    assert len(json.loads((run.samples / "pixelcnn-seed0" / "sample-0000.json").read_text())[0]) == 16


@pytest.mark.long
def test_averages_of_a_short_run_are_not_of_its_random_start(train_toy: Callable[..., Run]) -> None:
    """An average over 10 000 steps that begins at random weights would be those weights."""
    words = ["stage=autoencoder", "trainer.steps=60", "trainer.learning_rate=1e-2", "trainer.checkpoint_every=60"]
    run = train_toy(*words, "trainer.ema=0.9999")
    last = {(line["split"], line["step"]): line["nll"] for line in run.log if "nll" in line}
    assert last["val", 60] < 0.95 * last["train", 2]


@pytest.mark.long
def test_a_run_is_judged_by_both_its_stages(train_toy: Callable[..., Run], tmp_path: Path) -> None:
    """What a sweep minimises: bits per dim with the trained prior's code bits, or nats of a density."""
    score = train(compose([*SMALL, *VQ]).config, tmp_path / "run")
    lines = [line for line in list(Run(tmp_path / "run").log) if line["split"] == "val"]
    assert score == pytest.approx((lines[-2]["nll"] + lines[-1]["loss"]) / (128 * log(2)))
    drawn = ["quantizer=categorical", "quantizer.codebook_size=16"]
    score = train(compose([*SMALL, *drawn]).config, tmp_path / "drawn")
    first, last = (line for line in list(Run(tmp_path / "drawn").log) if line["split"] == "val")
    assert first["posterior_entropy"] > 1
    cost = first["nll"] + last["loss"] - first["posterior_entropy"]
    assert score == pytest.approx(cost / (128 * log(2)))
    alone = train(compose([*SMALL, *VQ, "stage=autoencoder"]).config, tmp_path / "alone")
    assert alone == pytest.approx(lines[-2]["bits_per_dim"])


def test_a_picture_that_cannot_be_drawn_costs_no_training(
    train_toy: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plot(*_: object) -> None:
        raise OSError("no ink")

    monkeypatch.setattr(registry.load("dataset", "toy_tiles"), "plot", plot)
    with pytest.raises(OSError, match="no ink"):
        train_toy("stage=autoencoder")
    assert (tmp_path / "run" / "autoencoder" / "step-00000006").is_dir()


@pytest.mark.long
def test_a_continuous_bottleneck_has_one_stage(
    train_toy: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_toy("quantizer=gaussian")
    assert "no prior is trained" in capsys.readouterr().out
    assert run.priors() == []
    assert not run.codes.exists()
    model = toolkit.load(run.path)
    x, codes = model.sample(3, seed=1)
    assert (x.shape, codes.shape) == ((3, 2, 8, 8), (3, 0, 4, 4))
    assert torch.equal(model.sample(3, seed=1).x, x)
    assert not torch.equal(model.sample(3, seed=2).x, x)
    assert model.reconstruct(x).shape == x.shape
    with pytest.raises(ToolkitError, match="bottleneck is continuous"):
        model.encode(x)
    assert command.run(["sample", f"run={run.path}", "n=4", "top_k=3", f"out={tmp_path / 'drawn'}"]) == 0
    assert "no prior: top_k is not used" in capsys.readouterr().err
    assert ".safetensors" not in {path.suffix for path in (tmp_path / "drawn").iterdir()}
    assert command.run(["evaluate", f"run={run.path}", "examples=8"]) == 0
    assert list(json.loads((run.path / "evaluation.json").read_text())["priors"]) == ["normal"]
    with pytest.raises(ToolkitError, match="continuous bottleneck has no codes, and so no prior"):
        train_toy("quantizer=gaussian", "stage=prior", name="run")


@pytest.mark.long
def test_a_finished_run_takes_an_option_that_changes_its_codes(train_toy: Callable[..., Run]) -> None:
    """Beams: the same weights, codes of a smaller error, and a prior over those codes, not the ones kept before."""
    words = ["quantizer=residual", "quantizer.depth=3", "quantizer.inner.codebook_size=5"]
    run = train_toy(*words)
    before, kept = toolkit.load(run.path, "cpu"), load_file(run.codes / "val.safetensors")["codes"]
    further = ["quantizer.beams=9", "prior=categorical", "prior_trainer.steps=3"]
    assert command.run(["train", f"run={run.path}", *further]) == 0
    after, now = toolkit.load(run.path, "cpu"), load_file(run.codes / "val.safetensors")["codes"]
    assert after.checkpoint.weights_hash == before.checkpoint.weights_hash
    x = torch.stack([after.dataset.example("val", i, None)["x"] for i in range(len(now))])
    assert torch.equal(before.encode(x), torch.as_tensor(kept).long())
    assert torch.equal(after.encode(x), torch.as_tensor(now).long())
    errors = [model.autoencoder.quantize(x).metrics["quantization_error"] for model in (after, before)]
    assert errors[0] < errors[1]


@pytest.mark.long
def test_the_log_file_says_what_the_screen_says(
    train_toy: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line with its time; a continuation, and what ended a run, are added."""
    run = train_toy("stage=autoencoder")
    lines = (run.path / "log.txt").read_text().splitlines()
    shown = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in capsys.readouterr().out.splitlines()]
    assert [line[20:] for line in lines] == shown
    assert all(datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S") for line in lines)
    with pytest.raises(ToolkitError):
        train_toy("stage=prior", "prior.head=100", "prior_trainer.learning_rate=1e30", "prior_trainer.log_every=1")
    after = (run.path / "log.txt").read_text().splitlines()
    assert after[: len(lines)] == lines
    assert any("ended: prior-pixelcnn: " in line for line in after[-2:])


def test_the_gradients_norm_is_that_before_clipping() -> None:
    module = torch.nn.Linear(2, 1, bias=False)
    norms = []
    for clip in (0.0, 0.5):
        optimization = Optimization(module, AutoencoderTrainerOptions(clip=clip))
        module.weight.grad = torch.tensor([[3.0, 4.0]])
        norms.append(float(optimization.update()["grad_norm"]))
    assert norms == [5.0, 5.0]
