"""A run whose codes lie at several scales, flat: what it does as every run does, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from messages import assert_names
from test_resume import stop
from toys import TILES, TWO_STEPS, fingerprint, metrics, plugged_in, trainers

import toolkit
from toolkit import ToolkitError
from toolkit.__main__ import run as command
from toolkit.cli.config.compose import compose
from toolkit.cli.long import decode_varying
from toolkit.runs.codes import read_codes
from toolkit.runs.plain import read_json
from toolkit.spec import CodeSpec
from toolkit.stages.run import train

MODEL = [*TILES, "quantizer=toy_scales", "prior=transformer", "prior.hidden=8", "prior.layers=1", "prior.heads=2"]
WORDS = [
    *MODEL,
    *trainers("steps=6", "batch_size=4", "workers=0", "log_every=2", "checkpoint_every=2", "validate_every=3"),
    "prior_trainer.allow_collapsed=true",
]
SCALES = CodeSpec((21,), (16,), ((1, 1), (2, 2), (4, 4)))

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("toys")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with plugged_in():
        train(compose(WORDS).config, folder)
    return folder


@pytest.mark.few(1)
@pytest.mark.parametrize("stage", ["autoencoder", "prior-transformer"])
def test_stopped_and_continued_it_is_the_same(trained: Path, tmp_path: Path, stage: str) -> None:
    stop(WORDS, tmp_path / "run", stage, 3)
    train(compose(WORDS).config, tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(trained)
    assert metrics(tmp_path / "run") == metrics(trained)


def test_its_parts_are_in_the_spec_and_no_other_runs(trained: Path, toy_run: Path) -> None:
    assert toolkit.load(trained).code_spec == SCALES
    assert read_json(trained / "spec.json")["codes"]["parts"] == [[1, 1], [2, 2], [4, 4]]
    assert read_json(toy_run / "spec.json")["codes"].keys() == {"grid", "codebook_sizes"}


def test_codes_are_embedded_decoded_and_sampled(trained: Path) -> None:
    model = toolkit.load(trained, "cpu")
    x = torch.stack([model.dataset.example("test", index, None)["x"] for index in range(5)])
    codes = model.encode(x)
    assert codes.shape == (5, 1, 21)
    with torch.no_grad():
        torch.testing.assert_close(model.autoencoder.embed(codes), model.autoencoder.quantize(x).z)
    assert torch.equal(model.decode(codes), model.reconstruct(x))
    made = model.sample(3, prefix=codes[:3, :, :5])
    assert made.x.shape == (3, *model.spec.shape)
    assert torch.equal(made.codes[:, :, :5], codes[:3, :, :5])


@pytest.mark.slow
def test_the_commands_take_it(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert command(list(words)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    run = f"run={trained}"
    assert_names(said("check", *MODEL), "the parts fit … 1 x 21 … 1 x 1, 2 x 2, 4 x 4 … 84")
    said("evaluate", run, "examples=8")
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert evaluation["rate"] == 84.0
    assert set(evaluation["priors"]) == {"uniform", "transformer"}
    said("sample", run, "n=2", f"out={tmp_path}")
    assert read_codes(tmp_path / "samples.safetensors")[0]["codes"].shape == (2, 1, 21)
    file, codes = tmp_path / "sample-0000.json", tmp_path / "codes.safetensors"
    assert "bits each: 84" in said("encode", run, str(file), f"out={codes}")
    said("decode", run, str(codes), f"out={tmp_path / 'decoded'}")
    assert (tmp_path / "decoded" / "sample-0000.json").is_file()
    said("reconstruct", run, str(file), f"out={tmp_path}")


@pytest.mark.few(2)
@pytest.mark.parametrize("prior", ["uniform", "categorical", "pixelcnn", "maskgit", "wavenet"])
def test_every_prior_models_a_flat_grid(prior: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TILES, "quantizer=toy_scales", f"prior={prior}"]
    assert command(["check", *words]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frames=8"], "frames=8: … parts of 1x1, 2x2, 4x4 … leave frames out"),
        (["prefix.file=FILE"], "prefix.file= … parts … leave prefix.file out"),
    ],
)
def test_what_goes_along_the_data_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert command(["sample", f"run={trained}", "n=1", f"out={tmp_path / 'out'}", *words]) == 2
    assert_names(capsys.readouterr().err, f"toolkit sample: … {message}")
    assert not (tmp_path / "out").exists()


def test_data_of_another_size_is_refused(trained: Path, tmp_path: Path) -> None:
    model = toolkit.load(trained, "cpu")
    with pytest.raises(ToolkitError, match=r"data of \(8, 16\): .* give examples of \(8, 8\)"):
        model.encode(torch.zeros(1, 2, 8, 16, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"codes on \(20,\)"):
        model.decode(torch.zeros(1, 1, 20, dtype=torch.int64))
    with pytest.raises(ToolkitError, match=r"quantizer=toy_scales .*\(8, 8\).*scales="):
        train(compose([*WORDS, "prior_dataset.size=16"]).config, tmp_path / "larger")


def test_files_that_may_vary_are_encoded_on_the_same_grid(trained: Path, tmp_path: Path) -> None:
    run, file, codes = tmp_path / "run", tmp_path / "x.json", tmp_path / "codes.safetensors"
    shutil.copytree(trained, run)
    spec = read_json(run / "spec.json")
    del spec["sha256"]  # as of a run of before there were any
    spec["data"]["varying"] = [True, True]
    (run / "spec.json").write_text(json.dumps(spec))
    file.write_text(json.dumps(torch.zeros(2, 8, 8).long().tolist()))
    assert command(["encode", f"run={run}", str(file), f"out={codes}"]) == 0
    arrays = read_codes(codes)[0]
    assert arrays.keys() == {"codes", "files"}
    assert arrays["codes"].shape == (1, 1, 21)
    with pytest.raises(ToolkitError, match=r"codes of several lengths: .* parts"):
        decode_varying(toolkit.load(run, "cpu"), torch.zeros(1, 1, 21).long(), torch.tensor([[8, 8]]), {})


def test_a_prior_cannot_see_what_changes_along_the_data() -> None:
    words = ["dataset=toy_moves", "encoder=toy_conv", "encoder.stride=1", "decoder=toy_conv", "decoder.stride=1"]
    words += ["dataset.length=4", "likelihood=categorical", "dim=4", "quantizer=toy_scales", "prior=transformer"]
    assert command(["check", *words, "conditions.decoder=[move]"]) == 0
    with pytest.raises(ToolkitError, match=r"conditions.prior=\[move\].* leave move out"):
        train(compose([*words, "conditions.prior=[move]", *TWO_STEPS]).config, Path("nowhere"))


def test_its_codes_are_no_data(trained: Path) -> None:
    words = ["dataset=codes", f"dataset.run={trained}", "encoder=pool", "decoder=pixelcnn", "quantizer=vq", "dim=4"]
    with pytest.raises(ToolkitError, match="its codes lie flat"):
        train(compose([*words, "prior=uniform", *TWO_STEPS]).config, Path("nowhere"))
