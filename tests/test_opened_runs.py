"""A run that is opened: beside its training, with parts missing, and what it then takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import toolkit
from toolkit import ToolkitError
from toolkit.cli.config.reopen import reopen
from toolkit.runs.checkpoint import Checkpoint
from toolkit.runs.folder import Run
from toolkit.stages.run import train

pytestmark = pytest.mark.usefixtures("toys")


def test_a_run_opens_beside_its_training(toy_copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which deletes the checkpoint that is just being read."""
    load_weights, calls = Checkpoint.load_weights, []

    def beside(self: Checkpoint, module: torch.nn.Module, *, averaged: bool) -> None:
        calls.append(self.step)
        if len(calls) == 1:
            words = ["trainer.steps=7", "trainer.keep=1", "stage=autoencoder"]
            train(reopen(toy_copy.config_values(), words).config, toy_copy.path)
        load_weights(self, module, averaged=averaged)

    monkeypatch.setattr(Checkpoint, "load_weights", beside)
    model = toolkit.load(toy_copy.path)
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


def test_a_condition_that_nothing_sees_is_refused(toy_run: Path) -> None:
    model = toolkit.load(toy_run)
    with pytest.raises(ToolkitError, match=r"condition.kind: nothing here was trained to see it"):
        model.labels({"kind": "a"}, 2, prior="uniform")


def test_codes_of_a_loaded_model_train_others(toy_run: Path) -> None:
    """They are plain tensors, not those of inference mode."""
    model = toolkit.load(toy_run)
    codes = model.encode(torch.zeros(3, *model.spec.shape, dtype=torch.long))
    torch.nn.Embedding(16, 2)(codes).sum().backward()


def test_a_prior_that_cannot_be_opened_stops_no_other(toy_copy: Run) -> None:
    run = toy_copy
    shutil.copytree(run.prior("pixelcnn"), run.prior("ghost"))
    config = run.prior("ghost") / "config.yaml"
    config.write_text(config.read_text().replace("name: pixelcnn", "name: ghost"))
    model = toolkit.load(run.path)
    assert set(model.priors) == {"pixelcnn"}
    assert "prior=ghost is left out" in model.notices[0]
    assert model.sample(1, prior="uniform").codes.shape == (1, 1, 4, 4)


def test_a_run_whose_plugin_is_missing_says_where_it_came_from(
    train_toy: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_toy("stage=autoencoder")
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
