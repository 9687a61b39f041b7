"""A stranger's parts that implement what an interface leaves to choice: trained, stopped, continued and used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from stranger.stranger_plugin import SpecksDataset, SumsPrior
from test_resume import resume, stop
from torch import Tensor
from toys import PIXELCNN, SIX_STEPS, TILES, TOY, VQ, fingerprint

import toolkit
from toolkit.cli.config.compose import compose
from toolkit.dataset import Dataset
from toolkit.prior import Prior
from toolkit.spec import CodeSpec, Condition
from toolkit.stages.run import train
from toolkit.testing.dataset import DatasetSuite
from toolkit.testing.prior import PriorSuite

SPECKS = ["dataset=stranger_specks", *TILES[1:], *VQ, *SIX_STEPS, *PIXELCNN]
STRANGER = Path(__file__).parent / "stranger"


@pytest.fixture(autouse=True, scope="module")
def _plugins() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_PLUGIN_PATH", os.pathsep.join((str(TOY), str(STRANGER))))
        yield


class TestSumsPrior(PriorSuite):
    def make(self, code_spec: CodeSpec, conditions: tuple[Condition, ...]) -> Prior:
        return SumsPrior(code_spec, conditions)


@pytest.mark.slow
def test_a_prior_with_a_prefill_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*TILES, *VQ, *SIX_STEPS, "prior=stranger_sums", "conditions.prior=[kind]"]
    train(compose(words).config, tmp_path / "whole")
    stop(words, tmp_path / "run", "prior-stranger_sums", 2)
    resume(tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")

    model = toolkit.load(tmp_path / "run")
    trunk = type(model.priors["stranger_sums"].network.trunk)
    prefixes, prefill = [], trunk.prefill

    def counted(self: Any, state: Any, grid: Sequence[int], embedded: Tensor) -> None:
        prefixes.append(tuple(embedded.shape))
        prefill(self, state, grid, embedded)

    monkeypatch.setattr(trunk, "prefill", counted)
    words_of = {"conditions": {"kind": torch.arange(2)}, "seed": 3}
    codes = model.sample(2, **words_of).codes
    assert not prefixes
    again = model.sample(2, **words_of, prefix=codes.flatten(2)[:, :, :7]).codes
    assert prefixes == [(2, 8, 7)]
    assert torch.equal(again, codes)


class TestSpecksDataset(DatasetSuite):
    def make(self) -> Dataset:
        return SpecksDataset()


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a run whose dataset reads its batches one example after the other."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(compose([*SPECKS, "dataset.at_once=false"]).config, folder)
    return checkpoints(folder)


@pytest.mark.long
@pytest.mark.parametrize(
    "more",
    [
        ["trainer.workers=0"],
        ["trainer.workers=2"],
        ["trainer.data_on_device=true", "prior_trainer.data_on_device=true"],
        ["trainer.data_on_device=true", "trainer.workers=2"],
    ],
    ids=" ".join,
)
@pytest.mark.few(1)
def test_a_dataset_that_batches(one_by_one: dict[str, Any], more: list[str], tmp_path: Path) -> None:
    words = [*SPECKS, *more]
    stop(words, tmp_path / "run", "autoencoder", 4)
    resume(tmp_path / "run")
    assert checkpoints(tmp_path / "run") == one_by_one


def checkpoints(folder: Path) -> dict[str, Any]:
    """The hashes of weights and optimizers. The codes' own file names the dataset's options, which differ."""
    hashes = {name: value for name, value in fingerprint(folder).items() if name.endswith(".safetensors")}
    return {name: value for name, value in hashes.items() if not name.startswith("codes/")}
