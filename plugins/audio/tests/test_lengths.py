"""Whole voices, of their own lengths: trained in both stages, continued and evaluated."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from made_sounds import align

import toolkit
from toolkit import ToolkitError
from toolkit.lengths.mask import MASK
from toolkit.report import Silence
from toolkit_audio.folder import FolderDataset

GRAIN = 160
WORDS = [
    *("dataset=audio_folder", "dataset.seconds=0.7", f"dataset.grain={GRAIN}", "dim=4"),
    *("encoder=audio_conv", "encoder.hidden=4", "encoder.strides=[4,4]", "decoder=audio_conv", "decoder.hidden=4"),
    *("decoder.narrowest=4", "decoder.strides=[4,4]", "likelihood=logistic", "likelihood.mixtures=2"),
    *(
        "quantizer=residual_ema",
        "quantizer.depth=2",
        "quantizer.inner.codebook_size=8",
        "metric=[reconstruction,codebook]",
    ),
    *("prior=wavenet", "prior.hidden=4", "prior.layers=2", "prior.skip=8", "prior.head=8"),
    *("conditions.decoder=[speaker]", "conditions.prior=[speaker]", "prior_trainer.allow_collapsed=true"),
    *(
        f"{stage}.{word}"
        for stage in ("trainer", "prior_trainer")
        for word in ("batch_size=3", "workers=0", "log_every=1", "checkpoint_every=2", "validate_every=3")
    ),
]


def test_a_shorter_file_is_an_example_of_its_own_length(voices: Path) -> None:
    dataset = FolderDataset(root=str(voices), seconds=0.7, lengths="own", grain=GRAIN)
    equal = FolderDataset(root=str(voices), seconds=0.7)
    for split in ("train", "val", "test"):
        lengths = dataset.lengths(split)
        assert lengths is not None
        assert equal.lengths(split) is None
        assert not any(length % GRAIN for length in lengths)
        for index, length in enumerate(lengths):
            x, whole = (each.example(split, index, None)["x"] for each in (dataset, equal))
            assert x.shape == (1, length)
            assert torch.equal(x, whole[:, :length])
            assert (whole[:, length:] == whole[0, -1]).all()  # silence
    batch = dataset.batch("train", [0, 5], None)
    assert batch[MASK].sum(1).tolist() == [(dataset.lengths("train") or [])[index] for index in (0, 5)]


def test_the_longest_is_a_whole_number_of_grains(voices: Path) -> None:
    with pytest.raises(ValueError, match="grain=1000"):
        FolderDataset(root=str(voices), seconds=0.7, lengths="own", grain=1000)


def test_what_stands_in_for_a_broken_file_is_as_long_as_it(voices: Path) -> None:
    dataset = FolderDataset(root=str(voices), seconds=0.7, lengths="grouped", grain=GRAIN, on_error="skip")
    lengths = dataset.lengths("train") or []
    index = next(i for i in range(len(lengths) - 1) if lengths[i] != lengths[i + 1])
    broken = dataset.splits["train"][dataset.windows["train"][index, 0]].path
    (voices / broken).write_bytes(b"no sound")
    assert dataset.example("train", index, None)["x"].shape == (1, lengths[index])


def train(folder: Path, *words: str, run: Path | None = None) -> None:
    toolkit.train(toolkit.compose(*words, run=run) if run else toolkit.compose(*words), folder, report=Silence())


def fingerprint(folder: Path) -> dict[str, str]:
    """Hashes of everything in the last checkpoints, and of the codes."""
    stages = [folder / "autoencoder", folder / "priors" / "wavenet"]
    paths = [file for stage in stages for file in max(stage.glob("step-????????")).iterdir()]
    paths += (folder / "codes").glob("*")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


@pytest.fixture
def plain(voices: Path) -> Path:
    """The voices in a folder that needs no quotes."""
    return voices.rename(voices.parent / "voices")


def words_of(root: Path, lengths: str, steps: int, *more: str) -> list[str]:
    given = [f"dataset.root={root}", f"dataset.lengths={lengths}"]
    return [*WORDS, *given, f"trainer.steps={steps}", f"prior_trainer.steps={steps}", *more]


@pytest.mark.long
@pytest.mark.parametrize("lengths", ["own", "grouped"])
def test_a_continued_run_is_an_uninterrupted_one(plain: Path, tmp_path: Path, lengths: str) -> None:
    train(tmp_path / "whole", *words_of(plain, lengths, 4))
    train(tmp_path / "parts", *words_of(plain, lengths, 2))
    train(tmp_path / "parts", "trainer.steps=4", "prior_trainer.steps=4", run=tmp_path / "parts")
    assert fingerprint(tmp_path / "whole") == fingerprint(tmp_path / "parts")


@pytest.mark.long
@pytest.mark.parametrize("lengths", ["own", "grouped"])
def test_figures_are_those_of_one_by_one(plain: Path, tmp_path: Path, lengths: str) -> None:
    """With labels of phones along time, seen by the prior."""
    align(plain)
    phones = f"dataset.phones={plain.parent / 'phones'}"
    train(tmp_path / "run", *words_of(plain, lengths, 2, phones, "conditions.prior=[speaker,phone]"))
    batched, alone = (toolkit.evaluate(tmp_path / "run", split="train", batch_size=n, device="cpu") for n in (8, 1))
    assert batched["dims"] < 11200
    for name, value in batched.items():
        if isinstance(value, float):
            assert value == pytest.approx(alone[name], rel=1e-5, abs=1e-9), name


@pytest.mark.long
def test_parts_without_padding_learn_from_batches_of_one_length(plain: Path, tmp_path: Path) -> None:
    """And where they would see padding, they are refused before a file is written."""
    words = [*("encoder=audio_seanet", "encoder.strides=[4,4]", "encoder.norm=group", "dataset.grain=1600")]
    with pytest.raises(ToolkitError, match=r"audio_seanet.*dataset\.lengths=grouped"):
        train(tmp_path / "run", *words_of(plain, "own", 2, *words))
    assert not (tmp_path / "run").exists()
    train(tmp_path / "run", *words_of(plain, "grouped", 2, *words))
    assert toolkit.evaluate(tmp_path / "run", split="train", device="cpu")["bits_per_dim"] > 0


def test_a_prior_that_takes_no_padding_is_refused_before_anything_is_trained(plain: Path, tmp_path: Path) -> None:
    words = [word for word in words_of(plain, "own", 2) if not word.startswith("prior")]
    with pytest.raises(ToolkitError, match=r"prior=maskgit .*unequal lengths"):
        train(tmp_path / "run", *words, "prior=maskgit", "prior.hidden=8", "prior.layers=1", "prior.heads=2")
    assert not (tmp_path / "run").exists()
