"""What goes to the Hub, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fake_hub import Hub
from hub_runs import NAME, codes
from messages import assert_names

from toolkit.__main__ import run as command
from toolkit.runs.folder import Run
from toolkit.runs.plain import read_yaml
from toolkit.runs.signature import with_hash, without_hash

pytest.importorskip("huggingface_hub", reason="needs pip install 'discrete-toolkit[hub]'")

pytestmark = [
    pytest.mark.usefixtures("toys"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # how huggingface_hub uploads
]


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
