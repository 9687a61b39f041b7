"""Runs of the Hub: pushed, opened by name, refused where they are not what they say. The Hub is one on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import published
import pytest
import torch
from fake_hub import Hub, Repository, serving
from messages import assert_names
from safetensors.torch import load_file
from toys import SMALL, TOY, VQ

import toolkit
from toolkit import hub
from toolkit.__main__ import run as command
from toolkit.cli.completion import candidates
from toolkit.errors import ToolkitError
from toolkit.runs.folder import Run
from toolkit.runs.plain import read_yaml
from toolkit.runs.signature import with_hash, without_hash

constants = pytest.importorskip("huggingface_hub.constants", reason="needs pip install 'discrete-toolkit[hub]'")

NAME = "hub:ann/tiles"

pytestmark = [
    pytest.mark.usefixtures("toys"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # how huggingface_hub uploads
]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub, an empty cache, and an empty folder to be in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in {
        "HF_HUB_CACHE": str(tmp_path / "hf"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    state = Hub()
    with serving(state) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield state


@pytest.fixture(scope="module")
def folder(toys: None, toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is pushed of the toy run."""
    out = tmp_path_factory.mktemp("pushed") / "tiles"
    assert command(["push", f"run={toy_run}", NAME, "license=mit", f"out={out}"]) == 0
    return out


@pytest.fixture
def pushed(server: Hub, folder: Path) -> str:
    """The commit of the toy run there."""
    return server.put("ann/tiles", folder)


def codes(run: str | Path) -> torch.Tensor:
    return toolkit.load(run, "cpu").sample(4, seed=3).codes


def told(word: str) -> str:
    with pytest.raises(ToolkitError) as caught:
        toolkit.load(word)
    assert "\n" not in str(caught.value).strip(), caught.value
    return str(caught.value)


# -- there and back


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


# -- what is pushed


def dry(run: Path, *words: str) -> Path:
    assert command(["push", f"run={run}", NAME, *words]) == 0
    return Path("outputs", "push", "ann", "tiles")


def test_a_dry_push_asks_no_hub_and_writes_what_would_be_pushed(
    server: Hub, toy_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dry(toy_run, "license=mit", "dry=true")
    assert server.asked == []
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    steps = [
        f"{stage}/step-0000000{n}/{name}"
        for stage, n in (("autoencoder", 6), ("priors/pixelcnn", 3))
        for name in ("model.safetensors", "state.safetensors", "state.json")
    ]
    assert files == {
        *("README.md", "config.yaml", "components.json", "spec.json", "metrics.jsonl", "priors/pixelcnn/config.yaml"),
        *steps,
    }
    said = capsys.readouterr().err
    for name in ("log.txt", "codes", "samples"):
        assert f"note: {name} is left out" in said
    assert torch.equal(codes(folder), codes(toy_run))
    assert command(["push", f"run={toy_run}", NAME, "license=mit", "out=mine", "codes=true"]) == 0
    assert Path("mine", "codes", "train.safetensors").is_file()
    assert command(["push", f"run={toy_run}", NAME, "license=mit", "out=mine"]) == 2
    assert server.asked == []


def test_no_path_of_its_owner_is_pushed(
    server: Hub, toy_copy: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in configurations nor figures; and the configuration is signed as it is then."""
    from toolkit.cli.pushed import without_paths

    values, cut = without_paths(
        {"root": "/home/ann/my photos", "n": 3, "of": ["~/x/y", "a/b", "/"], "w": r"C:\d\e.txt"}
    )
    assert values == {"root": "my photos", "n": 3, "of": ["y", "a/b", "/"], "w": "e.txt"}
    assert [line.split("=")[0] for line in cut] == ["root", "of[0]", "w"]
    config = toy_copy.path / "config.yaml"
    config.write_text(config.read_text().replace("init: null", "init: /home/ann/first"))
    folder = dry(toy_copy.path, "license=mit", "dry=true")
    assert "init=/home/ann/first is left out" in capsys.readouterr().err
    for path in folder.rglob("*"):
        assert not path.is_file() or b"/home/ann" not in path.read_bytes(), path
        assert not path.is_file() or str(toy_copy.path).encode() not in path.read_bytes(), path
    assert Run(folder).edited() == []


def test_a_run_without_a_licence_is_not_pushed(server: Hub, toy_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["push", f"run={toy_run}", NAME]) == 2
    assert_names(capsys.readouterr().err, "toolkit push: license: … license=mit")
    assert command(["push", f"run={toy_run}", NAME, "license=all rights mine"]) == 2
    assert "license=all rights mine" in capsys.readouterr().err
    assert server.asked == []


@pytest.mark.slow
def test_a_pulled_run_keeps_its_licence(server: Hub, pushed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["push", f"run={NAME}", "hub:bob/tiles"]) == 0
    (files,) = server.repositories["bob/tiles"].commits.values()
    assert b"\nlicense: mit\n" in b"\n" + files["README.md"].partition(b"---\n")[2]


def test_an_adopted_run_keeps_its_licence_and_origin(server: Hub, toy_copy: Run) -> None:
    """The one that its record names; and no path of the file that it came from."""
    origin = {"source": "/home/ann/weights.safetensors", "license": "cc-by-nc-4.0"}
    (toy_copy.path / "adopted.json").write_text(json.dumps(with_hash(origin)))
    folder = dry(toy_copy.path, "dry=true")
    assert "license: cc-by-nc-4.0" in (folder / "README.md").read_text()
    written = without_hash(json.loads((folder / "adopted.json").read_text()))
    assert written == {"source": "weights.safetensors", "license": "cc-by-nc-4.0"}


@pytest.mark.slow
def test_the_card_says_what_the_run_is(server: Hub, toy_copy: Run, tmp_path: Path) -> None:
    assert command(["evaluate", f"run={toy_copy.path}", "split=val", "examples=4"]) == 0
    (toy_copy.path / "LICENSE").write_text("as is")
    folder = dry(toy_copy.path, "license=MIT", "dry=true")
    card = (folder / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    (tmp_path / "header.yaml").write_text(header)
    values = read_yaml(tmp_path / "header.yaml")
    assert (values["license"], values["library_name"]) == ("mit", "discrete-toolkit")
    assert values["pipeline_tag"] == "feature-extraction"
    assert {"vq-vae", "vq", "toy_conv", "prior-pixelcnn"} <= {*values["tags"]}
    for words in ("Figures on the val split, 4 examples", "bits_per_dim", "| quantizer | `vq`", f"{NAME}@REVISION"):
        assert words in text
    assert (folder / "LICENSE").read_text() == "as is"
    assert (folder / "evaluation.json").is_file()


@pytest.mark.slow
def test_figures_of_other_checkpoints_are_left_out(
    server: Hub, toy_copy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy_copy.path / "evaluation.json").write_text('{"split": "test", "step": 3, "prior_steps": {}, "psnr": 99}')
    folder = dry(toy_copy.path, "license=mit", "dry=true")
    assert "evaluation.json is of other checkpoints" in capsys.readouterr().err
    assert "99" not in (folder / "README.md").read_text()
    assert not (folder / "evaluation.json").exists()


def test_a_damaged_run_is_not_pushed(server: Hub, toy_copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with (toy_copy.autoencoder / "step-00000006" / "state.safetensors").open("r+b") as file:
        file.truncate(100)
    assert command(["push", f"run={toy_copy.path}", NAME, "license=mit"]) == 2
    assert "step-00000006 is damaged" in capsys.readouterr().err
    assert server.asked == []


@pytest.mark.slow
def test_what_may_not_be_pushed_is_said(server: Hub, toy_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["push", f"run={toy_run}", "license=mit"]
    for more, facts in (
        ([], "toolkit push: no repositories … hub:owner/name"),
        ([NAME, "hub:ann/two"], "toolkit push: 2 repositories"),
        ([f"{NAME}@main"], f"toolkit push: {NAME}@main"),
        (["hub:tiles"], "toolkit push: hub:tiles … hub:owner/name"),
    ):
        assert command([*words, *more]) == 2
        assert_names(capsys.readouterr().err, facts)
    assert server.asked == []
    server.logged_in = False
    assert command([*words, NAME]) == 2
    assert_names(capsys.readouterr().err.splitlines()[-1], f"toolkit push: {NAME} … hf auth login")
    server.logged_in = True
    server.put("ann/tiles", toy_run)
    assert command([*words, NAME, "private=true"]) == 2
    assert_names(capsys.readouterr().err.splitlines()[-1], f"toolkit push: {NAME} … private=true … public")


# -- what is refused


def test_no_answer_is_a_sentence(server: Hub, pushed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_names(told("hub:ann/none"), "hub:ann/none: … no such repository … private … hf auth login")
    assert_names(told(f"{NAME}@v1"), f"{NAME}@v1: … no revision v1")
    assert_names(told(f"{NAME}@{'0' * 40}"), f"{NAME}@0000 … no revision")
    server.repositories["ann/tiles"].private, server.logged_in = True, False
    assert_names(told(NAME), f"{NAME}: … private … hf auth login")
    server.repositories["ann/tiles"].private, server.repositories["ann/tiles"].gated = False, True
    assert_names(told(NAME), f"{NAME}: … grant access … /ann/tiles")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert_names(told(NAME), f"{NAME}: http://127.0.0.1:9 cannot be reached … HF_HUB_OFFLINE=1")


@pytest.mark.parametrize(
    "word", ["hub:", "hub:tiles", "hub:a/b/c", "hub:../x", "hub:a/..", "hub:a/b@", "hub:a/b@../x", "hub:a/-b"]
)
def test_what_is_no_reference_is_refused(word: str) -> None:
    with pytest.raises(ToolkitError, match="hub:"):
        hub.local_copy(word)


@pytest.mark.slow
def test_without_the_package_the_extra_is_named(server: Hub, pushed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that is here and pinned needs no package."""
    before = codes(f"{NAME}@{pushed}")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert_names(told(NAME), f"{NAME} needs huggingface_hub: … discrete-toolkit[hub]")
    assert torch.equal(codes(f"{NAME}@{pushed}"), before)


WEIGHTS = "autoencoder/step-00000006/model.safetensors"
Change = Callable[[Repository, dict[str, bytes]], object]
HOSTILE: dict[str, tuple[Change, str]] = {
    "a name above": (lambda repo, files: files.update({"../evil.json": b"{}"}), "leads out of its folder"),
    "a name inside above": (lambda repo, files: files.update({"priors/../../x": b"{}"}), "leads out of its folder"),
    "an absolute name": (lambda repo, files: files.update({"/etc/x.json": b"{}"}), "leads out of its folder"),
    "a name of Windows": (lambda repo, files: files.update({"a\\..\\..\\x": b"{}"}), "leads out of its folder"),
    "a name of a terminal": (lambda repo, files: files.update({"a\x1b[2J": b"{}"}), "leads out of its folder"),
    "a huge file": (lambda repo, files: repo.sizes.update({WEIGHTS: 1 << 50}), "GiB"),
    "a huge text": (lambda repo, files: repo.sizes.update({"spec.json": 1 << 40}), "spec.json"),
    "too many files": (
        lambda repo, files: files.update({f"a{i}.json": b"" for i in range(10_001)}),
        "at most 10,000",
    ),
    "no run": (lambda repo, files: files.pop("config.yaml"), "no config.yaml"),
    "a checkpoint in part": (lambda repo, files: files.pop(WEIGHTS), f"{WEIGHTS} is not there"),
    "a file cut short": (lambda repo, files: repo.cut.add(WEIGHTS), "try again"),
    "a text cut short": (lambda repo, files: repo.cut.add("spec.json"), "try again"),
    "a size that is wrong": (lambda repo, files: repo.sizes.update({"spec.json": 7}), "of 7 bytes"),
    "a file changed on its way": (lambda repo, files: repo.spoilt.add(WEIGHTS), f"{WEIGHTS} arrived damaged"),
    "a text changed on its way": (lambda repo, files: repo.spoilt.add("spec.json"), "spec.json arrived damaged"),
}


@pytest.mark.long
@pytest.mark.few(9)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_repository_is_refused(name: str, server: Hub, pushed: str, tmp_path: Path) -> None:
    """In a sentence, and no copy is left that could be opened."""
    change, says = HOSTILE[name]
    repository = server.repositories["ann/tiles"]
    change(repository, repository.commits[pushed])
    message = told(NAME)
    assert message.startswith(f"{NAME}: ")
    assert says in message
    assert hub.here(f"{NAME}@{pushed}") is None
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "here", "hf", "token"}


def test_a_pickle_is_not_even_downloaded(server: Hub, pushed: str) -> None:
    """Nor anything else that no run has; where weights are a pickle by another name, they are refused as in any run."""
    files = server.repositories["ann/tiles"].commits[pushed]
    files |= {
        "model.pt": b"\x80\x04.",
        "autoencoder/step-00000006/evil.bin": b"x",
        "evil.py": b"x",
        "conf/a.yaml": b"x",
    }
    copy = hub.local_copy(NAME, hub.RUN)
    there = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert there == files.keys() - {"model.pt", "autoencoder/step-00000006/evil.bin", "evil.py", "conf/a.yaml"}
    server.repositories["ann/tiles"].commit({**files, WEIGHTS: b"\x80\x04\x95" + bytes(100)})
    with pytest.raises(ToolkitError, match=r"model\.safetensors"):
        toolkit.load(NAME)


@pytest.mark.slow
def test_what_failed_is_downloaded_again(server: Hub, pushed: str, toy_run: Path) -> None:
    repository = server.repositories["ann/tiles"]
    repository.cut.add(WEIGHTS)
    assert "try again" in told(NAME)
    repository.cut.clear()
    assert torch.equal(codes(NAME), codes(toy_run))


def test_published_weights_are_taken_as_tensors(server: Hub, tmp_path: Path) -> None:
    """Of weights in both forms the tensors, with the texts beside them; of pickles alone the pickles."""
    repository = server.repositories.setdefault("bob/codec", Repository())
    both = {"model.safetensors": b"a", "pytorch_model.bin": b"b", "config.json": b"{}", "LICENSE": b"l", "x.py": b"p"}
    repository.commit(both)
    assert {path.name for path in hub.local_copy("hub:bob/codec").iterdir()} == both.keys() - {
        "pytorch_model.bin",
        "x.py",
    }
    repository.commit({"vq.pt": b"b", "config.json": b"{}"})
    assert {path.name for path in hub.local_copy("hub:bob/codec").iterdir()} == {"vq.pt", "config.json"}
    repository.commit({"README.md": b"b"})
    with pytest.raises(ToolkitError, match="holds no weights"):
        hub.local_copy("hub:bob/codec")
    assert_names(told("hub:bob/codec"), "hub:bob/codec: … no config.yaml")


# -- offline


def stored(home: Path, files: dict[str, bytes], commit: str = "a" * 40) -> Path:
    """A repository in the layout of the Hub's own cache; returns its snapshot's folder."""
    at = home / "models--ann--tiles"
    (at / "refs").mkdir(parents=True)
    (at / "refs" / "main").write_text(commit)
    (at / "blobs").mkdir()
    for number, (name, content) in enumerate(files.items()):
        (at / "blobs" / str(number)).write_bytes(content)
        path = at / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(at / "blobs" / str(number), path.parent))
    return at / "snapshots" / commit


@pytest.fixture
def offline(server: Hub, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pushed run in the Hub's own cache, and no Hub to ask."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    return stored(tmp_path / "hf", server.repositories["ann/tiles"].commits[pushed])


def test_the_hubs_own_cache_is_opened_offline(server: Hub, offline: Path, toy_run: Path) -> None:
    """By name, by branch and by commit; as a copy, as its files are links that lead out of their folder."""
    for word in (f"{NAME}@main", f"{NAME}@{'a' * 40}"):
        assert hub.local_copy(word, hub.RUN) == hub.local_copy(NAME, hub.RUN)
    assert torch.equal(codes(NAME), codes(toy_run))
    copy = hub.local_copy(NAME, hub.RUN)
    assert not any(path.is_symlink() for path in copy.rglob("*"))
    assert server.asked == []
    with pytest.raises(ToolkitError, match="is a link to"):
        toolkit.load(offline)


@pytest.mark.slow
def test_a_copy_that_is_here_is_opened_offline(
    server: Hub, pushed: str, toy_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert torch.equal(codes(NAME), codes(toy_run))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    assert torch.equal(codes(NAME), codes(toy_run))
    assert server.asked == []
    assert_names(told("hub:ann/other"), "hub:ann/other: HF_HUB_OFFLINE is set")


def relinked(to: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(to)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (relinked("/etc/hostname"), "outside of the Hub's cache"),
        (relinked("../../../../other"), "outside of the Hub's cache"),
        (relinked("../../blobs/gone"), "is no file"),
        (lambda path: path.unlink() or os.mkfifo(path), "is no file"),
    ],
)
def test_a_hostile_cache_is_refused(change: Callable[[Path], Any], says: str, offline: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    change(offline / "spec.json")
    assert says in told(NAME)
    assert hub.here(NAME) is None


def test_completion_knows_the_copies(server: Hub, pushed: str) -> None:
    assert candidates("toolkit sample run=hub:") == []
    hub.local_copy(NAME, hub.RUN)
    server.asked.clear()
    assert candidates("toolkit sample run=hub:") == [f"run={NAME} "]
    assert candidates(f"toolkit sample run={NAME} prior=") == ["prior=pixelcnn "]
    assert "condition.kind=" in candidates(f"toolkit sample run={NAME} cond")
    assert candidates("toolkit train init=hub:") == [f"init={NAME} "]
    assert server.asked == []


def test_weights_of_others_are_adopted_by_name(server: Hub, tmp_path: Path) -> None:
    tensors = published.weights()
    commit = server.put("bob/waves", published.publish(tmp_path / "theirs", tensors))
    toolkit.adopt("toy_kin", f"hub:bob/waves@{commit}", tmp_path / "run", license="mit")
    assert json.loads((tmp_path / "run" / "adopted.json").read_text())["source"] == f"hub:bob/waves@{commit}"
    model = toolkit.load(tmp_path / "run", "cpu")
    x = torch.randint(8, (2, *model.spec.shape))
    assert torch.equal(model.encode(x), published.codes(tensors, x))
