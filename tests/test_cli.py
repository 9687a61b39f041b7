"""The command: words to functions, errors to exit statuses, and what it must not import."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from command_plugin import fails, subprocess_out
from messages import assert_names

from toolkit import __main__ as command
from toolkit import registry
from toolkit.errors import ToolkitError


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
    cli_plugin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--plugin", str(cli_plugin), "plugins"], ["plugins", f"--plugin={cli_plugin}"]):
        monkeypatch.setenv(registry.PLUGIN_PATH, "")
        assert command.run(words) == 0
        assert "d_enc" in capsys.readouterr().out
    assert "give a plugin's folder" in fails(capsys, "plugins", "--plugin", "nowhere")


def test_check_composes_as_train_does(
    cli_plugin: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proved: list[Any] = []
    fake = types.ModuleType("toolkit.cli.check")
    fake.check = lambda config: proved.append(config) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toolkit.cli.check", fake)
    assert command.run(["check", "experiment=d_small", "dim=3"]) == 0
    assert proved[0].dim == 3
    assert_names(fails(capsys, "check", "experiment=d_small", "dim=x"), "toolkit check: dim: … int … 'x'\n")
    assert command.run(["check", "--help"]) == 0


def test_plugins_lists_who_brings_what_and_what_is_broken(cli_plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["plugins", "encoder"]) == 0
    out = capsys.readouterr().out
    assert "d_enc" in out
    assert "cli-plugin 3" in out
    assert "A part." in out
    assert "encoder=d_wrong is broken: encoder=d_wrong: *sizes: a component must name all its arguments" in out
    assert "lfq" not in out


def test_plugins_as_json(cli_plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["plugins", "--json"]) == 0
    listed = {(row["kind"], row["name"]): row for row in json.loads(capsys.readouterr().out)["components"]}
    assert listed["encoder", "d_enc"]["target"] == "cli_plugin.parts:Part"
    assert listed["encoder", "d_enc"]["problem"] == ""
    assert "*sizes" in listed["encoder", "d_wrong"]["problem"]
    assert ("quantizer", "vq") in listed


@pytest.mark.long
def test_plugins_check_loads_everything(cli_plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["plugins", "metric", "--check"]) == 0
    capsys.readouterr()
    assert command.run(["plugins", "dataset", "--check"]) == 2
    assert "does not subclass toolkit.dataset:Dataset" in capsys.readouterr().out


def test_plugins_names_both_claims(cli_plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = cli_plugin.parent / "other"
    shutil.copytree(cli_plugin, other)
    project = other / "pyproject.toml"
    project.write_text(project.read_text().replace("cli-plugin", "second-plugin"))
    assert command.run(["plugins", "decoder", "--plugin", str(other)]) == 0
    assert "decoder=d_dec is claimed by cli-plugin 3" in capsys.readouterr().out


def test_plugins_knows_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no kind of component is called encodr" in fails(capsys, "plugins", "encodr")
    assert "--jsn" in fails(capsys, "plugins", "--jsn")


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
def test_what_only_asks_imports_no_torch(cli_plugin: Path) -> None:
    code = (
        f"import sys\nfrom toolkit.__main__ import run\nfor words in {ASKING!r}:\n"
        "    try: run(words)\n    except SystemExit: pass\n"
        "    imported = {'torch', 'cli_plugin', 'toolkit_image'} & set(sys.modules)\n"
        "    if imported: sys.exit(f'{words} imports {imported}')\n"
    )
    subprocess_out(sys.executable, "-c", code)


def test_plugins_imports_no_hydra(cli_plugin: Path) -> None:
    code = "import sys\nfrom toolkit.__main__ import run\nrun(['plugins'])\nprint('hydra' in sys.modules)"
    assert subprocess_out(sys.executable, "-c", code).splitlines()[-1] == "False"
