"""What is refused before a run trains: ``toolkit check`` and ``toolkit train`` say the same of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import assert_names
from toys import SIX_STEPS, TILES

import toolkit
from toolkit import registry
from toolkit.cli.check import check
from toolkit.cli.config.compose import compose
from toolkit.config import RunConfig
from toolkit.dataset import Dataset
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


def prior_lengths(patch: pytest.MonkeyPatch, *lengths: int) -> None:
    """Examples of ``prior_dataset.size=16`` alone have lengths, in batches of one length."""
    cls = registry.load("dataset", "toy_tiles")
    patch.setattr(
        cls, "lengths", lambda self, split: [*lengths] * (self.size(split) // len(lengths)) if is_prior(self) else None
    )
    patch.setattr(cls, "one_length", True, raising=False)


def prior_odd_lengths(patch: pytest.MonkeyPatch) -> None:
    prior_lengths(patch, 3)


def prior_one_length(patch: pytest.MonkeyPatch) -> None:
    prior_lengths(patch, 8, 16)


def prior_without_val(patch: pytest.MonkeyPatch) -> None:
    cls = registry.load("dataset", "toy_tiles")
    patch.setattr(cls, "size", lambda self, split: 0 if is_prior(self) and split == "val" else cls.examples[split])


def is_prior(dataset: Dataset) -> bool:
    return dataset.spec.axes == (16, 16)


def single_number(patch: pytest.MonkeyPatch) -> None:
    """The prior has a parameter that cannot be divided over ranks."""
    cls = registry.load("prior", "pixelcnn")
    build = cls.__init__

    def with_number(self: Any, *arguments: Any, **options: Any) -> None:
        build(self, *arguments, **options)
        self.number = torch.nn.Parameter(torch.zeros(()))

    patch.setattr(cls, "__init__", with_number)


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
    (["prior_dataset.size=16"], prior_odd_lengths, "dataset.lengths … dataset.grain"),
    (
        ["prior_dataset.size=16", "prior_trainer.compile=true"],
        prior_one_length,
        "prior_trainer.compile=True … unequal lengths",
    ),
    (["prior_dataset.size=16", "prior_trainer.best=val/loss"], prior_without_val, "prior_trainer.best … no val split"),
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


@pytest.mark.parametrize(
    ("words", "patched", "text"),
    [
        (["trainer.ranks=2", "trainer.graph=true"], None, "trainer.graph=true … trainer.ranks=2"),
        (["trainer.ranks=2", "trainer.shard=true"], single_number, "trainer.shard=true: number … single number"),
        (["quantizer=gaussian", "stage=prior"], None, "a continuous bottleneck … no prior … stage=autoencoder"),
    ],
)
def test_check_says_what_one_process_or_an_empty_folder_cannot(
    words: list[str],
    patched: Callable[[pytest.MonkeyPatch], None] | None,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There ``train`` asks first for the other ranks, or for an autoencoder."""
    if patched:
        patched(monkeypatch)
    assert_names(refusal(check, compose([*TILES, *SIX_STEPS, *PARTS, *words]).config), text)


def test_a_priors_best_asks_for_validation_data_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of stage one's."""
    cls = registry.load("dataset", "toy_tiles")
    monkeypatch.setattr(cls, "size", lambda self, split: cls.examples[split] if is_prior(self) or split != "val" else 0)
    words = ["prior_dataset.size=16", "prior_trainer.best=val/loss"]
    assert check(compose([*TILES, *SIX_STEPS, *PARTS, *words]).config) == 0
