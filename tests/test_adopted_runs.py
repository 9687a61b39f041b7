"""What is done with a run of adopted weights: used, given a prior, tuned in part, and started from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from messages import assert_names
from published import publish, write_data
from safetensors.torch import load_file
from torch import Tensor
from toys import plugged_in

import toolkit
from toolkit import ToolkitError
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.report import Silence
from toolkit.runs.folder import Run
from toolkit.stages.run import train

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]
STEPS = ["trainer.steps=2", "trainer.batch_size=4", "trainer.workers=0", "trainer.learning_rate=0.01"]
PRIOR = ["stage=prior", "prior=categorical", "prior_trainer.steps=2", "prior_trainer.batch_size=4"]
OPEN = ["prior_trainer.workers=0", "prior_trainer.allow_collapsed=true"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adopted weights and data."""
    home = tmp_path_factory.mktemp("adopted")
    with plugged_in():
        toolkit.adopt("toy_kin", publish(home / "there"), home / "run")
    write_data(home / "data")
    return home


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Run:
    """A copy of it."""
    shutil.copytree(home / "run", tmp_path / "run")
    return Run(tmp_path / "run")


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(max(run.autoencoder.glob("step-*")) / "model.safetensors")


def of(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(f"model.{part}.")}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_its_files_are_encoded_and_decoded(run: Run, home: Path, tmp_path: Path) -> None:
    file = next((home / "data" / "test").rglob("*.json"))
    assert command(["encode", f"run={run.path}", f"out={tmp_path / 'codes.npz'}", str(file)]) == 0
    assert command(["compress", f"run={run.path}", f"out={tmp_path / 'a.tkc'}", str(file)]) == 0
    assert command(["evaluate", f"run={run.path}", f"dataset.root={home / 'data'}", "workers=0"]) == 0


def test_who_opens_its_dataset_is_asked_for_the_folder(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["train", *PRIOR], ["evaluate"]):
        assert command([words[0], f"run={run.path}", *words[1:]]) == 2
        message = capsys.readouterr().err
        assert "dataset.root: no value; add dataset.root=" in message
        assert "new since" not in message


def test_a_prior_is_trained_on_its_codes(run: Run, home: Path) -> None:
    """With the labels of the data that it is then given, which no adopted run knows."""
    before = weights(run)
    words = [f"run={run.path}", *PRIOR, *OPEN, f"dataset.root={home / 'data'}", "conditions.prior=[kind]"]
    assert command(["train", *words]) == 0
    assert [condition.labels for condition in run.spec()[0].conditions] == [("flat", "round")]
    assert same(weights(run), before)
    model = toolkit.load(run.path, "cpu")
    assert model.sample(2, prior="categorical").x.shape == (2, 2, 8, 8)
    (home / "data").rename(home / "moved")
    try:
        (home / "moved" / "train" / "flat").rename(home / "moved" / "train" / "even")
        assert command(["train", f"run={run.path}", f"dataset.root={home / 'moved'}", "prior_trainer.steps=3"]) == 2
    finally:
        (home / "moved" / "train" / "even").rename(home / "moved" / "train" / "flat")
        (home / "moved").rename(home / "data")


@pytest.mark.few(1)
@pytest.mark.parametrize("more", [[], ["trainer.ema=0.5"], ["trainer.optimizer=adamw", "trainer.weight_decay=0.5"]])
def test_the_decoder_alone_is_tuned(run: Run, home: Path, more: list[str]) -> None:
    before = weights(run)
    freeze = "trainer.freeze=[encoder,quantizer]"
    words = [f"run={run.path}", *STEPS, freeze, f"dataset.root={home / 'data'}", "stage=autoencoder", *more]
    assert command(["train", *words]) == 0
    after = weights(run)
    assert same(of("encoder", after), of("encoder", before))
    assert same(of("quantizer", after), of("quantizer", before))
    assert not same(of("decoder", after), of("decoder", before))


def test_gradients_pass_through_a_frozen_quantizer(run: Run, home: Path) -> None:
    before = weights(run)
    words = [f"run={run.path}", *STEPS, "trainer.freeze=[quantizer]", f"dataset.root={home / 'data'}"]
    assert command(["train", *words]) == 0
    after = weights(run)
    assert same(of("quantizer", after), of("quantizer", before))
    for part in ("encoder", "decoder"):
        one, other = of(part, before), of(part, after)
        assert not any(torch.equal(one[name], other[name]) for name in one), part


def test_a_part_is_frozen_after_it_was_trained(run: Run, home: Path) -> None:
    """It stays what it was to whoever opened the run: its average."""
    root = f"dataset.root={home / 'data'}"
    words = [f"run={run.path}", "stage=autoencoder", *STEPS, root]
    assert command(["train", *words, "trainer.ema=0.5"]) == 0
    opened = toolkit.load(run.path, "cpu").autoencoder.encoder.state_dict()
    assert command(["train", *words, "trainer.freeze=[encoder]", "trainer.steps=3"]) == 0
    frozen = toolkit.load(run.path, "cpu").autoencoder.encoder.state_dict()
    assert same(frozen, opened)
    assert command(["train", *words, "trainer.freeze=[]", "trainer.steps=4"]) == 0
    assert not same(toolkit.load(run.path, "cpu").autoencoder.encoder.state_dict(), opened)


@pytest.mark.slow
def test_tuning_continues_exactly(run: Run, home: Path, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "other")
    words = [
        "stage=autoencoder",
        *STEPS,
        "trainer.steps=4",
        f"dataset.root={home / 'data'}",
        "trainer.freeze=[encoder]",
    ]
    assert command(["train", f"run={run.path}", *words]) == 0
    for steps in (2, 4):
        assert command(["train", f"run={tmp_path / 'other'}", *words, f"trainer.steps={steps}"]) == 0
    assert same(weights(run), weights(Run(tmp_path / "other")))


def test_what_cannot_be_frozen_is_named(run: Run, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a file is written."""
    before = sorted(path.name for path in run.path.iterdir())
    words = ["train", f"run={run.path}", *STEPS, f"dataset.root={home / 'data'}"]
    for frozen, names in (
        (
            "encoder,quantiser",
            "toolkit train: trainer.freeze[1]: expects one of encoder, quantizer, decoder, objective",
        ),
        ("encoder,quantizer,decoder", "toolkit train: trainer.steps=2 … nothing to train … trainer.freeze=[encoder"),
    ):
        assert command([*words, f"trainer.freeze=[{frozen}]"]) == 2
        assert_names(capsys.readouterr().err, names)
    assert sorted(path.name for path in run.path.iterdir()) == before


# -- init


def started(home: Path, folder: Path, *words: str) -> list[str]:
    """A run of the adopted one's networks that starts from it; what its log says of that."""
    config = Run(home / "run").config()
    networks = [
        f"{kind}.{key}={list(value) if isinstance(value, tuple | list) else value}"
        for kind in ("encoder", "decoder")
        for key, value in getattr(config, kind).options.items()
        if value is not None
    ]
    base = ["dataset=toy_files", f"dataset.root={home / 'data'}", "encoder=conv", "decoder=conv", *networks]
    rest = ["quantizer=vq", "quantizer.codebook_size=16", "dim=4", "likelihood=categorical", "stage=autoencoder"]
    train(compose([*base, *rest, *STEPS, f"init={home / 'run'}", *words]).config, folder, report=Silence())
    return [line for line in (folder / "log.txt").read_text().splitlines() if "init=" in line]


def test_another_run_starts_from_the_parts_that_agree(home: Path, tmp_path: Path) -> None:
    still = ["trainer.freeze=[encoder,quantizer,objective]", "trainer.learning_rate=1e-30"]
    assert started(home, tmp_path / "same", *still) == []
    assert same(weights(Run(tmp_path / "same")), weights(Run(home / "run")))
    (note,) = started(home, tmp_path / "other", "quantizer.codebook_size=32", "trainer.learning_rate=1e-30")
    assert_names(
        note[20:], f"init={home / 'run'}: decoder, encoder … anew: quantizer (model.quantizer.codebook (32, 4) here"
    )
    one, other = weights(Run(tmp_path / "other")), weights(Run(home / "run"))
    assert same(of("encoder", one), of("encoder", other))
    assert same(of("decoder", one), of("decoder", other))
    assert one["model.quantizer.codebook"].shape == (32, 4)


def test_a_part_without_weights_is_not_frozen(home: Path, tmp_path: Path) -> None:
    words = ["quantizer.codebook_size=32", "trainer.freeze=[quantizer]"]
    with pytest.raises(ToolkitError, match=r"trainer.freeze=\[quantizer\]: .* would stay random"):
        started(home, tmp_path / "other", *words)
    with pytest.raises(ToolkitError, match="no part has the tensors that this model's has: encoder"):
        started(home, tmp_path / "none", *words[:1], "encoder.hidden=8", "decoder.hidden=8")
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "none").exists()
