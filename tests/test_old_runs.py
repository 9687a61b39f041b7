"""A run of version 0.1, kept in ``old_run``, opens, samples the same codes, and continues as it would have then.

Its files carry no format number. Its quantizer was saved with ``normalise`` and ``restart``, its weights under names
such as ``inward`` and ``initialised``; ``expected.safetensors`` holds what version 0.1 itself made of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import toolkit
from toolkit.__main__ import run as command
from toolkit.runs import formats
from toolkit.runs.folder import Run
from toolkit.runs.plain import read_json, read_yaml

OLD = Path(__file__).resolve().parent / "old_run"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(OLD / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    """Under today's names."""
    return {formats.current_tensor(name, 0): value for name, value in load_file(OLD / "expected.safetensors").items()}


def test_the_run_is_of_format_0() -> None:
    assert "format" not in read_yaml(OLD / "run" / "config.yaml")
    assert "format" not in read_json(OLD / "run" / "spec.json")
    assert all("format" not in read_json(path) for path in OLD.rglob("state.json"))


def test_it_opens_under_todays_names(run: Path) -> None:
    model = toolkit.load(run)
    options = model.config.quantizer.options["inner"]
    assert (options["normalize"], options["dead_code_threshold"]) == (True, 0.5)
    assert model.notices == []


def test_it_samples_the_same_codes(run: Path, expected: dict[str, Tensor]) -> None:
    model = toolkit.load(run, "cpu")
    pace = model.labels({"pace": "slow"}, 4, prior="pixelcnn")
    codes = model.sample(4, pace, seed=3).codes
    assert torch.equal(codes, expected["sample.codes"].to(codes))


@pytest.mark.parametrize(
    ("stage", "word", "prefix", "checkpoint"),
    [
        ("prior", "prior_trainer.steps=12", "prior.", "priors/pixelcnn"),
        ("autoencoder", "trainer.steps=12", "autoencoder.", "autoencoder"),
    ],
)
@pytest.mark.few(1)
def test_it_continues(
    run: Path,
    expected: dict[str, Tensor],
    capsys: pytest.CaptureFixture[str],
    stage: str,
    word: str,
    prefix: str,
    checkpoint: str,
) -> None:
    """To the weights that version 0.1 came to, up to what another version of PyTorch may round otherwise."""
    assert command(["train", f"run={run}", f"stage={stage}", word]) == 0, capsys.readouterr().err
    weights = load_file(run / checkpoint / "step-00000012" / "model.safetensors")
    assert weights.keys() == {name.removeprefix(prefix) for name in expected if name.startswith(prefix)}
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[prefix + name], rtol=1e-4, atol=1e-6)


def test_what_is_written_carries_the_format(run: Path) -> None:
    assert command(["train", f"run={run}", "prior_trainer.steps=9", "trainer.steps=9"]) == 0
    assert read_yaml(run / "config-2.yaml")["format"] == formats.FORMAT
    assert read_json(run / "autoencoder" / "step-00000009" / "state.json")["format"] == formats.FORMAT
    for codes in (run / "codes").iterdir():
        with safe_open(codes, "pt") as file:
            assert file.metadata()["format"] == str(formats.FORMAT)
    assert "normalise" not in (run / "config-2.yaml").read_text()
    assert toolkit.load(run).checkpoint.step == 9


def newer_config(run: Path) -> None:
    (run / "config.yaml").write_text(f"format: {formats.FORMAT + 1}\n" + (run / "config.yaml").read_text())


def newer_json(*path: str) -> Any:
    def change(run: Path) -> None:
        file = run.joinpath(*path)
        file.write_text(json.dumps({**read_json(file), "format": formats.FORMAT + 1}))

    return change


@pytest.mark.parametrize(
    "change",
    [newer_config, newer_json("spec.json"), newer_json("autoencoder", "step-00000008", "state.json")],
    ids=["config", "spec", "checkpoint"],
)
def test_a_newer_format_is_refused(run: Path, change: Any) -> None:
    change(run)
    with pytest.raises(toolkit.ToolkitError, match=rf"format {formats.FORMAT + 1}.*upgrade discrete-toolkit"):
        toolkit.load(run)


@pytest.mark.parametrize("written", [-1, 1.5, "1", True, [1]])
def test_what_is_not_a_format_number_is_refused(run: Path, written: object) -> None:
    file = run / "spec.json"
    file.write_text(json.dumps({**read_json(file), "format": written}))
    with pytest.raises(toolkit.ToolkitError, match="not a format number"):
        Run.open(run).spec()


def test_conditions_are_read_under_todays_names() -> None:
    """Of a dataset whose condition was spelt the British way, with steps."""
    condition = {"name": "colour", "size": 3, "per_step": True, "every": 2, "together": 4}
    old = {"data": {"conditions": [condition]}, "latents": [{"grid": [2]}]}
    new = {"name": "color", "size": 3, "per_step": True, "stride": 2, "steps_per_code": 4}
    assert formats.current_spec(old, "spec.json") == {"data": {"conditions": [new]}, "codes": {"grid": [2]}}
    config = formats.current_config({"conditions": {"prior": ["shape", "colour"], "decoder": []}}, "config.yaml")
    assert config == {"conditions": {"prior": ["shape", "color"], "decoder": []}}
