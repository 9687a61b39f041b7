"""A run over another's codes: it learns from them, carries what it needs of the other, and goes down to its data."""

from __future__ import annotations

import json
import shutil
from math import log
from pathlib import Path

import pytest
import torch
from toys import PIXELCNN_DECODER, TILES, TWO_STEPS, VQ

import toolkit
from toolkit import Dataset, ToolkitError
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.coding.container import unpack
from toolkit.config import RunConfig
from toolkit.datasets.codes import CodesDataset
from toolkit.model import open_dataset
from toolkit.runs.codes import read_codes
from toolkit.stages.run import train
from toolkit.testing.dataset import DatasetSuite

TRAINERS = [*TWO_STEPS, "prior.hidden=8", "prior.layers=2", "prior.head=8"]
BASE = [*TRAINERS, *TILES, *VQ, "prior=pixelcnn", "conditions.decoder=[kind]"]
STACKED = [
    *TRAINERS,
    "dataset=codes",
    "encoder=pool",
    "encoder.hidden=8",
    "quantizer=product",
    "quantizer.groups=3",
    "quantizer.inner.codebook_size=8",
    *PIXELCNN_DECODER,
    "dim=12",
    "prior=pixelcnn",
    "conditions.prior=[kind]",
]

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]


@pytest.fixture(scope="module")
def runs(toys: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base run whose folder has a name that no grammar likes, and a run over its codes."""
    folder = tmp_path_factory.mktemp("runs")
    base, stacked = folder / "바탕 [1], a=b", folder / "stacked"
    train(compose(BASE).config, base)
    train(compose([*STACKED, f"dataset.run={base}"]).config, stacked)
    return base, stacked


@pytest.fixture(scope="module")
def stacked(runs: tuple[Path, Path]) -> RunConfig:
    """The configuration of a run over the base's codes."""
    return compose([*STACKED, f"dataset.run={runs[0]}"]).config


class TestCodesDataset(DatasetSuite):
    """``write`` decodes and ``read`` encodes, which loses what two steps of training lose."""

    lossless = False

    @pytest.fixture(autouse=True)
    def _config(self, stacked: RunConfig) -> None:
        self.config = stacked

    def make(self) -> Dataset:
        return open_dataset(self.config)


def test_examples_are_the_bases_codes(runs: tuple[Path, Path], stacked: RunConfig) -> None:
    base = toolkit.load(runs[0])
    dataset = open_dataset(stacked)
    assert isinstance(dataset, CodesDataset)
    assert not dataset.spec.ordered
    assert (dataset.spec.shape, dataset.spec.levels) == ((1, 4, 4), 16)
    assert dataset.spec.conditions == base.spec.conditions
    for index in range(3):
        row = base.dataset.example("test", index, None)
        made = dataset.example("test", index, torch.Generator().manual_seed(index))
        assert torch.equal(made["x"], base.encode(row["x"][None])[0])
        assert torch.equal(made["kind"], row["kind"])


def test_three_global_codes_are_all_that_is_left(runs: tuple[Path, Path]) -> None:
    model = toolkit.load(runs[1])
    assert model.code_spec.shape == (3, 1, 1)
    assert model.code_spec.rate == 9.0
    assert model.spec.shape == (2, 8, 8)
    assert model.data.shape == (1, 4, 4)


def test_it_samples_down_to_the_data_without_its_base(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Moved to another place, and the base gone: the chain is the same."""
    alone = tmp_path / "alone"
    shutil.copytree(runs[1], alone)
    config = (alone / "config.yaml").read_text().replace(str(runs[0]), str(tmp_path / "gone"))
    (alone / "config.yaml").write_text(config)
    for path in alone.glob("priors/*/config.yaml"):
        path.write_text(config)
    model, kinds = toolkit.load(alone), {"kind": torch.arange(5) % 3}
    x, codes = model.sample(5, kinds, seed=3)
    assert x.shape == (5, 2, 8, 8)
    assert codes.shape == (5, 3, 1, 1)
    again, same = toolkit.load(runs[1]).sample(5, kinds, seed=3)
    assert torch.equal(again, x)
    assert torch.equal(same, codes)


def test_the_chain_is_the_runs_one_after_the_other(runs: tuple[Path, Path]) -> None:
    base, stacked = (toolkit.load(run) for run in runs)
    x = torch.stack([base.dataset.example("test", i, None)["x"] for i in range(4)])
    kinds = {"kind": torch.arange(4) % 3}
    lower = base.encode(x)
    codes = stacked.encode(x)
    assert torch.equal(codes, stacked.autoencoder.quantize(lower).codes)
    z = stacked.autoencoder.embed(codes)
    made = stacked.autoencoder.decode(z, {}).sample(torch.Generator().manual_seed(7))
    assert torch.equal(stacked.decode(codes, kinds, seed=7), base.decode(made, kinds))
    assert torch.equal(stacked.reconstruct(x, kinds, seed=7), base.decode(made, kinds))


def test_a_lossless_file_holds_both_runs_numbers(runs: tuple[Path, Path]) -> None:
    """Its own codes, the base's given these, and the data given the base's: the data comes back, at what they cost."""
    base, stacked = (toolkit.load(run, "cpu") for run in runs)
    x = torch.stack([base.dataset.example("test", i, None)["x"] for i in range(4)])
    kinds = {"kind": torch.arange(4) % 3}
    data = stacked.compress(x, kinds, lossless=True)
    assert torch.equal(stacked.decompress(data), x)
    with torch.no_grad():
        lower, codes = base.encode(x), stacked.encode(x)
        nats = stacked.prior().log_prob(codes, kinds)
        for model, of, coded in ((stacked, lower, codes), (base, x, lower)):
            nats = nats + model.autoencoder.decode(model.autoencoder.embed(coded), kinds).log_prob(of)
    bits = -float(nats.double().sum()) / log(2)
    assert abs(8 * len(unpack(data)[1]) - bits) < 0.003 * bits + 16


def test_it_learns_from_codes_that_are_kept(runs: tuple[Path, Path]) -> None:
    arrays, _ = read_codes(runs[1] / "base" / "codes" / "train.safetensors")
    base = toolkit.load(runs[0])
    x = base.dataset.example("train", 5, None)["x"]
    assert (arrays["codes"][5] == base.encode(x[None])[0].numpy()).all()
    assert {path.name for path in (runs[1] / "base").iterdir()} == {
        "autoencoder",
        "codes",
        "components.json",
        "config.yaml",
        "spec.json",
    }


def test_commands_go_through_both(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stacked = runs[1]
    assert command(["evaluate", f"run={stacked}", "examples=4"]) == 0
    told = json.loads((stacked / "evaluation.json").read_text())
    assert told["rate"] == 9.0
    assert told["data_bits_per_dim"] > 0
    assert "mse" not in told
    assert command(["sample", f"run={stacked}", "n=2", f"out={tmp_path / 's'}", "condition.kind=a"]) == 0
    said = capsys.readouterr().out
    assert "codes: 6 in " in said
    written = json.loads((tmp_path / "s" / "sample-0000.json").read_text())
    assert torch.tensor(written).shape == (2, 8, 8)
    file = str(tmp_path / "s" / "sample-0000.json")
    assert command(["encode", f"run={stacked}", file, f"out={tmp_path / 'c.safetensors'}"]) == 0
    assert command(["decode", f"run={stacked}", str(tmp_path / "c.safetensors"), f"out={tmp_path / 'd'}"]) == 0
    assert command(["reconstruct", f"run={stacked}", file, f"out={tmp_path / 'r'}"]) == 0
    assert command(["reconstruct", f"run={stacked}", "examples=2", "dataset.size=8"]) == 0
    assert command(["check", *STACKED, f"dataset.run={runs[0]}"]) == 0
    assert "3 x 1 x 1" in capsys.readouterr().out


def test_a_continuation_keeps_its_base(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The other run has gone on since, or is gone: this one's codes stay what they were."""
    run = tmp_path / "run"
    shutil.copytree(runs[1], run)
    for path in run.rglob("config*.yaml"):
        path.write_text(path.read_text().replace(str(runs[0]), str(tmp_path / "gone")))
    before = {p.name: p.read_bytes() for p in (run / "base").rglob("*") if p.is_file()}
    assert command(["train", f"run={run}", "trainer.steps=4"]) == 0
    assert {p.name: p.read_bytes() for p in (run / "base").rglob("*") if p.is_file()} == before
    assert toolkit.load(run).checkpoint.step == 4


@pytest.mark.slow
def test_a_third_run_over_the_second(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Stacks may be of any height: it carries the whole of them."""
    words = [word for word in STACKED if word not in ("dim=12", "quantizer.groups=3")]
    out = tmp_path / "third"
    train(compose([*words, "dim=4", "quantizer.groups=1", f"dataset.run={runs[1]}"]).config, out)
    model = toolkit.load(out)
    assert model.base is not None
    assert model.base.base is not None
    x, codes = model.sample(2)
    assert x.shape == (2, 2, 8, 8)
    assert codes.shape == (2, 1, 1, 1)
    assert model.decode(codes).shape == x.shape


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.run=nowhere"], "dataset.run=nowhere: no such folder"),
        ([], "dataset.run: no value"),
        (["quantizer.groups=5"], "groups=5"),
    ],
)
def test_what_cannot_be_stacked_is_refused(
    words: list[str], message: str, runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = words if any("dataset.run" in word for word in words) or not words else [*words, f"dataset.run={runs[0]}"]
    assert command(["check", *STACKED, *given]) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_codes_or_with_uneven_ones_is_refused(tmp_path: Path) -> None:
    words = [word for word in BASE if not word.startswith("quantizer")]
    train(compose([*words, "quantizer=gaussian"]).config, tmp_path / "gaussian")
    with pytest.raises(ToolkitError, match=r"dataset=codes: run=.*gaussian: .*bottleneck is continuous"):
        open_dataset(compose([*STACKED, f"dataset.run={tmp_path / 'gaussian'}"]).config)
