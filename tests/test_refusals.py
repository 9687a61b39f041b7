"""What is refused before a run trains: ``toolkit check`` and ``toolkit train`` say the same of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from messages import assert_names
from toys import SIX_STEPS, TILES

import toolkit
from toolkit import registry
from toolkit.cli.check import check
from toolkit.cli.config.compose import compose
from toolkit.config import RunConfig
from toolkit.errors import ToolkitError
from toolkit.lengths import checks

pytestmark = pytest.mark.usefixtures("toys")

PARTS = ["quantizer=vq", "prior=pixelcnn"]
ADVERSARY = ["objective=adversarial", "objective.discriminator.width=8", "objective.discriminator.layers=1"]


def unequal_lengths(patch: pytest.MonkeyPatch) -> None:
    """Examples of the dataset have the lengths 4 and 8, and are padded in batches."""
    cls = registry.load("dataset", "toy_tiles")
    patch.setattr(cls, "lengths", lambda self, split: [4, 8] * (self.size(split) // 2))


def one_length(patch: pytest.MonkeyPatch) -> None:
    """The same, in batches of one length."""
    unequal_lengths(patch)
    patch.setattr(registry.load("dataset", "toy_tiles"), "one_length", True, raising=False)


def odd_lengths(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(registry.load("dataset", "toy_tiles"), "lengths", lambda self, split: [3] * self.size(split))


def padded_codes(patch: pytest.MonkeyPatch) -> None:
    """Only the prior is asked about padding."""
    patch.setattr(checks, "has_padding", lambda examples: True)


def without_val(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(registry.load("dataset", "toy_tiles"), "examples", {"train": 48, "val": 0, "test": 8})


CASES: list[tuple[list[str], Callable[[pytest.MonkeyPatch], None] | None, str]] = [
    (["conditions.prior=[knd]"], None, "conditions.prior … knd … kind"),
    (["trainer.best=val/nllo"], None, "trainer.best=val/nllo … nll … best_mode=min or max"),
    (["prior_trainer.best=val/nmse"], None, "prior_trainer.best=val/nmse … loss"),
    (["trainer.best=val/nll"], without_val, "trainer.best=val/nll … no val split"),
    (["trainer.freeze=[encoder,quantizer,decoder]"], None, "trainer.steps=6 … nothing to train … trainer.freeze"),
    (
        [*ADVERSARY, "objective.start=1", "trainer.critic_start=3"],
        None,
        "objective=adversarial … trainer.critic_start=3 … objective.start",
    ),
    ([], unequal_lengths, "encoder=toy_conv … unequal lengths … dataset.lengths=grouped"),
    ([], odd_lengths, "dataset.lengths … dataset.grain"),
    (["trainer.compile=true"], one_length, "trainer.compile=True … unequal lengths"),
    (["prior_trainer.compile=true"], one_length, "prior_trainer.compile=True … unequal lengths"),
    (["prior=maskgit"], padded_codes, "prior=maskgit … unequal lengths … wavenet"),
    (["trainer.shard=true", "stage=autoencoder"], None, "trainer.shard=true … stage=autoencoder"),
    (["trainer.shard=true", "prior_trainer.optimizer=muon"], None, "trainer.shard=true … optimizer=muon"),
    (["trainer.checkpoint_activations=true"], None, "trainer.checkpoint_activations=true … PixelCNNPrior … no blocks"),
    (["trainer.graph=true", "trainer.optimizer=muon"], None, "trainer.graph=true … muon … graph=false"),
    (["trainer.precision=fp16", "trainer.optimizer=muon"], None, "trainer.precision=fp16 … optimizer=muon … bf16"),
    (
        ["prior_trainer.precision=fp16", "prior_trainer.optimizer=muon"],
        None,
        "prior_trainer.precision=fp16 … optimizer=muon … bf16",
    ),
    (["quantizer=toy_scales", "prior=scales", "prior_dataset.size=16"], None, "quantizer=toy_scales … (8, 8)"),
]
"""Words, what else is so, and what the refusal names."""


def refusal(act: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(ToolkitError) as error:
        act(*arguments)
    return str(error.value)


@pytest.mark.parametrize(("words", "patched", "text"), CASES, ids=[" ".join(case[0]) or None for case in CASES])
def test_check_says_what_train_says(
    words: list[str],
    patched: Callable[[pytest.MonkeyPatch], None] | None,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before a file is written."""
    config: RunConfig = compose([*TILES, *SIX_STEPS, *PARTS, *words]).config
    if patched:
        patched(monkeypatch)
    checked = refusal(check, config)
    assert refusal(toolkit.train, config, tmp_path / "run") == checked
    assert_names(checked, text)
    assert not (tmp_path / "run" / "config.yaml").exists()
