"""What training promises beside its loops: switches, stops, caches and the order of things."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys import PIXELCNN, SIX_STEPS, TILES, VQ, fingerprint

import toolkit
from toolkit import ToolkitError, registry
from toolkit import __main__ as command
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.optimization import Optimization
from toolkit.options import AutoencoderTrainerOptions
from toolkit.recorder import CLOCKED
from toolkit.runs.checkpoint import Checkpoint
from toolkit.runs.folder import Run, write_config
from toolkit.stages import train

PARTS = [*TILES, *PIXELCNN, *SIX_STEPS]

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Run]:
    """Trains the toy with further words into a folder of the test's."""

    def act(*words: str, name: str = "run") -> Run:
        quantizer = [] if any(word.startswith("quantizer=") for word in words) else VQ
        train(compose([*PARTS, *quantizer, *words]).config, tmp_path / name)
        return Run(tmp_path / name)

    return act


@pytest.fixture
def copied(toy_run: Path, tmp_path: Path) -> Run:
    """What ``trained()`` gives, without training."""
    shutil.copytree(toy_run, tmp_path / "run")
    return Run(tmp_path / "run")


def weights(run: Run, step: int = 6) -> dict[str, torch.Tensor]:
    return load_file(run.autoencoder / f"step-{step:08d}" / "model.safetensors")


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


def test_the_logs_figures(trained: Callable[..., Run]) -> None:
    lines = list(trained("likelihood=normal", "stage=autoencoder").log)
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


def test_bf16_keeps_weights_and_codebook_in_fp32(trained: Callable[..., Run]) -> None:
    made = weights(trained("trainer.precision=bf16", "stage=autoencoder"))
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
def test_compiled_training_equals_eager(trained: Callable[..., Run], quantizer: str) -> None:
    """Where nothing is drawn at random: the compiler draws other numbers."""
    words = [*f"quantizer={quantizer}".split(), "stage=autoencoder"]
    eager = weights(trained(*words, name="eager"))
    compiled = weights(trained(*words, "trainer.compile=true", name="compiled"))
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-4, rtol=1e-3)


def test_accumulated_steps_equal_larger_batches(trained: Callable[..., Run]) -> None:
    """Two forward passes of four examples make the step that one of eight does.

    Adam forgives a gradient's scale; its moments do not.
    """
    words = ["stage=autoencoder", "quantizer.init=random", "quantizer.commitment=1.0"]
    whole = trained(*words, "trainer.batch_size=8", name="whole")
    halves = trained(*words, "trainer.batch_size=4", "trainer.accumulate=2", name="halves")
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
        train(compose([*PARTS, *VQ, *words]).config, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "autoencoder").iterdir()] == ["step-00000003"]


def test_init_starts_from_another_runs_weights(trained: Callable[..., Run]) -> None:
    first = trained("stage=autoencoder", "trainer.ema=0.5", name="first")
    second = trained("stage=autoencoder", f"init={first.path}", "trainer.learning_rate=1e-30", name="second")
    averages = load_file(first.autoencoder / "step-00000006" / "state.safetensors")
    for name, value in weights(second).items():
        if f"average.{name}" in averages:
            torch.testing.assert_close(value, averages[f"average.{name}"])


@pytest.mark.parametrize("words", [["init=nowhere"], ["trainer.device=cuda"]])
def test_what_cannot_start_leaves_no_folder(trained: Callable[..., Run], tmp_path: Path, words: list[str]) -> None:
    if words == ["trainer.device=cuda"] and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ToolkitError, match=r"init=nowhere: no such folder|device=cuda"):
        trained(*words)
    assert not (tmp_path / "run").exists()


def test_a_prior_alone_needs_an_autoencoder(trained: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="stage=prior needs a trained autoencoder"):
        trained("stage=prior")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", [b"", b"not codes", None, "a bit of the codes", "a bit of the header"])
def test_the_code_cache_is_never_trusted(
    trained: Callable[..., Run], capsys: pytest.CaptureFixture[str], damage: bytes | str | None
) -> None:
    """Damaged codes, and codes of older weights, are encoded again."""
    run = trained("stage=autoencoder")
    trained()
    path, good = run.codes / "train.safetensors", (run.codes / "train.safetensors").read_bytes()
    if damage is None:
        trained("trainer.steps=9")
        assert path.read_bytes() != good
    else:
        if isinstance(damage, str):
            place = -5 if "codes" in damage else good.index(b'"format"') + 2
            damage = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        path.write_bytes(damage)
        trained("prior_trainer.steps=4")
        assert path.read_bytes() == good
    assert "encoding again" in capsys.readouterr().out


def test_a_second_run_of_the_same_words_is_the_same(trained: Callable[..., Run]) -> None:
    one, other = weights(trained(name="one")), weights(trained(name="other"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    different = weights(trained("seed=1", name="different"))
    assert not all(torch.equal(one[name], different[name]) for name in one)


def test_a_refused_continuation_leaves_the_run_as_it_was(copied: Run) -> None:
    """Other sizes of parts, or other data, are refused before anything is written."""
    run = copied
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    for words, why in [
        (["quantizer.codebook_size=8"], "do not fit this model"),
        (["quantizer.codebook_size=8", "stage=autoencoder"], "do not fit this model"),
        (["prior.hidden=16"], "do not fit this model"),
        (["dataset.size=16"], "start a new run for other data"),
    ]:
        with pytest.raises(ToolkitError, match=why):
            train(reopen(run.config_values(), words).config, run.path)
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


def test_words_for_a_stage_that_is_not_trained_are_refused(trained: Callable[..., Run]) -> None:
    run = trained("stage=autoencoder")
    with pytest.raises(ToolkitError, match="stage=autoencoder, which does not use it; add stage=all"):
        reopen(run.config_values(), ["prior_trainer.steps=9"])
    assert reopen(run.config_values(), ["prior_trainer.steps=9", "stage=all"]).config.prior_trainer.steps == 9


def test_weights_that_break_in_the_update_are_not_saved(tmp_path: Path) -> None:
    """The loss of a step is measured before its update: the checkpoint looks at what it saves."""
    words = ["trainer.learning_rate=1e38", "trainer.checkpoint_every=1", "stage=autoencoder"]
    with pytest.raises(ToolkitError, match="weights became NaN or infinite after step 1; no checkpoint"):
        train(compose([*PARTS, *VQ, *words]).config, tmp_path / "run")


def test_without_validation_data_both_stages_train(
    trained: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.load("dataset", "toy_tiles"), "examples", {"train": 48, "val": 0, "test": 8})
    assert toolkit.load(trained().path).priors.keys() == {"pixelcnn"}


def test_a_prior_of_larger_examples_samples_them(trained: Callable[..., Run]) -> None:
    run = trained("prior_dataset.size=16", "conditions.prior=[kind]")
    assert command.run(["sample", f"run={run.path}", "n=2", "condition.kind=한 글"]) == 0
    assert toolkit.load(run.path).sample(2).x.shape == (2, 2, 16, 16)
    assert len(json.loads((run.samples / "pixelcnn-seed0" / "sample-0000.json").read_text())[0]) == 16


def test_averages_of_a_short_run_are_not_of_its_random_start(trained: Callable[..., Run]) -> None:
    """An average over 10 000 steps that begins at random weights would be those weights."""
    words = ["stage=autoencoder", "trainer.steps=60", "trainer.learning_rate=1e-2", "trainer.checkpoint_every=60"]
    run = trained(*words, "trainer.ema=0.9999")
    last = {(line["split"], line["step"]): line["nll"] for line in run.log if "nll" in line}
    assert last["val", 60] < 0.95 * last["train", 2]


def test_a_run_is_judged_by_both_its_stages(trained: Callable[..., Run], tmp_path: Path) -> None:
    """What a sweep minimises: bits per dim with the trained prior's code bits, or nats of a density."""
    score = train(compose([*PARTS, *VQ]).config, tmp_path / "run")
    lines = [line for line in list(Run(tmp_path / "run").log) if line["split"] == "val"]
    assert score == pytest.approx((lines[-2]["nll"] + lines[-1]["loss"]) / (128 * log(2)))
    drawn = ["quantizer=categorical", "quantizer.codebook_size=16"]
    score = train(compose([*PARTS, *drawn]).config, tmp_path / "drawn")
    first, last = (line for line in list(Run(tmp_path / "drawn").log) if line["split"] == "val")
    assert first["posterior_entropy"] > 1
    cost = first["nll"] + last["loss"] - first["posterior_entropy"]
    assert score == pytest.approx(cost / (128 * log(2)))
    alone = train(compose([*PARTS, *VQ, "stage=autoencoder"]).config, tmp_path / "alone")
    assert alone == pytest.approx(lines[-2]["bits_per_dim"])


def test_a_picture_that_cannot_be_drawn_costs_no_training(
    trained: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plot(*_: object) -> None:
        raise OSError("no ink")

    monkeypatch.setattr(registry.load("dataset", "toy_tiles"), "plot", plot)
    with pytest.raises(OSError, match="no ink"):
        trained("stage=autoencoder")
    assert (tmp_path / "run" / "autoencoder" / "step-00000006").is_dir()


def test_a_damaged_newest_checkpoint_is_set_aside(trained: Callable[..., Run]) -> None:
    """Else the next one kept would be the damaged one."""
    run = trained("stage=autoencoder", "trainer.keep=1", "trainer.checkpoint_every=6")
    whole = run.autoencoder / "step-00000006"
    shutil.copytree(whole, run.autoencoder / "step-00000009")
    (run.autoencoder / "step-00000009" / "state.json").write_text("{")
    trained("stage=autoencoder", "trainer.keep=1", "trainer.steps=8", "trainer.checkpoint_every=6")
    assert sorted(p.name for p in run.autoencoder.iterdir()) == ["step-00000008", "step-00000009.damaged"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes() + b"x")])
def test_damage_of_the_newest_autoencoder_is_told_as_what_it_is(
    copied: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    """Samples come from the one before, with a notice; training mends it, and the prior stays."""
    newest = copied.autoencoder / "step-00000006"
    before = fingerprint(copied.path)
    assert command.run(["sample", f"run={copied.path}", "n=2", f"out={tmp_path / 'whole'}"]) == 0
    damage(newest / "model.safetensors")
    capsys.readouterr()
    assert command.run(["sample", f"run={copied.path}", "n=2", f"out={tmp_path / 'damaged'}"]) == 0
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said
    assert f"prior=pixelcnn was trained on codes of {newest}, which is damaged: toolkit train run=" in said
    assert "older autoencoder" not in said
    one, other = (load_file(tmp_path / name / "samples.safetensors")["codes"] for name in ("whole", "damaged"))
    assert torch.equal(one, other)
    assert command.run(["evaluate", f"run={copied.path}", "examples=8"]) == 0
    said = capsys.readouterr().err
    assert "which is damaged" in said
    assert command.run(["train", f"run={copied.path}"]) == 0
    assert f"{newest} is damaged" in capsys.readouterr().out
    assert fingerprint(copied.path) == before
    assert not list(copied.path.glob("priors/*.old-*"))


def test_a_prior_over_damaged_weights_is_trained_again_and_says_why(
    copied: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = copied.autoencoder / "step-00000006"
    flip(newest / "model.safetensors")
    assert command.run(["train", f"run={copied.path}", "stage=prior"]) == 0
    said = capsys.readouterr().out
    assert f"{newest} is damaged" in said
    assert f"was trained on codes of {newest}, which is damaged: kept as" in said
    assert "older autoencoder" not in said


def test_a_prior_over_older_weights_is_still_told_so(copied: Run) -> None:
    train(reopen(copied.config_values(), ["trainer.steps=7", "stage=autoencoder"]).config, copied.path)
    with pytest.raises(ToolkitError, match="codes of an older autoencoder"):
        toolkit.load(copied.path).prior("pixelcnn")


def test_a_run_opens_beside_its_training(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which deletes the checkpoint that is just being read."""
    load_weights, calls = Checkpoint.load_weights, []

    def beside(self: Checkpoint, module: torch.nn.Module, *, averaged: bool) -> None:
        calls.append(self.step)
        if len(calls) == 1:
            words = ["trainer.steps=7", "trainer.keep=1", "stage=autoencoder"]
            train(reopen(copied.config_values(), words).config, copied.path)
        load_weights(self, module, averaged=averaged)

    monkeypatch.setattr(Checkpoint, "load_weights", beside)
    model = toolkit.load(copied.path)
    assert (model.checkpoint.step, model.notices) == (7, [])


def test_a_folder_that_vanishes_while_a_run_is_looked_at_is_no_failure(
    toy_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir, seen = os.scandir, []

    def vanished(folder: str | Path) -> Any:
        if str(folder).endswith("step-00000003"):
            seen.append(folder)
            raise FileNotFoundError
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", vanished)
    assert Run.open(toy_run).config()
    assert seen


def test_a_damaged_checkpoint_of_init_is_told(
    copied: Run, trained: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    flip(copied.autoencoder / "step-00000006" / "model.safetensors")
    trained("stage=autoencoder", f"init={copied.path}", name="second")
    assert "step-00000006 is damaged" in capsys.readouterr().out


def test_a_condition_that_nothing_sees_is_refused(toy_run: Path) -> None:
    model = toolkit.load(toy_run)
    with pytest.raises(ToolkitError, match=r"condition.kind: nothing here was trained to see it"):
        model.labels({"kind": "a"}, 2, prior="uniform")


def test_codes_of_a_loaded_model_train_others(toy_run: Path) -> None:
    """They are plain tensors, not those of inference mode."""
    model = toolkit.load(toy_run)
    codes = model.encode(torch.zeros(3, *model.spec.shape, dtype=torch.long))
    torch.nn.Embedding(16, 2)(codes).sum().backward()


def test_a_prior_that_cannot_be_opened_stops_no_other(copied: Run) -> None:
    run = copied
    shutil.copytree(run.prior("pixelcnn"), run.prior("ghost"))
    config = run.prior("ghost") / "config.yaml"
    config.write_text(config.read_text().replace("name: pixelcnn", "name: ghost"))
    model = toolkit.load(run.path)
    assert set(model.priors) == {"pixelcnn"}
    assert "prior=ghost is left out" in model.notices[0]
    assert model.sample(1, prior="uniform").codes.shape == (1, 1, 4, 4)


def test_a_run_whose_plugin_is_missing_says_where_it_came_from(
    trained: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("stage=autoencoder")
    monkeypatch.setenv("TOOLKIT_PLUGIN_PATH", "")
    with pytest.raises(
        ToolkitError,
        match=r"dataset=toy_tiles comes from toy-plugin 0.1.0, which is not installed: pip install toy-plugin==0.1.0",
    ):
        toolkit.load(run.path)


@pytest.mark.parametrize("shape", [(2, 8, 8), (0, 2, 8, 8), (1, 3, 8, 8)])
def test_data_of_another_shape_is_told_so(toy_run: Path, shape: tuple[int, ...]) -> None:
    model = toolkit.load(toy_run)
    with pytest.raises(ValueError, match=r"a batch \(n, \*\(2, 8, 8\)\) is needed"):
        model.encode(torch.zeros(shape, dtype=torch.long))


def test_a_continuous_bottleneck_has_one_stage(
    trained: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("quantizer=gaussian")
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
        trained("quantizer=gaussian", "stage=prior", name="run")


def test_the_log_file_says_what_the_screen_says(
    trained: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line with its time; a continuation, and what ended a run, are added."""
    run = trained("stage=autoencoder")
    lines = (run.path / "log.txt").read_text().splitlines()
    shown = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in capsys.readouterr().out.splitlines()]
    assert [line[20:] for line in lines] == shown
    assert all(datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S") for line in lines)
    with pytest.raises(ToolkitError):
        trained("stage=prior", "prior.head=100", "prior_trainer.learning_rate=1e30", "prior_trainer.log_every=1")
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


def test_options_that_are_newer_than_a_run_are_no_change(copied: Run) -> None:
    """A continuation with the same values adds no configuration."""
    path = copied.path / "config.yaml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if line.strip() not in ("floor: 0.0", "critic_start: 0")))
    write_config(copied.path, copied.config())
    assert not (copied.path / "config-2.yaml").exists()
    write_config(copied.path, replace(copied.config(), seed=7))
    assert (copied.path / "config-2.yaml").is_file()
