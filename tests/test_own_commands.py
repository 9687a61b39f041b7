"""Commands that plugins bring, beside the core's."""

from __future__ import annotations

from pathlib import Path

import pytest
from messages import assert_names

from toolkit import __main__ as command
from toolkit import registry
from toolkit.cli.completion import candidates

PROJECT = """
[project]
name = "{name}"
version = "1.0"
dependencies = ["discrete-toolkit"]
[project.entry-points."toolkit.command"]
{commands}
"""
MODULE = '''
import sys
from toolkit import ToolkitError

def greet(words: list[str]) -> int:
    """Says hello to runs.

    And more.
    """
    if not words:
        raise ToolkitError("no run: toolkit greet RUN")
    print("hello", *words)
    return 3 if words == ["badly"] else 0

def silent(words):
    print("torch" in sys.modules)

def odd(words):
    return "done"

def broken(words):
    raise KeyError("what")

NUMBER = 4
'''


def plugin(folder: Path, name: str = "my-commands", **commands: str) -> Path:
    module = name.replace("-", "_")
    lines = "\n".join(f'{key.replace("_", "-")} = "{module}:{value}"' for key, value in commands.items())
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT.format(name=name, commands=lines))
    (folder / f"{name.replace('-', '_')}.py").write_text(MODULE)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = {"greet": "greet", "say_nothing": "silent", "odd": "odd", "broken": "broken", "number": "NUMBER"}
    home = plugin(tmp_path / "one", **names, gone="nothing")
    monkeypatch.setenv(registry.PLUGIN_PATH, str(home))
    return home


def test_they_run_with_the_words_after_their_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["greet", "outputs/a", "--loud"]) == 0
    assert capsys.readouterr().out == "hello outputs/a --loud\n"
    assert command.run(["greet", "badly"]) == 3
    assert command.run(["say-nothing"]) == 0
    capsys.readouterr()
    assert command.run(["greet"]) == 2
    assert capsys.readouterr().err == "toolkit greet: no run: toolkit greet RUN\n"


@pytest.mark.parametrize(
    ("name", "status", "named"),
    [
        ("odd", 2, "toolkit odd … returns 'done' … exit status"),
        ("broken", 1, "toolkit broken … KeyError … what"),
        ("number", 2, "toolkit number … command=number … is no function"),
        ("gone", 2, "toolkit gone … command=gone … does not import"),
        ("gret", 2, "toolkit … no such command (did you mean greet"),
    ],
)
def test_what_is_wrong_with_one_is_said(
    home: Path, name: str, status: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run([name]) == status
    assert_names(capsys.readouterr().err, named)


def test_they_are_listed_without_being_imported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "my_commands.py").write_text(f"raise SystemExit(3)\n{MODULE}")
    assert command.run(["--help"]) == 0
    out = capsys.readouterr().out
    assert "Says hello to runs (my-commands)" in out
    assert "greet " in candidates("toolkit gre")


@pytest.mark.long
def test_the_cores_names_and_those_of_two_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    homes = plugin(tmp_path / "one", train="greet", both="greet"), plugin(tmp_path / "two", "other", both="greet")
    monkeypatch.setenv(registry.PLUGIN_PATH, ":".join(map(str, homes)))
    assert command.run(["check", "--help"]) == 0
    capsys.readouterr()
    assert command.run(["both"]) == 2
    assert_names(capsys.readouterr().err, "toolkit both: command=both … my-commands … other … rename yours")
    assert command.run(["plugins", "logger", "--check"]) == 2
    out = capsys.readouterr().out
    assert "toolkit train is the core's: rename yours" in out
    assert "command=both is claimed by" in out


def test_a_group_that_nobody_reads_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = plugin(tmp_path / "one", greet="greet")
    text = (home / "pyproject.toml").read_text().replace("toolkit.command", "toolkit.comand")
    (home / "pyproject.toml").write_text(text)
    monkeypatch.setenv(registry.PLUGIN_PATH, str(home))
    (problem,) = (text for text in registry.problems() if "my-commands" in text)
    assert "toolkit.comand are of no kind (did you mean toolkit.command" in problem
