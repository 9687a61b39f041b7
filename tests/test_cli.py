"""The command: words to functions, errors to exit statuses, and what it must not import."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from messages import assert_names

from toolkit import __main__ as command
from toolkit import registry
from toolkit.cli.completion import BASH, candidates
from toolkit.cli.fresh import create_folder
from toolkit.errors import ToolkitError

PARTS = '''
import torch
from typing import Literal


class Data:
    """Numbers."""

    def __init__(self, *, root: str = "data", crop: int = 8) -> None: ...


class Part:
    """A part."""

    def __init__(self, dim, *, hidden: int = 8, norm: Literal["none", "group"] = "none", bias: bool = True) -> None: ...


class Wrong:
    """Breaks a rule."""

    def __init__(self, *sizes) -> None: ...
'''
PROJECT = """
[project]
name = "cli-plugin"
version = "3"
[project.entry-points."toolkit.dataset"]
d_data = "cli_plugin.parts:Data"
[project.entry-points."toolkit.encoder"]
d_enc = "cli_plugin.parts:Part"
d_wrong = "cli_plugin.parts:Wrong"
[project.entry-points."toolkit.quantizer"]
d_quant = "cli_plugin.parts:Part"
[project.entry-points."toolkit.decoder"]
d_dec = "cli_plugin.parts:Part"
[project.entry-points."toolkit.conf"]
d = "cli_plugin.conf"
"""
EXPERIMENT = """
# @package _global_
defaults:
  - override /dataset: d_data
  - override /encoder: d_enc
  - override /quantizer: d_quant
  - override /decoder: d_dec
  - override /metric: []
  - _self_
encoder: {norm: group}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "a plugin"
    experiments = home / "cli_plugin" / "conf" / "experiment"
    experiments.mkdir(parents=True)
    (home / "pyproject.toml").write_text(PROJECT)
    (home / "cli_plugin" / "parts.py").write_text(PARTS)
    (experiments / "d_small.yaml").write_text(EXPERIMENT.lstrip())
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv(registry.PLUGIN_PATH, str(home))
    return home


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], Path]]:
    """What ``train`` would have trained."""
    calls: list[tuple[dict[str, Any], Path]] = []
    fake = types.ModuleType("toolkit.cli.job")
    fake.train_run = lambda config, folder: calls.append((config.values(), folder))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toolkit.cli.job", fake)
    return calls


def fails(capsys: pytest.CaptureFixture[str], *words: str, status: int = 2) -> str:
    assert command.run(words) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def subprocess_out(*args: str, **env: str) -> str:
    done = subprocess.run(args, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- the entrance


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in command.COMMANDS)
    assert command.run([]) == 2


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("discrete-toolkit 0.")


def test_an_unknown_command_and_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "tran").startswith("toolkit tran: ")
    assert fails(capsys, "--versoin").startswith("toolkit: --versoin: ")


@pytest.mark.parametrize(
    ("raised", "status", "text"),
    [
        (ToolkitError("it is wrong"), 2, "toolkit plugins: it is wrong\n"),
        (KeyboardInterrupt(), 130, "toolkit plugins: interrupted\n"),
        (KeyError("x"), 1, "toolkit plugins: KeyError: 'x' ("),
    ],
)
def test_errors_become_exit_statuses(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    status: int,
    text: str,
) -> None:
    def broken(args: list[str]) -> int:
        raise raised

    monkeypatch.setattr("toolkit.cli.plugins.main", broken)
    err = fails(capsys, "plugins", status=status)
    assert err.startswith(text)
    if status == 1:
        assert "test_cli.py:" in err
        assert err.endswith("run with --debug for the traceback\n")
    if status != 130:
        with pytest.raises(type(raised)):
            command.run(["plugins", "--debug"])


def test_a_plugin_folder_may_be_given_anywhere(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--plugin", str(plugin), "plugins"], ["plugins", f"--plugin={plugin}"]):
        monkeypatch.setenv(registry.PLUGIN_PATH, "")
        assert command.run(words) == 0
        assert "d_enc" in capsys.readouterr().out
    assert "give a plugin's folder" in fails(capsys, "plugins", "--plugin", "nowhere")


# -- train


@pytest.mark.long
def test_train_runs_what_was_composed(plugin: Path, trained: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["train", "experiment=d_small", "encoder.hidden=3"]) == 0
    [(config, folder)] = trained
    assert config["encoder"] == {"name": "d_enc", "hidden": 3, "norm": "group", "bias": True}
    assert config["experiment"] == {"name": "d_small", "instead_of": {"encoder.hidden": 8}}
    assert folder.is_dir()
    assert folder.parent == Path("outputs/d_small").resolve()
    assert not list(folder.iterdir())
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.long
def test_two_runs_of_one_second_have_two_folders(plugin: Path, trained: list[Any]) -> None:
    for _ in range(2):
        assert command.run(["train", "experiment=d_small"]) == 0
    assert trained[0][1] != trained[1][1]


def test_runs_that_start_at_once_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(create_folder, [tmp_path / "outputs" / "demo"] * 64))
    assert len(set(folders)) == 64
    assert all(folder.is_dir() for folder in folders)


def test_a_file_in_the_place_of_the_outputs_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("")
    for parent in (tmp_path / "outputs", tmp_path / "outputs" / "demo"):
        with pytest.raises(ToolkitError, match=r"the run's folder cannot be created: .*outputs"):
            create_folder(parent)


@pytest.mark.parametrize("word", ["hydra/launcher=nope", "hydra.nope=1"])
def test_what_hydra_refuses_leaves_no_folder(
    plugin: Path, trained: list[Any], capsys: pytest.CaptureFixture[str], word: str
) -> None:
    fails(capsys, "train", "experiment=d_small", word)
    assert not list(Path.cwd().iterdir())


@pytest.mark.long
def test_the_folder_may_be_named(plugin: Path, trained: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "experiment=d_small", "hydra.run.dir=my run, (1)=[x]"]
    assert command.run(words) == 0
    assert trained[0][1] == Path("my run, (1)=[x]").resolve()
    (trained[0][1] / "config.yaml").write_text("")
    assert "my run, (1)=[x] holds a run: continue it with" in fails(capsys, *words)
    assert len(trained) == 1


@pytest.mark.parametrize(
    "word", ["encoder.hiden=3", "encoder=nope", "trainer.steps=-1", "encoder.hidden=[", "experment=x", "-cn=x"]
)
def test_a_wrong_configuration_leaves_nothing_behind(
    plugin: Path, trained: list[Any], capsys: pytest.CaptureFixture[str], word: str
) -> None:
    err = fails(capsys, "train", "experiment=d_small", word)
    assert err.startswith("toolkit train: ")
    assert len(err.splitlines()) <= 3
    assert not list(Path.cwd().iterdir())
    assert not trained


def test_nothing_chosen_lists_what_there_is(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = fails(capsys, "train")
    assert "experiments: " in err
    assert "d_small" in err
    assert "d_data" in err


@pytest.mark.long
def test_a_sweep_runs_each_combination(plugin: Path, trained: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "experiment=d_small", "-m", "encoder.hidden=1,2", "dataset.root=/a b,/c", "dim=3"]
    assert command.run(words) == 0
    values = [(config["encoder"]["hidden"], config["dataset"]["root"]) for config, _ in trained]
    assert values == [(1, "/a b"), (1, "/c"), (2, "/a b"), (2, "/c")]
    assert len({folder for _, folder in trained}) == 4
    folder, *titles = (out := capsys.readouterr().out).splitlines()
    assert folder == f"sweep: {trained[0][1].parent.relative_to(Path.cwd())}"
    assert len(titles) == 4
    assert titles[1].startswith("run 1: ")
    assert "encoder.hidden=1" in out
    assert "dim" not in out


@pytest.mark.long
def test_a_sweep_is_checked_before_its_first_run(
    plugin: Path, trained: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    err = fails(capsys, "train", "experiment=d_small", "-m", "dim=1,2", "seed=1,-1")
    assert err == "toolkit train: seed=-1: must be at least 0\n"
    assert not trained


@pytest.mark.long
def test_a_notice_is_told_once(plugin: Path, trained: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["train", "experiment=d_small", "encoder=d_enc", "quantizer=vq", "-m", "seed=1,2"]) == 0
    assert capsys.readouterr().err == ""
    (plugin / "cli_plugin" / "conf" / "experiment" / "d_set.yaml").write_text(
        "# @package _global_\ndefaults: [d_small, _self_]\nquantizer: {hidden: 3}\n"
    )
    assert command.run(["train", "experiment=d_set", "quantizer=vq", "-m", "seed=1,2"]) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.long
def test_a_run_is_continued(plugin: Path, trained: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    assert command.run(["train", "experiment=d_small", "hydra.run.dir=a run"]) == 0
    config, folder = trained.pop()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert command.run(["train", "run=a run", "trainer.steps=5"]) == 0
    changed = {"name": "d_small", "instead_of": {"trainer.steps": 10000}}
    assert trained[0][0] == {**config, "trainer": {**config["trainer"], "steps": 5}, "experiment": changed}
    assert trained[0][1] == Path("a run")
    assert "several priors" in fails(capsys, "train", "run=a run", "-m")
    assert "nowhere" in fails(capsys, "train", "run=nowhere")


def test_cfg_job_prints_what_would_run(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    assert command.run(["train", "experiment=d_small", "--cfg", "job", "dataset.root=화자 1"]) == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out)["encoder"]["norm"] == "group"
    assert "화자 1" in out
    assert command.run(["train", "--cfg=job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["dataset"] is None


@pytest.mark.long
def test_train_help_lists_groups_and_values(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["train", "--help", "experiment=d_small"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"encoder: .*d_enc, d_wrong", out)
    assert "norm: group" in out
    assert "quantizer/inner/inner" not in out


@pytest.mark.long
def test_config_dir_adds_experiments(plugin: Path, trained: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    home = Path("my conf") / "experiment"
    home.mkdir(parents=True)
    (home / "mine.yaml").write_text("# @package _global_\ndefaults: [d_small, _self_]\ndim: 5\n")
    assert command.run(["train", "--config-dir", "my conf", "experiment=mine"]) == 0
    assert trained[0][0]["dim"] == 5
    assert trained[0][0]["experiment"] == {"name": "mine", "instead_of": {}}
    assert "no such folder" in fails(capsys, "train", "--config-dir", "nowhere", "experiment=mine")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--hepl"], "--hepl: … --help?"),
        (["--config-name=x"], "--config-name: "),
        (["--cfg"], "--cfg: … job, hydra, all"),
        (["--cfg", "jb"], "--cfg: … job, hydra, all"),
    ],
)
def test_flags_are_checked(plugin: Path, capsys: pytest.CaptureFixture[str], flags: list[str], text: str) -> None:
    assert_names(fails(capsys, "train", "experiment=d_small", *flags), f"toolkit train: {text}")


@pytest.mark.long
@pytest.mark.parametrize("flags", [["--info"], ["--info", "plugins"], ["--cfg", "hydra"], ["--hydra-help"]])
@pytest.mark.few(2)
def test_hydras_own_flags_answer(plugin: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert command.run(["train", "experiment=d_small", *flags]) == 0
    assert capsys.readouterr().out


def test_check_composes_as_train_does(
    plugin: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proved: list[Any] = []
    fake = types.ModuleType("toolkit.cli.check")
    fake.check = lambda config: proved.append(config) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toolkit.cli.check", fake)
    assert command.run(["check", "experiment=d_small", "dim=3"]) == 0
    assert proved[0].dim == 3
    assert_names(fails(capsys, "check", "experiment=d_small", "dim=x"), "toolkit check: dim: … int … 'x'\n")
    assert command.run(["check", "--help"]) == 0


# -- plugins


def test_plugins_lists_who_brings_what_and_what_is_broken(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["plugins", "encoder"]) == 0
    out = capsys.readouterr().out
    assert "d_enc" in out
    assert "cli-plugin 3" in out
    assert "A part." in out
    assert "encoder=d_wrong is broken: encoder=d_wrong: *sizes: a component must name all its arguments" in out
    assert "lfq" not in out


def test_plugins_as_json(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["plugins", "--json"]) == 0
    listed = {(row["kind"], row["name"]): row for row in json.loads(capsys.readouterr().out)["components"]}
    assert listed["encoder", "d_enc"]["target"] == "cli_plugin.parts:Part"
    assert listed["encoder", "d_enc"]["problem"] == ""
    assert "*sizes" in listed["encoder", "d_wrong"]["problem"]
    assert ("quantizer", "vq") in listed


@pytest.mark.long
def test_plugins_check_loads_everything(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["plugins", "metric", "--check"]) == 0
    capsys.readouterr()
    assert command.run(["plugins", "dataset", "--check"]) == 2
    assert "does not subclass toolkit.dataset:Dataset" in capsys.readouterr().out


def test_plugins_names_both_claims(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = plugin.parent / "other"
    shutil.copytree(plugin, other)
    project = other / "pyproject.toml"
    project.write_text(project.read_text().replace("cli-plugin", "second-plugin"))
    assert command.run(["plugins", "decoder", "--plugin", str(other)]) == 0
    assert "decoder=d_dec is claimed by cli-plugin 3" in capsys.readouterr().out


def test_plugins_knows_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no kind of component is called encodr" in fails(capsys, "plugins", "encodr")
    assert "--jsn" in fails(capsys, "plugins", "--jsn")


# -- completion


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("toolkit tr", ["train "]),
        ("toolkit plugins --j", ["--json "]),
        ("toolkit completion z", ["zsh "]),
        ("toolkit train exp", ["experiment="]),
        ("toolkit train experiment=d_", ["experiment=d_small "]),
        ("toolkit train encoder=d_", ["encoder=d_enc ", "encoder=d_wrong "]),
        ("toolkit train experiment=d_small encoder.h", ["encoder.hidden="]),
        ("toolkit train encoder=d_enc encoder.norm=", ["encoder.norm=group ", "encoder.norm=none "]),
        ("toolkit train encoder=d_enc encoder.bias=", ["encoder.bias=false ", "encoder.bias=true "]),
        ("toolkit train quantizer=product quantizer.inner.name=v", ["quantizer.inner.name=vq "]),
        ("toolkit train quantizer=product quantizer.inner.name=ema quantizer.inner.dec", ["quantizer.inner.decay="]),
        ("toolkit train encoder=nope seed=x tra", ["trainer."]),
        ("toolkit train trainer.optimizer=a", ["trainer.optimizer=adam ", "trainer.optimizer=adamw "]),
        ("toolkit train stage=p", ["stage=prior "]),
        ("toolkit adopt mine f.pt set", ["settings="]),
        ("toolkit train init=so", ["init=some/"]),
        ("toolkit train init=some/", ["init=some/run/"]),
        ("toolkit check experiment=d_", ["experiment=d_small "]),
        ("toolkit train 'unclosed experi", ["experiment="]),
        ("toolkit new-plugin comp", ["component="]),
        ("toolkit smaple run=x ", []),
        ("toolkit s(ample run=x ", []),
    ],
)
def test_completion(plugin: Path, line: str, found: list[str]) -> None:
    (Path("some") / "run").mkdir(parents=True)
    assert candidates(line) == found


def test_completion_of_a_runs_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and priors of the run that the line names, and names that a shell would split."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "my run"
    (run / "priors" / "pixelcnn").mkdir(parents=True)
    spec = {"data": {"conditions": [{"name": "kind", "labels": ["circle", "한 글"]}]}}
    (run / "spec.json").write_text(json.dumps(spec))
    assert candidates("toolkit sample run=my") == [r"run=my\ run/"]
    line = r"toolkit --debug sample run=my\ run "
    assert candidates(line + "cond") == ["condition.kind="]
    assert candidates(line + "condition.kind=") == ["condition.kind=circle ", r"condition.kind=한\ 글 "]
    assert candidates(line + "prior=") == ["prior=pixelcnn "]
    assert candidates("toolkit evaluate split=t") == ["split=test ", "split=train "]
    assert "--multirun " in candidates("toolkit train --")
    assert candidates("toolkit plugins quantizer pro") == ["product ", "projected "]


def test_other_commands_complete_their_options() -> None:
    assert "run=" in candidates("toolkit sample r")


@pytest.mark.parametrize("breaks", ["=", ""])
def test_bash_completes(tmp_path: Path, breaks: str) -> None:
    """With = among bash's word breaks, only what stands behind it is replaced."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    fake = tmp_path / "toolkit"
    fake.write_text("#!/bin/sh\nprintf 'encoder=one \\nencoder=two \\n'\n")
    fake.chmod(0o755)
    line = "toolkit train encoder="
    script = f"{BASH}\nCOMP_WORDBREAKS='{breaks}'\nCOMP_LINE='{line}' COMP_POINT={len(line)}\n_toolkit\n"
    out = subprocess_out("bash", "-c", script + 'printf "[%s]" "${COMPREPLY[@]}"', PATH=f"{tmp_path}:/usr/bin:/bin")
    start = "" if breaks else "encoder="
    assert out == f"[{start}one ][{start}two ]"


# -- what is never imported


ASKING = [
    ["plugins"],
    ["train", "--help"],
    ["train", "--cfg", "job", "experiment=d_small"],
    ["completion", "query", "toolkit train experiment=d_small encoder."],
    ["completion", "query", "toolkit sample "],
    ["train", "experiment=d_small", "encoder.hiden=3"],
    ["sample", "--help"],
]


@pytest.mark.long
def test_what_only_asks_imports_no_torch(plugin: Path) -> None:
    code = (
        f"import sys\nfrom toolkit.__main__ import run\nfor words in {ASKING!r}:\n"
        "    try: run(words)\n    except SystemExit: pass\n"
        "    imported = {'torch', 'cli_plugin', 'toolkit_image'} & set(sys.modules)\n"
        "    if imported: sys.exit(f'{words} imports {imported}')\n"
    )
    subprocess_out(sys.executable, "-c", code)


def test_plugins_imports_no_hydra(plugin: Path) -> None:
    code = "import sys\nfrom toolkit.__main__ import run\nrun(['plugins'])\nprint('hydra' in sys.modules)"
    assert subprocess_out(sys.executable, "-c", code).splitlines()[-1] == "False"
