"""What an author does: a new package, its tests, installed, composed, trained, and gone again."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import build_wheels, environment
from fresh import run as out

from toolkit import __main__ as command
from toolkit import registry
from toolkit.registry import HOSTS, INNER, LISTS, PARTS

pytestmark = pytest.mark.long

AXES = ("[16]", "[16,16]", "[8,8,8]")
CHOICES = {
    "quantizer": ("vq", "ema", "fsq", "lfq", "product", "residual", "simvq"),
    "likelihood": ("categorical", "normal", "logistic"),
    "prior": ("uniform", "categorical", "pixelcnn", "transformer", "maskgit"),
    "objective": ("elbo",),
}
TINY = ["dim=8", "trainer.steps=2", "prior_trainer.steps=2", "trainer.batch_size=4", "prior_trainer.batch_size=4"]
TINY += ["trainer.validate_examples=4", "prior_trainer.validate_examples=4", "prior_trainer.allow_collapsed=true"]


def new(folder: Path, *components: str) -> Path:
    """A new package in a folder."""
    words = [word for component in components for word in ("--component", component)]
    assert command.run(["new-plugin", str(folder), *words]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("components", [["quantizer=born_quantizer", "metric=born_metric"], ["command=born"]])
def test_its_tests_pass_at_birth(tmp_path: Path, components: list[str]) -> None:
    home = new(tmp_path / "born-plugin", *components)
    env = {**os.environ, "PYTHONPATH": str(home), "TOOLKIT_PLUGIN_PATH": str(home)}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=home, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_it_is_used_without_being_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(registry.PLUGIN_PATH, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    home = new(tmp_path / "live-plugin", *(f"{kind}=live_{kind}" for kind in PARTS))
    assert command.run(["--plugin", str(home), "check", "experiment=live_plugin"]) == 0
    printed = capsys.readouterr().out
    assert all(f"live_{kind}" in printed for kind in PARTS if kind not in (*LISTS, *INNER, "likelihood"))


def test_a_command_is_there_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Listed by its docstring, run with its words, and a package of commands alone has no experiment."""
    monkeypatch.setenv(registry.PLUGIN_PATH, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    home = new(tmp_path / "told-plugin", "command=tell")
    assert not (home / "told_plugin" / "conf").exists()
    told = capsys.readouterr().out
    assert "toolkit tell RUN" in told
    assert "experiment=" not in told + (home / "README.md").read_text()
    assert command.run(["--plugin", str(home), "--help"]) == 0
    assert "Says what runs" in capsys.readouterr().out
    assert command.run(["--plugin", str(home), "tell"]) == 2
    assert capsys.readouterr().err == "toolkit tell: no runs: toolkit tell RUNS…\n"
    both = new(tmp_path / "both-plugin", "command=say_it", "metric=said")
    assert command.run(["--plugin", str(both), "check", "experiment=both_plugin"]) == 0
    assert {file.name for file in (both / "tests").iterdir()} == {"test_package.py", "test_say_it.py", "test_said.py"}


def test_a_component_that_is_added_is_there_at_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(registry.PLUGIN_PATH, "")
    home = new(tmp_path / "grown-plugin", "quantizer=first_one")
    text = out(sys.executable, "-m", "toolkit", "--plugin", home, "plugins", "quantizer", cwd=tmp_path)
    assert "first_one" in text
    project = home / "pyproject.toml"
    line = 'first_one = "grown_plugin.first_one:FirstOneQuantizer"\n'
    project.write_text(project.read_text().replace(line, line + line.replace("first_one =", "second_one =")))
    text = out(sys.executable, "-m", "toolkit", "--plugin", home, "plugins", "quantizer", cwd=tmp_path)
    assert "second_one" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{}/fresh"], "no component: add --component KIND=NAME; kinds: dataset"),
        (["--component", "prior=mine"], "name one folder"),
        (["{}/fresh", "--component", "quantiser=mine"], "no kind of component is called quantiser (did you mean quant"),
        (["{}/fresh", "--component", "prior"], "write KIND=NAME"),
        (["{}/fresh", "--component", "prior=My-Prior"], "in small letters, digits and _"),
        (["{}/fresh", "--component", "quantizer=ema"], "discrete-toolkit provides quantizer=ema already"),
        (["{}/fresh", "--component", "prior=a", "--component", "metric=a"], "two of them are called a"),
        (["{}/fresh", "--component", "command=train"], "toolkit train is the core's: choose another name"),
        (["{}/fresh", "--component", "prior=class"], "--component prior=class: class is a word of Python"),
        (["{}/import", "--component", "prior=mine"], "import is a word of Python"),
        (["{}/Fresh!", "--component", "prior=mine"], "a package's name consists of small letters"),
        (["{}/torch", "--component", "prior=mine"], "a module torch exists already"),
        (["{}", "--component", "prior=mine"], "a package's name|exists already"),
        (["{}/taken", "--component", "prior=mine"], "exists already"),
    ],
)
def test_mistakes_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep")
    before = sorted(tmp_path.rglob("*"))
    assert command.run(["new-plugin", *(word.format(tmp_path) for word in words)]) == 2
    told = capsys.readouterr().err
    assert any(each in told for each in said.split("|")), told
    assert sorted(tmp_path.rglob("*")) == before


def test_it_asks_for_this_core(tmp_path: Path) -> None:
    home = new(tmp_path / "fitting-plugin", "prior=fitting")
    assert '"discrete-toolkit>=0.2,<0.3"' in (home / "pyproject.toml").read_text()


# -- in a fresh environment


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with the core alone, which borrows this one's dependencies."""
    folder = tmp_path_factory.mktemp("author")
    return environment(folder, build_wheels(folder, "."))


def combinations(kind: str, name: str) -> list[list[str]]:
    """Ten random models with a component in its place."""
    draw = random.Random(kind)
    made = []
    for _ in range(10):
        words = ["encoder=patch", "decoder=patch", "dim=8"]
        words += [f"{each}={draw.choice(names)}" for each, names in CHOICES.items()]
        words += [f"{HOSTS[kind][0]}={HOSTS[kind][1]}"] if kind in INNER else []
        words += [f"{kind}=[{name}]" if kind in LISTS else f"{registry.key(kind)}={name}"]
        axes = [] if kind == "dataset" else [f"dataset.axes={draw.choice(AXES)}"]
        made.append(["dataset=waves", *words, *axes])
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARTS)
def test_from_idea_to_installed_part_and_gone_again(commands: Path, tmp_path: Path, kind: str) -> None:
    name = f"own_{kind}"
    home = new(tmp_path / f"own-{kind}-plugin", f"{kind}={name}")
    python, toolkit = commands / "python", commands / "toolkit"
    (site,) = commands.parent.glob("lib/python3*/site-packages")
    before = sorted(path for path in site.rglob("*") if "__pycache__" not in path.parts)

    out(python, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, home, cwd=tmp_path)
    shutil.rmtree(home / "build", ignore_errors=True)
    (wheel,) = tmp_path.glob("*.whl")
    out(python, "-m", "pip", "install", "--no-deps", wheel, cwd=tmp_path)
    shutil.copytree(home / "tests", tmp_path / "tests")
    passed = out(python, "-m", "pytest", "-q", "tests", cwd=tmp_path).splitlines()[-1]
    assert "passed" in passed

    checks = combinations(kind, name)
    code = f"from toolkit.__main__ import run\nfor words in {checks!r}: assert run(['check', *words]) == 0, words"
    out(python, "-c", code, cwd=tmp_path)

    package = f"own_{kind}_plugin"
    run = out(toolkit, "train", f"experiment={package}", *TINY, cwd=tmp_path).splitlines()[-1]
    out(toolkit, "sample", f"run={run}", "n=2", cwd=tmp_path)

    out(python, "-m", "pip", "uninstall", "-y", f"own-{kind}-plugin", cwd=tmp_path)
    assert sorted(path for path in site.rglob("*") if "__pycache__" not in path.parts) == before
    assert name not in out(toolkit, "plugins", cwd=tmp_path)
    verb = {"metric": "evaluate", "logger": "train"}.get(kind, "sample")
    told = out(toolkit, verb, f"run={run}", cwd=tmp_path, fails=2)
    assert f"own-{kind}-plugin" in told
    assert "Traceback" not in told
