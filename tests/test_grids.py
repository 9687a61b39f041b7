"""Runs whose codes lie on several grids, whole: trained, stopped and continued, sampled, and as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_resume import stop
from toys import TILES, fingerprint, metrics, trainers

import toolkit
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.stages.run import train

QUANTIZERS = {
    "multiscale": ["quantizer.grid=[4,4]", "quantizer.divisors=[4,2]", "quantizer.inner.codebook_size=16"],
    "hierarchy": ["quantizer.grid=[4,4]", "quantizer.hidden=8", "quantizer.inner.codebook_size=16"],
}
PRIORS = {
    "scales": ["prior.hidden=8", "prior.layers=1", "prior.heads=2"],
    "coarse_to_fine": ["prior.hidden=8", "prior.inner.hidden=8", "prior.inner.layers=1", "prior.inner.head=8"],
}
STEPS = trainers("steps=6", "batch_size=4", "workers=0", "log_every=2", "checkpoint_every=2", "validate_every=3")
CASES = [("multiscale", "scales"), ("hierarchy", "coarse_to_fine")]

pytestmark = [pytest.mark.usefixtures("toys"), pytest.mark.slow]


@pytest.mark.parametrize(("quantizer", "prior"), CASES)
def test_a_run_of_several_grids(quantizer: str, prior: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TILES, f"quantizer={quantizer}", *QUANTIZERS[quantizer], f"prior={prior}", *PRIORS[prior], *STEPS]
    config = compose([*words, "conditions.prior=[kind]", "prior_trainer.allow_collapsed=true"]).config
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config, whole)
    for stage in ("autoencoder", f"prior-{prior}"):
        stop([*words, "conditions.prior=[kind]", "prior_trainer.allow_collapsed=true"], stopped, stage, 3)
    train(config, stopped)
    assert fingerprint(stopped) == fingerprint(whole)
    assert metrics(stopped) == metrics(whole)

    model = toolkit.load(whole, "cpu")
    x = torch.stack([model.dataset.example("test", index, None)["x"] for index in range(4)])
    codes = model.encode(x)
    assert codes.shape == (4, *model.code_spec.shape)
    assert torch.equal(model.decode(codes), model.reconstruct(x))
    first = model.code_spec.parts[0]
    prefix = codes[:, :, : torch.tensor(first).prod()]
    sampled = model.sample(4, prefix=prefix, seed=1)
    assert torch.equal(sampled.codes[:, :, : prefix.shape[2]], prefix)
    assert torch.equal(model.sample(4, prefix=prefix, seed=1).codes, sampled.codes)

    assert command(["evaluate", f"run={whole}", "examples=8"]) == 0
    evaluation = json.loads((whole / "evaluation.json").read_text())
    assert set(evaluation["priors"]) == {"uniform", prior}
    assert command(["sample", f"run={whole}", "n=2", "guidance=2", f"out={tmp_path / 'samples'}"]) == 0
    packed = tmp_path / "x.tkc"
    assert command(["compress", f"run={whole}", "split=test", f"out={packed}"]) == 0
    assert command(["decompress", f"run={whole}", str(packed), f"out={tmp_path / 'back'}"]) == 0
    capsys.readouterr()
