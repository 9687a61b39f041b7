"""Damage is told as what it is, passed over, and mended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys import fingerprint, flip

import toolkit
from toolkit import ToolkitError
from toolkit import __main__ as command
from toolkit.cli.config.reopen import reopen
from toolkit.runs.folder import Run
from toolkit.stages.run import train

pytestmark = pytest.mark.usefixtures("toys")


@pytest.mark.parametrize("damage", [b"", b"not codes", None, "a bit of the codes", "a bit of the header"])
@pytest.mark.few(2)
def test_the_code_cache_is_never_trusted(
    train_toy: Callable[..., Run], capsys: pytest.CaptureFixture[str], damage: bytes | str | None
) -> None:
    """Damaged codes, and codes of older weights, are encoded again."""
    run = train_toy("stage=autoencoder")
    train_toy()
    path, good = run.codes / "train.safetensors", (run.codes / "train.safetensors").read_bytes()
    if damage is None:
        train_toy("trainer.steps=9")
        assert path.read_bytes() != good
    else:
        if isinstance(damage, str):
            place = -5 if "codes" in damage else good.index(b'"format"') + 2
            damage = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        path.write_bytes(damage)
        train_toy("prior_trainer.steps=4")
        assert path.read_bytes() == good
    assert "encoding again" in capsys.readouterr().out


def test_a_damaged_newest_checkpoint_is_set_aside(train_toy: Callable[..., Run]) -> None:
    """Else the next one kept would be the damaged one."""
    run = train_toy("stage=autoencoder", "trainer.keep=1", "trainer.checkpoint_every=6")
    whole = run.autoencoder / "step-00000006"
    shutil.copytree(whole, run.autoencoder / "step-00000009")
    (run.autoencoder / "step-00000009" / "state.json").write_text("{")
    train_toy("stage=autoencoder", "trainer.keep=1", "trainer.steps=8", "trainer.checkpoint_every=6")
    assert sorted(p.name for p in run.autoencoder.iterdir()) == ["step-00000008", "step-00000009.damaged"]


@pytest.mark.long
@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes() + b"x")])
@pytest.mark.few(1)
def test_damage_of_the_newest_autoencoder_is_told_as_what_it_is(
    toy_copy: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    """Samples come from the one before, with a notice; training mends it, and the prior stays."""
    newest = toy_copy.autoencoder / "step-00000006"
    before = fingerprint(toy_copy.path)
    assert command.run(["sample", f"run={toy_copy.path}", "n=2", f"out={tmp_path / 'whole'}"]) == 0
    damage(newest / "model.safetensors")
    capsys.readouterr()
    assert command.run(["sample", f"run={toy_copy.path}", "n=2", f"out={tmp_path / 'damaged'}"]) == 0
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said
    assert f"prior=pixelcnn was trained on codes of {newest}, which is damaged: toolkit train run=" in said
    assert "opened is step" not in said
    one, other = (load_file(tmp_path / name / "samples.safetensors")["codes"] for name in ("whole", "damaged"))
    assert torch.equal(one, other)
    assert command.run(["evaluate", f"run={toy_copy.path}", "examples=8"]) == 0
    said = capsys.readouterr().err
    assert "which is damaged" in said
    assert command.run(["train", f"run={toy_copy.path}"]) == 0
    assert f"{newest} is damaged" in capsys.readouterr().out
    assert fingerprint(toy_copy.path) == before
    assert not list(toy_copy.path.glob("priors/*.old-*"))


def test_a_prior_over_damaged_weights_is_trained_again_and_says_why(
    toy_copy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = toy_copy.autoencoder / "step-00000006"
    flip(newest / "model.safetensors")
    assert command.run(["train", f"run={toy_copy.path}", "stage=prior"]) == 0
    said = capsys.readouterr().out
    assert f"{newest} is damaged" in said
    assert f"was trained on codes of {newest}, which is damaged: kept as" in said
    assert "older autoencoder" not in said


def test_a_prior_over_older_weights_is_still_told_so(toy_copy: Run) -> None:
    train(reopen(toy_copy.config_values(), ["trainer.steps=7", "stage=autoencoder"]).config, toy_copy.path)
    with pytest.raises(ToolkitError, match=r"trained on codes of autoencoder/step-\d+ \(opened is step 7\)"):
        toolkit.load(toy_copy.path).prior("pixelcnn")


def test_a_damaged_checkpoint_of_init_is_told(
    toy_copy: Run, train_toy: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    flip(toy_copy.autoencoder / "step-00000006" / "model.safetensors")
    train_toy("stage=autoencoder", f"init={toy_copy.path}", name="second")
    assert "step-00000006 is damaged" in capsys.readouterr().out


@pytest.mark.slow
def test_lines_of_the_log_that_are_none_are_left_out(toy_copy: Run) -> None:
    """Such as torn ones, and numbers that no float holds."""
    path, lines = toy_copy.path / "metrics.jsonl", list(toy_copy.log)
    good = path.read_text()
    huge = json.dumps({"stage": "autoencoder", "split": "val", "step": 6, "nll": 10**400})
    for line in (
        huge,
        huge.replace('"nll"', '"step"'),
        "7",
        "{}",
        "[" * 9999,
        '{"stage": "autoencoder", "spl',
        "\0" * 99,
    ):
        path.write_text(good + line)
        assert list(toy_copy.log) == lines
        assert command.run(["train", f"run={toy_copy.path}"]) == 0
