"""The pages of docs/: their code runs, their commands compose, what they take from the code is all of it."""

from __future__ import annotations

import inspect
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from markdown_blocks import TINY, blocks, commands, write_files
from safetensors.torch import load_file

import toolkit
from toolkit import registry, testing
from toolkit.__main__ import run
from toolkit.runs.checkpoint import found
from toolkit.runs.folder import Run

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
LINES = [(page, words) for page, text in PAGES.items() for words in commands(text) if {"train", "check"} & {*words}]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not {"image_shapes", "audio_vowels"} <= set(registry.names("dataset")),
        reason="image and audio are not installed",
    ),
]
needs_mkdocs = pytest.mark.skipif(util.find_spec("mkdocs") is None, reason="needs pip install 'discrete-toolkit[docs]'")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, with what the pages say is in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(registry.PLUGIN_PATH, "")
    for text in PAGES.values():
        write_files(text, tmp_path)
    return tmp_path


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The hook that fills pages, with the plugins of this checkout."""
    monkeypatch.setenv(registry.PLUGIN_PATH, str(ROOT / "plugins"))
    spec = util.spec_from_file_location("generated", DOCS / "generated.py")
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.few(4)
@pytest.mark.parametrize(("page", "words"), LINES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_composes(page: str, words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would train is only composed, a sweep by its first run."""
    if any(word.startswith("run=") for word in words):
        pytest.skip("a run that is gone on with")
    if any(word.startswith("hydra/") for word in words) and not util.find_spec("hydra_plugins"):
        pytest.skip("needs the extras sweep and slurm")
    if "-m" in words:
        words = [re.sub(r"=([^,()]*),.*", r"=\1", word) for word in words if word != "-m" and "interval(" not in word]
    if "train" in words and "--cfg" not in words:
        words = [*words, "--cfg", "job"]
    assert run(words) == 0, capsys.readouterr().err


def test_the_overview_has_every_experiment() -> None:
    overview = PAGES["experiments.md"].partition("## Which one")[2].partition("## Each of them")[0]
    files = [*(ROOT / "plugins").glob("*/toolkit_*/conf/experiment/*.yaml")]
    assert len(files) > 25
    for path in files:
        assert f"`{path.stem}`" in overview, path.stem


@pytest.mark.slow
def test_the_ten_minute_quantizer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command of the page, in its order, in a fresh folder."""
    for words in commands(PAGES["write.md"]):
        tiny = TINY if "train" in words else ["examples=4"] if "evaluate" in words else []
        assert run([*words, *tiny]) == 0, capsys.readouterr().err
    assert list((folder / "outputs" / "steps" / "samples").glob("*.png"))
    assert "768" in capsys.readouterr().out


@pytest.mark.slow
def test_the_ten_minute_quantizer_keeps_its_laws(folder: Path) -> None:
    _pytest(folder / "my-quantizer")


@pytest.mark.slow
def test_the_example_of_each_kind_keeps_its_laws(folder: Path) -> None:
    _pytest(folder / "my-parts")


def test_the_examples_load(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kind has one, by itself or on the ten-minute page."""
    assert run(["--plugin", "my-parts", "--plugin", "my-quantizer", "plugins", "--check"]) == 0
    listed = capsys.readouterr().out
    for kind in registry.PARTS:
        (line,) = re.findall(r"^.* my_\w+ .*$", listed[listed.index(kind) :], re.MULTILINE)[:1]
        assert "my-parts" in line or "my-quantizer" in line


def test_a_trained_model_in_python(folder: Path) -> None:
    (train,) = commands(PAGES["python.md"])[:1]
    assert run([*train, *TINY]) == 0
    execute("python.md")
    assert (folder / "shape.png").is_file()
    encode, decode = commands(PAGES["codes.md"])[:2]
    assert run([*encode, "dataset.test_size=3"]) == 0
    names = execute("codes.md")
    assert run(decode) == 0
    written = sorted(path.relative_to("decoded").as_posix() for path in Path("decoded").rglob("*.png"))
    assert written == [f"{name}.png" for name in names["names"]]
    shutil.rmtree("decoded")
    execute("compress.md")
    compress, decompress, compare = commands(PAGES["compress.md"])[:3]
    assert run([*compress, "dataset.test_size=3"]) == 0
    assert run(decompress) == 0
    assert run([*compare, "examples=3"]) == 0
    assert (folder / "against" / "against.png").is_file()
    assert sorted(path.relative_to("decoded").as_posix() for path in Path("decoded").rglob("*.png")) == written


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("onnxruntime") is None, reason="needs pip install 'discrete-toolkit[onnx]'")
def test_graphs_for_other_programs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (train,) = commands(PAGES["python.md"])[:1]
    assert run([*train, *TINY]) == 0
    export, of_prior = commands(PAGES["export.md"])
    assert run([*export, "examples=2"]) == 0
    names = execute("export.md")
    assert names["decoded"]["x"].shape == names["x"].shape
    assert names["codes"].shape == (1, 1, 8, 8)
    mine = [*train[:-1], "hydra.run.dir=outputs/mine", "prior=transformer", "prior.heads=2", *TINY]
    assert run(mine) == 0
    assert run([*of_prior, "examples=2"]) == 0
    monkeypatch.syspath_prepend("graphs")
    sample = runpy.run_path("graphs/sample.py")["sample"]
    assert sample(3).shape == (3, 1, 8, 8)
    assert np.array_equal(sample(3, seed=1), sample(3, seed=1))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pages compose, in sizes of seconds; a run that is continued goes on for two steps."""
    compose = toolkit.compose

    def composed(*words: str, **given: Any) -> toolkit.RunConfig:
        longer = ["trainer.steps=4", "prior_trainer.steps=4", "stage=all"]
        return compose(*words, *(longer if "run" in given else TINY), **given)

    monkeypatch.setattr(toolkit, "compose", composed, raising=False)


def execute(page: str) -> dict[str, Any]:
    """All Python blocks of a page, one after the other, with one name space."""
    names: dict[str, Any] = {}
    for block in blocks(PAGES[page], "python"):
        exec(compile(block, page, "exec"), names)
    return names


def test_training_in_python(folder: Path, tiny: None) -> None:
    names = execute("train.md")
    assert (folder / "samples.png").is_file()
    assert names["report"].loss == names["report"].loss, "the page's report was told of no loss"
    kept = Run(folder / "outputs" / "simvq")
    assert [path.name for stage in (kept.autoencoder, kept.prior("pixelcnn")) for path in found(stage)[-1:]] == [
        "step-00000004",
        "step-00000004",
    ]
    assert (kept.path / "evaluation.json").is_file()


@pytest.mark.slow
def test_a_tokenizer_of_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is published, adopted, tuned and published again, as the page says."""
    (published,) = (block for block in blocks(PAGES["adopt.md"], "python") if not block.startswith("# my-family"))
    exec(compile(published, "adopt.md", "exec"), {})
    before = load_file("theirs/model.safetensors")
    for words in commands(PAGES["adopt.md"]):
        assert run([*words, "trainer.batch_size=8"] if "train" in words else words) == 0, capsys.readouterr().err
    after = load_file("published/model.safetensors")
    assert sorted(after) == sorted(name for name in before if not name.startswith("critic."))
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {name for name in after if name.startswith("dec.")}


@pytest.mark.slow
def test_a_family_of_ones_own_keeps_its_laws(folder: Path) -> None:
    _pytest(folder / "my-family")


def test_samples_under_captions(folder: Path) -> None:
    train, *sample = commands(PAGES["captions.md"])[:3]
    for words in ([*train, *TINY], *sample):
        assert run(words) == 0
    execute("captions.md")


def test_a_loop_of_ones_own(folder: Path, tiny: None) -> None:
    """It continues from its checkpoint, and leaves a run whose prior can be trained."""
    names = execute("loop.md")
    assert names["optimization"].step == 2
    assert execute("loop.md")["checkpoint"].step == 2
    assert run(["train", "run=outputs/own", "stage=prior", "prior=categorical", "prior_trainer.steps=1"]) == 0


@needs_mkdocs
@pytest.mark.parametrize("kind", registry.PARTS)
def test_a_kinds_page_has_its_laws_and_parts(kind: str, generated: ModuleType) -> None:
    assert {f"<!-- laws {kind} -->", f"<!-- parts {kind} -->"} <= set(PAGES[f"parts/{kind}.md"].splitlines())
    suite = getattr(testing, f"{kind.title()}Suite")
    laws = [line.removeprefix("- ").partition(".")[0] for line in generated.laws(kind).splitlines()]
    tests = [name for name, _ in inspect.getmembers(suite, inspect.isfunction) if name.startswith("test_")]
    assert sorted(re.sub("[`']", "", law).lower().replace(" ", "_") for law in laws) == sorted(
        name.removeprefix("test_") for name in tests
    )
    written = re.findall(r"^### `(\w+)`", generated.parts(kind), re.MULTILINE)
    assert written == list(registry.names(kind))


@needs_mkdocs
def test_pages_name_their_version_and_a_repository_only_where_there_is_one(
    generated: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "ROOT", tmp_path)
    project = '[project]\nname = "a"\nversion = "1.2"\n'
    there = "https://here/us/a"
    for text, *repository in ((project, None, None), (f'{project}urls = {{Repository = "{there}"}}\n', there, "us/a")):
        (tmp_path / "pyproject.toml").write_text(text)
        config = generated.on_config(SimpleNamespace(repo_url=None, repo_name=None))
        assert [config.copyright, config.repo_url, config.repo_name] == ["a 1.2", *repository]


@needs_mkdocs
def test_docstrings_become_markdown(generated: ModuleType) -> None:
    """A block after two colons, and laws, which are a list."""
    doc = "Rows::\n\n    a <- b\n\nLaws, checked by a suite:\n  one holds\n  two holds\n\nThe end: of it\n    indented"
    made = (
        "Rows:\n\n    a <- b\n\nLaws, checked by a suite:\n\n- one holds\n- two holds\n\nThe end: of it\n    indented"
    )
    assert generated.as_markdown(doc) == made


@needs_mkdocs
def test_the_comparison_has_the_rows_that_were_measured(generated: ModuleType) -> None:
    """By their error, lowest first."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "rate_distortion-cpu.json").read_text())["rows"]
    lines = [line.split("|") for line in generated.compared().splitlines()[2:]]
    assert {line[1].strip() for line in lines} == {row["what"] for row in rows}
    errors = [float(line[3].split("±")[0]) for line in lines]
    assert errors == sorted(errors)


def test_the_catalogue_has_every_yaml(generated: ModuleType) -> None:
    catalogue = generated.experiments()
    files = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "plugins").glob("*/toolkit_*/conf/**/*.yaml")]
    assert len(files) > 15
    for file in files:
        assert re.search(rf"^### `.*{file.stem}(\.yaml)?`", catalogue, re.MULTILINE), file
    assert "van den Oord et al. 2017, section 4.1, which reports 4.51" in catalogue


@pytest.mark.slow
@needs_mkdocs
def test_the_pages_build_without_warnings(tmp_path: Path) -> None:
    """Every link and anchor is there; nothing is fetched from elsewhere, no path of this machine is shown."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    pages = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) >= len(PAGES)
    for path, page in pages.items():
        assert str(ROOT) not in page, path
        assert not re.search(r'<(script|img|link)[^>]+(src|href)="(https?:)?//', page), path


def _pytest(folder: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)


@pytest.mark.slow
def test_streams(folder: Path) -> None:
    (train,) = commands(PAGES["streams.md"])[:1]
    assert run([*train, *TINY, "decoder.hidden=8", "decoder.layers=5", "stage=autoencoder"]) == 0
    execute("streams.md")
