"""The notebooks of examples/ run, cell by cell, as a kernel would run them."""

from __future__ import annotations

import ast
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import toolkit
from toolkit import registry
from toolkit.__main__ import run

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))

pytestmark = [
    pytest.mark.skipif("image_shapes" not in registry.names("dataset"), reason="the image plugin is not installed"),
    pytest.mark.filterwarnings(
        "ignore::UserWarning"
    ),  # what compose notes, such as options of a part that was replaced
]


def cells(notebook: Path) -> list[str]:
    """The source of its code cells."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def play(source: str, names: dict[str, Any]) -> Any:
    """Runs a cell: Python, lines ``!toolkit …``, and ``%%writefile``. Returns its last line's value, if it has one."""
    if source.startswith("%%writefile "):
        first, _, content = source.partition("\n")
        Path(first.split()[1]).write_text(content, encoding="utf-8")
        return None
    lines = [f"command({line[1:]!r})" if line.startswith("!") else line for line in source.splitlines()]
    tree = ast.parse("\n".join(lines))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def command(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "toolkit"
    assert run(words) == 0, line


TINY = [
    *(f"{stage}.{word}" for stage in ("trainer", "prior_trainer") for word in ("steps=2", "batch_size=4")),
    *("prior_trainer.allow_collapsed=true", "trainer.validate_examples=4", "prior_trainer.validate_examples=4"),
]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the notebooks compose takes two steps."""
    compose = toolkit.compose
    keys = {word.partition("=")[0] for word in TINY}

    def composed(*words: str, **given: Any) -> toolkit.RunConfig:
        return compose(*(word for word in words if word.partition("=")[0] not in keys), *TINY, **given)

    monkeypatch.setattr(toolkit, "compose", composed, raising=False)


@pytest.mark.long
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(notebook: Path, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every_cell_runs(notebook, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_as_it_is(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every_cell_runs(notebook, tmp_path, monkeypatch)


def every_cell_runs(notebook: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv(registry.PLUGIN_PATH, "")
    names: dict[str, Any] = {"command": command}
    shown = [value for value in (play(source, names) for source in cells(notebook)) if hasattr(value, "_repr_html_")]
    assert shown
    for value in shown:
        cell = value._repr_html_()
        assert "<table>" in cell or "<img" in cell


def test_notebooks_are_kept_without_what_they_printed() -> None:
    assert len(NOTEBOOKS) >= 4
    for notebook in NOTEBOOKS:
        content = json.loads(notebook.read_text(encoding="utf-8"))
        assert content["nbformat"] == 4
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in content["cells"]), notebook.name
        for source in cells(notebook):
            assert not source.startswith("%%writefile") or "\n" in source


def test_own_plugin_is_that_of_the_page() -> None:
    """What is explained line by line on the page is what the notebook writes."""
    page = (ROOT / "docs" / "write.md").read_text(encoding="utf-8")
    (notebook,) = [path for path in NOTEBOOKS if path.stem == "own_plugin"]
    (written,) = [source for source in cells(notebook) if source.startswith("%%writefile my-quantizer/my_quantizer.py")]
    assert written.partition("\n")[2].strip() in page
