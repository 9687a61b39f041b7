"""A run of the Hub is loaded by name, and trained further once it is pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from fake_hub import Hub
from hub_runs import NAME, codes
from messages import assert_names
from safetensors.torch import load_file
from toys import SMALL, TOY, VQ

import toolkit
from toolkit import hub
from toolkit.__main__ import run as command
from toolkit.errors import ToolkitError
from toolkit.runs.folder import Run

pytest.importorskip("huggingface_hub", reason="needs pip install 'discrete-toolkit[hub]'")

pytestmark = [
    pytest.mark.usefixtures("toys"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # how huggingface_hub uploads
]


def test_a_pushed_run_is_loaded_by_name(
    toy_run: Path, server: Hub, pushed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same codes; pinned, it asks for nothing once it is here."""
    assert torch.equal(codes(NAME), codes(toy_run))
    model = toolkit.load(f"{NAME}@{pushed}")
    server.asked.clear()
    assert torch.equal(codes(f"{NAME}@{pushed}"), codes(toy_run))
    assert server.asked == []
    assert model.run.title == "ann/tiles"
    assert any(pushed in notice and "stays as it is" in notice for notice in model.notices)
    assert not any(path.is_symlink() for path in model.run.path.rglob("*"))
    assert not (model.run.path / ".cache").exists()


def test_push_prints_what_loads_it_pinned(server: Hub, toy_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["push", f"run={toy_run}", NAME, "license=Apache-2.0", "private=true"]) == 0
    repository = server.repositories["ann/tiles"]
    assert repository.private
    assert f'toolkit.load("{NAME}@{next(iter(repository.commits))}")' in capsys.readouterr().out


@pytest.mark.slow
def test_another_push_replaces_the_run_alone(server: Hub, toy_copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Checkpoints of before are gone; what was added there stays, and the old commit is what it was."""
    assert command(["push", f"run={toy_copy.path}", NAME, "license=mit"]) == 0
    repository = server.repositories["ann/tiles"]
    (first,) = repository.commits
    repository.commits[first]["picture.png"] = b"p"
    assert command(["train", f"run={toy_copy.path}", "trainer.steps=7", "stage=autoencoder"]) == 0
    shutil.rmtree(toy_copy.path / "priors")
    assert command(["push", f"run={toy_copy.path}", NAME, "license=mit"]) == 0
    second = repository.commits[repository.at("main") or ""]
    steps = {name.split("/")[1] for name in second if name.startswith("autoencoder/")}
    assert steps == {"step-00000007"}
    assert second["picture.png"] == b"p"
    assert not any(name.startswith("priors/") for name in second)
    assert toolkit.load(f"{NAME}@{first}").checkpoint.step == 6
    assert toolkit.load(NAME).checkpoint.step == 7


@pytest.mark.slow
def test_every_command_opens_it(server: Hub, pushed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What they write is not in the copy, which stays as it was."""
    copy = hub.local_copy(NAME, hub.RUN)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    run, home = f"run={NAME}@{pushed}", Path("outputs", "hub", "ann", f"tiles@{pushed[:8]}")
    for words in (
        ["sample", run, "n=2"],
        ["evaluate", run, "examples=4"],
        ["reconstruct", run, "examples=2"],
        ["encode", run, "split=test", "out=c.safetensors"],
        ["decode", run, "c.safetensors", "out=decoded"],
        ["compress", run, "split=test", "out=c.tkc"],
        ["compare", f"{NAME}@{pushed}"],
        ["check", run],
    ):
        assert command(words) == 0, capsys.readouterr().err
        said = capsys.readouterr()
        assert words[0] in ("compare", "check") or f"goes to {home}" in said.err
    assert (home / "samples" / "pixelcnn-seed0" / "samples.png").is_file()
    assert (home / "samples" / "reconstructions.png").is_file()
    assert (home / "evaluation.json").is_file()
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_run_of_the_hub_is_no_place_to_train(server: Hub, pushed: str, capsys: pytest.CaptureFixture[str]) -> None:
    copy = hub.local_copy(NAME, hub.RUN)
    for word in (NAME, f"{NAME}@{pushed}", str(copy)):
        assert command(["train", f"run={word}", "trainer.steps=9"]) == 2
        assert_names(capsys.readouterr().err, f"toolkit train: run={NAME} … init={NAME} … toolkit pull {NAME}")
        with pytest.raises(ToolkitError, match="init=hub"):
            toolkit.train(Run.open(NAME).config(), word)
    assert not Path("hub:ann").exists()


@pytest.mark.slow
def test_init_starts_from_it_and_keeps_its_commit(
    server: Hub, pushed: str, toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, *VQ, "stage=autoencoder", "trainer.steps=0", f"hydra.run.dir={tmp_path / 'new'}"]
    assert command(["train", *words, f"init={NAME}"]) == 0, capsys.readouterr().err
    assert Run(tmp_path / "new").config().init == f"{NAME}@{pushed}"
    old, new = (toolkit.load(run, "cpu").autoencoder.state_dict() for run in (toy_run, tmp_path / "new"))
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert command(["train", f"run={tmp_path / 'new'}", "trainer.steps=1"]) == 0, capsys.readouterr().err


@pytest.mark.slow
def test_a_pulled_run_is_trained_further(server: Hub, pushed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["pull", f"{NAME}@{pushed}", "out=mine"]) == 0
    assert f"{NAME}@{pushed}" in capsys.readouterr().out
    assert command(["pull", NAME, "out=mine"]) == 2
    assert "out=mine" in capsys.readouterr().err
    assert command(["train", "run=mine", "trainer.steps=7", "stage=autoencoder"]) == 0
    assert Run("mine").origin is None
    assert toolkit.load("mine").checkpoint.step == 7


@pytest.mark.slow
def test_a_run_over_a_run_goes_with_its_base(
    server: Hub, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the run below may itself be named on the Hub."""
    assert command(["push", f"run={toy_run}", NAME, "license=mit"]) == 0
    above = ["dataset=codes", "encoder=pool", "encoder.hidden=8", "quantizer=vq", "quantizer.codebook_size=8", "dim=4"]
    above += ["decoder=pixelcnn", "decoder.hidden=8", "decoder.layers=2", "decoder.head=8", "prior=uniform"]
    above += ["stage=autoencoder", "trainer.steps=2", "trainer.batch_size=4", "trainer.workers=0"]
    assert command(["train", *above, f"dataset.run={NAME}", f"hydra.run.dir={tmp_path / 'above'}"]) == 0
    assert Run(tmp_path / "above").config().dataset.options["run"].startswith(f"{NAME}@")
    assert command(["push", f"run={tmp_path / 'above'}", "hub:ann/above", "license=mit"]) == 0
    assert (
        "base/autoencoder/step-00000006/model.safetensors"
        in server.repositories["ann/above"].commits[server.repositories["ann/above"].at("main") or ""]
    )
    x = torch.randint(8, (2, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    there, here = (toolkit.load(run, "cpu").encode(x) for run in ("hub:ann/above", tmp_path / "above"))
    assert torch.equal(there, here)


def install_toy(site: Path) -> None:
    """The toy plugin as a package manager leaves it: modules, and what says which parts they have."""
    project = tomllib.loads((TOY / "pyproject.toml").read_text())["project"]
    record = site / "toy_plugin-0.1.0.dist-info"
    record.mkdir(parents=True)
    for path in TOY.glob("*.py"):
        shutil.copy(path, site)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{kind}]\n" + "".join(f"{name} = {at}\n" for name, at in parts.items()) for kind, parts in groups]
    (record / "entry_points.txt").write_text("\n".join(lines))


@pytest.mark.slow
def test_another_process_loads_it_with_the_installed_plugin_alone(
    server: Hub, pushed: str, toy_run: Path, tmp_path: Path
) -> None:
    """By name, where the plugin's source tree is not: the same codes; and without the plugin its package is named."""
    site, script = tmp_path / "site", tmp_path / "sample.py"
    install_toy(site)
    script.write_text(
        f"import sys, toolkit\nfrom safetensors.torch import save_file\n"
        f"save_file({{'codes': toolkit.load('{NAME}@{pushed}', 'cpu').sample(4, seed=3).codes}}, 'codes.safetensors')\n"
    )
    here = {name: value for name, value in os.environ.items() if name != "TOOLKIT_PLUGIN_PATH"}
    before = os.environ.get("PYTHONPATH", "")
    there = {**here, "PYTHONPATH": os.pathsep.join(filter(None, [str(site), before]))}
    subprocess.run([sys.executable, str(script)], env=there, check=True)
    assert torch.equal(load_file("codes.safetensors")["codes"], codes(toy_run))
    gone = subprocess.run([sys.executable, str(script)], env=here, capture_output=True, text=True)
    assert "toy-plugin" in gone.stderr
