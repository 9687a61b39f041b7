"""Names in the Python of the pages and the README are there: quick, where test_docs.py runs the pages."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
from markdown_blocks import blocks, write_files

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def imported(text: str) -> list[tuple[str, str]]:
    """The modules of the toolkit and the names that a page's Python blocks take from them."""
    nodes = [node for block in blocks(text, "python") for node in ast.walk(ast.parse(block))]
    whole = [(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names = [
        (node.module or "", alias.name) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return [(module, name) for module, name in [*whole, *names] if module.partition(".")[0] == "toolkit"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_pages_import_exists(page: Path) -> None:
    for module, name in imported(page.read_text(encoding="utf-8")):
        found = importlib.import_module(module)
        assert not name or hasattr(found, name), f"{page.name}: from {module} import {name}"


def test_the_pages_import_something() -> None:
    assert sum(len(imported(page.read_text(encoding="utf-8"))) for page in PAGES) > 40


@pytest.mark.skipif(util.find_spec("ruff") is None, reason="needs pip install 'discrete-toolkit[lint]'")
def test_files_of_pages_define_or_import_each_name(tmp_path: Path) -> None:
    for page in PAGES:
        write_files(page.read_text(encoding="utf-8"), tmp_path)
    words = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select=F821", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
