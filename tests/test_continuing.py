"""What a run starts from and goes on from, and what it refuses before a file is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys import SIX_STEPS, TILES, VQ, weights

from toolkit import ToolkitError, registry
from toolkit.cli.config.compose import compose
from toolkit.cli.config.reopen import reopen
from toolkit.config import Experiment
from toolkit.runs.folder import Run, write_config
from toolkit.stages.run import train

pytestmark = pytest.mark.usefixtures("toys")


def test_init_starts_from_another_runs_weights(train_toy: Callable[..., Run]) -> None:
    first = train_toy("stage=autoencoder", "trainer.ema=0.5", name="first")
    second = train_toy("stage=autoencoder", f"init={first.path}", "trainer.learning_rate=1e-30", name="second")
    averages = load_file(first.autoencoder / "step-00000006" / "state.safetensors")
    for name, value in weights(second).items():
        if f"average.{name}" in averages:
            torch.testing.assert_close(value, averages[f"average.{name}"])


@pytest.mark.parametrize("words", [["init=nowhere"], ["trainer.device=cuda"]])
def test_what_cannot_start_leaves_no_folder(train_toy: Callable[..., Run], tmp_path: Path, words: list[str]) -> None:
    if words == ["trainer.device=cuda"] and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ToolkitError, match=r"init=nowhere: no such folder|device=cuda"):
        train_toy(*words)
    assert not (tmp_path / "run").exists()


def test_a_prior_alone_needs_an_autoencoder(train_toy: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="stage=prior needs a trained autoencoder"):
        train_toy("stage=prior")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_refused_continuation_leaves_the_run_as_it_was(toy_copy: Run) -> None:
    """Other sizes of parts, or other data, are refused before anything is written."""
    run = toy_copy
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


def test_words_for_a_stage_that_is_not_trained_are_refused(train_toy: Callable[..., Run]) -> None:
    run = train_toy("stage=autoencoder")
    with pytest.raises(ToolkitError, match="stage=autoencoder, which does not use it; add stage=all"):
        reopen(run.config_values(), ["prior_trainer.steps=9"])
    assert reopen(run.config_values(), ["prior_trainer.steps=9", "stage=all"]).config.prior_trainer.steps == 9


def test_options_that_are_newer_than_a_run_are_no_change(toy_copy: Run) -> None:
    """A continuation with the same values adds no configuration."""
    path = toy_copy.path / "config.yaml"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if line.strip() not in ("floor: 0.0", "critic_start: 0")))
    write_config(toy_copy.path, toy_copy.config())
    assert not (toy_copy.path / "config-2.yaml").exists()
    write_config(toy_copy.path, replace(toy_copy.config(), seed=7))
    assert (toy_copy.path / "config-2.yaml").is_file()


@pytest.mark.long
def test_a_prior_of_larger_examples_goes_on(tmp_path: Path) -> None:
    """Its weights lie on the grid of ``prior_dataset``, not on that of stage one."""
    words = [*TILES, *VQ, *SIX_STEPS, "prior=categorical", "prior_dataset.size=16"]
    folder = tmp_path / "run"
    train(compose([*words, "prior_trainer.steps=2"]).config, folder)
    train(reopen(Run(folder).config_values(), ["prior_trainer.steps=4"]).config, folder)
    whole = tmp_path / "whole"
    train(compose([*words, "prior_trainer.steps=4"]).config, whole)
    (name,) = (path.relative_to(folder) for path in folder.glob("priors/categorical/step-00000004/model.safetensors"))
    assert (folder / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.long
def test_the_priors_data_is_opened_once(train_toy: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[int]()
    cls = registry.load("dataset", "toy_tiles")
    build = cls.__init__

    def noted(self: Any, *, size: int = 8) -> None:
        opened.append(size)
        build(self, size=size)

    monkeypatch.setattr(cls, "__init__", noted)
    train_toy("prior_dataset.size=16")
    assert opened == [8, 16]


@pytest.mark.long
def test_a_cure_for_one_command_adds_no_configuration(toy_copy: Run) -> None:
    """Though it is none of the values of the experiment that the run began with."""
    config = toy_copy.config()
    (toy_copy.path / "config.yaml").unlink()
    write_config(toy_copy.path, replace(config, experiment=Experiment("toy", {"trainer.steps": 7})))
    cured = reopen(toy_copy.config_values(), ["trainer.allow_changed_data=true"]).config
    assert cured.experiment == Experiment("toy", {"trainer.allow_changed_data": False, "trainer.steps": 7})
    train(cured, toy_copy.path)
    assert [path.name for path in toy_copy.path.glob("config*.yaml")] == ["config.yaml"]
