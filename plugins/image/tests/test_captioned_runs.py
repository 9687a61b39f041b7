"""A run whose priors read captions: trained, resumed, sampled, measured, compressed and packed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import toolkit
from toolkit.__main__ import run as command
from toolkit.dataset import collate
from toolkit_image.shapes import ShapesDataset

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:prior=transformer has no kernel_size"),  # of the experiment's own prior
]

SIZES = ["dataset.size=16", "dataset.train_size=32", "dataset.val_size=4", "dataset.test_size=4"]
WORDS = [
    *("image_shapes", "dataset.captions=true", "dataset.unseen=[red star]", "conditions.prior=[caption]", *SIZES),
    *("encoder.hidden=8", "decoder.hidden=8", "quantizer.codebook_size=16", "dim=8", "prior=transformer"),
    *("trainer.steps=2", "trainer.batch_size=4", "trainer.pictures_every=2", "prior_trainer.allow_collapsed=true"),
    *("prior.hidden=8", "prior.layers=2", "prior.heads=2", "prior.conditioner.hidden=8", "prior.conditioner.layers=1"),
    *("prior_trainer.batch_size=4", "prior_trainer.checkpoint_every=2", "prior_trainer.learning_rate=0.03"),
    "prior_trainer.schedule=constant",
]
STEPS = 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "captioned"
    toolkit.train(toolkit.compose(*WORDS, f"prior_trainer.steps={STEPS}"), folder)
    toolkit.train(toolkit.compose(*MASKGIT, run=folder), folder)
    return folder


MASKGIT = ["stage=prior", "prior=maskgit", "prior.hidden=8", "prior.layers=1", "prior.heads=2", "prior.passes=2"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "priors" / "transformer" / f"step-{STEPS:08d}" / "model.safetensors")


def test_the_run_knows_that_a_condition_is_a_text(trained: Path) -> None:
    conditions = json.loads((trained / "spec.json").read_text())["data"]["conditions"]
    assert [condition.get("text") for condition in conditions] == [None, None, True]
    model = toolkit.load(trained)
    assert model.spec.conditions[2].text
    assert model.seen("transformer") == {"caption"}


def test_stop_and_continue(trained: Path, tmp_path: Path) -> None:
    """What is read is part of the checkpoint."""
    toolkit.train(toolkit.compose(*WORDS, f"prior_trainer.steps={STEPS}", "stage=autoencoder"), tmp_path / "run")
    for steps in (2, STEPS):
        words = ["stage=prior", f"prior_trainer.steps={steps}"]
        toolkit.train(toolkit.compose(*words, run=tmp_path / "run"), tmp_path / "run")
    one, other = weights(trained), weights(tmp_path / "run")
    assert one.keys() == other.keys()
    assert any("conditioners.0.table" in name for name in one)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(("prior", "given"), [("transformer", "[a red star, a blue ring]"), ("maskgit", "@two texts")])
def test_samples_are_those_of_their_captions(
    trained: Path, tmp_path: Path, prior: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    Path("two texts").write_text("a red star\na blue ring\n")
    words = ["sample", f"run={trained}", "n=4", f"out={out}", f"prior={prior}", "seed=3", "guidance=2"]
    assert command([*words, f"condition.caption={given}"]) == 0
    codes = load_file(out / "samples.safetensors")["codes"]
    model = toolkit.load(trained)
    texts = ["a red star", "a blue ring"]
    again = model.sample(4, {"caption": texts}, seed=3, guidance=2.0, prior=prior).codes
    assert torch.equal(codes.long(), again.cpu())
    single = model.sample(4, {"caption": texts[0]}, seed=3, guidance=2.0, prior=prior).codes
    assert torch.equal(single[::2], again[::2])
    assert not torch.equal(single[1::2], again[1::2])


def test_a_caption_that_is_too_long_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["sample", f"run={trained}", "n=1", "condition.caption=a very long red star"]) == 2
    assert "condition.caption=a very long red star: it has 20 bytes" in capsys.readouterr().err


def test_bits_are_those_under_the_captions(trained: Path) -> None:
    rows = toolkit.evaluate(trained, examples=4)["priors"]
    assert rows["transformer"]["code_bits_per_dim"] > 0
    model, data = toolkit.load(trained), ShapesDataset(size=16, captions=True)
    batch = collate(data, "test", range(4), None)
    codes = model.encode(batch["x"])
    with torch.no_grad():
        nats = -model.prior("transformer").log_prob(codes, {"caption": batch["caption"]})
    bits = float(nats.double().mean()) / (3 * 16 * 16) / torch.tensor(2.0).log().item()
    assert rows["transformer"]["code_bits_per_dim"] == pytest.approx(bits, rel=1e-4)


def test_a_compressed_file_has_its_captions(trained: Path) -> None:
    model = toolkit.load(trained)
    x = ShapesDataset(size=16).example("test", 0, None)["x"][None]
    for given in ({"caption": "a red star"}, {}):
        data = model.compress(x, given, prior="transformer")
        assert torch.equal(model.decompress(data), model.decode(model.encode(x)))


def test_a_prior_that_reads_is_not_exported(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(toolkit.ToolkitError, match="prior=transformer: it reads texts"):
        toolkit.export(trained, tmp_path / "graphs", format="torch", prior="transformer")


def test_captions_are_packed(tmp_path: Path) -> None:
    words = ["pack", "dataset=image_shapes", "dataset.captions=true", *SIZES, f"out={tmp_path / 'out'}", "shard_mb=1"]
    assert command(words) == 0
    shards = toolkit.compose("image_shapes", "dataset=shards", f"dataset.root={tmp_path / 'out'}")
    from toolkit.build import build_dataset

    packed, data = build_dataset(shards), ShapesDataset(size=16, captions=True)
    assert packed.spec.conditions == data.spec.conditions
    for name, value in data.example("train", 3, None).items():
        assert torch.equal(packed.example("train", 3, None)[name], value)
